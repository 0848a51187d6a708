"""The slow-path unary RPCs, by their serialized messages."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import pb
from gateway.backends.base import Signature, TensorSpec
from gateway.errors import Code, GatewayError
from gateway.serving.catalog import Catalog, State
from gateway.serving.rpc import Services

SIGNATURE = Signature(
    (TensorSpec("image", "FP32", (-1, 3, -1, 64)), TensorSpec("note", "BYTES", (-1, 1))),
    (TensorSpec("label", "INT64", (-1,)),),
    batched=True,
)


@pytest.fixture
def catalog() -> Catalog:
    """`zoo` 1 READY, 2 LOADING, 10 READY; `ant` 1 UNAVAILABLE; started."""
    catalog = Catalog()
    for version in ("10", "1"):
        catalog.move(catalog.add("zoo", version), State.READY, signature=SIGNATURE, platform="onnxruntime_onnx")
    catalog.move(catalog.add("ant", "1"), State.UNAVAILABLE, "model.onnx: not found")
    catalog.started = True
    catalog.add("zoo", "2")
    return catalog


def call(catalog: Catalog, method: str, **fields: Any) -> Any:
    request = getattr(pb.inference, f"{method}Request")(**fields)
    answer = Services(catalog, "1.2.3").unary[f"/inference.GRPCInferenceService/{method}"](request.SerializeToString())
    return getattr(pb.inference, f"{method}Response").FromString(answer)


def refusal(catalog: Catalog, method: str, **fields: Any) -> tuple[Code, str]:
    with pytest.raises(GatewayError) as caught:
        call(catalog, method, **fields)
    return caught.value.code, str(caught.value)


def test_a_started_server_is_live_and_ready(catalog: Catalog) -> None:
    assert call(catalog, "ServerLive").live
    assert call(catalog, "ServerReady").ready


def test_a_draining_server_is_live_and_not_ready(catalog: Catalog) -> None:
    catalog.draining = True
    assert call(catalog, "ServerLive").live
    assert not call(catalog, "ServerReady").ready
    assert not call(catalog, "ModelReady", name="zoo").ready


def test_server_metadata_names_the_gateway_and_no_extension_that_is_not_there(catalog: Catalog) -> None:
    answer = call(catalog, "ServerMetadata")
    assert (answer.name, answer.version, list(answer.extensions)) == ("gateway", "1.2.3", [])


def test_extensions_that_the_data_plane_offers_are_listed() -> None:
    services = Services(Catalog(), "1", extensions=["schedule_policy"])
    answer = pb.inference.ServerMetadataResponse.FromString(
        services.unary["/inference.GRPCInferenceService/ServerMetadata"](b"")
    )
    assert list(answer.extensions) == ["schedule_policy"]


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("zoo", "", True),
        ("zoo", "1", True),
        ("zoo", "2", False),  # LOADING
        ("zoo", "7", False),  # unknown: not an error, as Triton answers
        ("ant", "", False),
        ("nobody", "", False),
    ],
)
def test_model_ready(catalog: Catalog, name: str, version: str, ready: bool) -> None:
    assert call(catalog, "ModelReady", name=name, version=version).ready is ready


def test_model_metadata_gives_the_signature_with_minus_one_for_any_size(catalog: Catalog) -> None:
    answer = call(catalog, "ModelMetadata", name="zoo")
    assert (answer.name, answer.platform, list(answer.versions)) == ("zoo", "onnxruntime_onnx", ["1", "10"])
    assert [(t.name, t.datatype, list(t.shape)) for t in answer.inputs] == [
        ("image", "FP32", [-1, 3, -1, 64]),
        ("note", "BYTES", [-1, 1]),
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in answer.outputs] == [("label", "INT64", [-1])]


@pytest.mark.parametrize(
    ("name", "version", "code", "text"),
    [
        ("nobody", "", Code.NOT_FOUND, "Request for unknown model: 'nobody' is not found; models here: 'ant', 'zoo'"),
        (
            "zoo",
            "7",
            Code.NOT_FOUND,
            "model 'zoo' has no version '7'; its versions: 1 (READY), 2 (LOADING), 10 (READY)",
        ),
        ("zoo", "2", Code.UNAVAILABLE, "model 'zoo' version 2 is LOADING"),
        (
            "ant",
            "",
            Code.UNAVAILABLE,
            "model 'ant' has no version ready: version 1 is UNAVAILABLE: model.onnx: not found",
        ),
    ],
)
def test_model_metadata_refusals(catalog: Catalog, name: str, version: str, code: Code, text: str) -> None:
    assert refusal(catalog, "ModelMetadata", name=name, version=version) == (code, text)


def test_repository_index_lists_all_versions_by_name_and_number(catalog: Catalog) -> None:
    answer = call(catalog, "RepositoryIndex")
    assert [(m.name, m.version, m.state, m.reason) for m in answer.models] == [
        ("ant", "1", "UNAVAILABLE", "model.onnx: not found"),
        ("zoo", "1", "READY", ""),
        ("zoo", "2", "LOADING", ""),
        ("zoo", "10", "READY", ""),
    ]


def test_repository_index_with_ready_lists_only_what_serves(catalog: Catalog) -> None:
    answer = call(catalog, "RepositoryIndex", ready=True)
    assert [(m.name, m.version) for m in answer.models] == [("zoo", "1"), ("zoo", "10")]


def test_repository_index_of_a_named_repository_is_not_offered(catalog: Catalog) -> None:
    code, text = refusal(catalog, "RepositoryIndex", repository_name="other")
    assert code == Code.UNIMPLEMENTED
    assert text.startswith("repository_name: got 'other'; this server has one repository")


@pytest.mark.parametrize("path", sorted(Services(Catalog(), "1").unary))
def test_bytes_that_are_no_message_are_refused_by_type_name(path: str) -> None:
    with pytest.raises(GatewayError) as caught:
        Services(Catalog(), "1").unary[path](b"\x0a\xff")
    assert caught.value.code == Code.INVALID_ARGUMENT
    service, method = path[1:].split("/")
    package = service.rpartition(".")[0]
    name = "HealthCheckRequest" if method == "Check" else f"{method}Request"
    assert f"got 2 bytes that are no {package}.{name} message" in str(caught.value)


def test_every_method_of_the_proto_is_served_here_or_natively() -> None:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    declared = {
        f"/{file.package}.{service.name}/{method.name}"
        for file in map(FileDescriptorProto.FromString, pb.file_descriptor_protos.values())
        for service in file.service
        for method in service.method
    }
    services = Services(Catalog(), "1")
    native = {f"/inference.GRPCInferenceService/{name}" for name in ("ModelInfer", "ModelStreamInfer")}
    feedback = {f"/gateway.v1.Feedback/{name}" for name in ("Report", "ReportStream")}  # the worker's `more`
    assert {*services.unary, *services.streaming, *native, *feedback} == declared
