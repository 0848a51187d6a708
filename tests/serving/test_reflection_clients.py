"""Reflection and health as other people's clients see them, on the running server: grpcio's libraries, grpcurl."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

pytestmark = pytest.mark.conformance

SERVICES = [
    "gateway.v1.Feedback",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
]


@pytest.fixture
def channel(server: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_url) as channel:
        yield channel


def test_grpcios_reflection_client_builds_the_whole_service(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert sorted(database.get_services()) == SERVICES
    service = DescriptorPool(database).FindServiceByName("inference.GRPCInferenceService")
    infer = service.FindMethodByName("ModelInfer")
    assert infer.input_type.fields_by_name["raw_input_contents"].number == 7


def test_grpcios_reflection_client_is_told_what_is_not_there(channel: grpc.Channel) -> None:
    with pytest.raises(KeyError):
        DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindMessageTypeByName("inference.Nothing")


def test_grpcios_health_client_sees_the_server_its_models_and_strangers(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("service", "status"), [("", "SERVING"), ("nobody", "SERVICE_UNKNOWN")])
def test_grpcios_health_client_watches_and_may_leave(channel: grpc.Channel, service: str, status: str) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service), timeout=5)  # type: ignore[no-untyped-call]
    assert next(watch).status == health_pb2.HealthCheckResponse.ServingStatus.Value(status)
    watch.cancel()


def grpcurl(url: str, *arguments: str, before: tuple[str, ...] = ()) -> str:
    beside_python = Path(sys.executable).with_name("grpcurl")
    binary = str(beside_python) if beside_python.exists() else shutil.which("grpcurl")
    if binary is None:
        pytest.skip("grpcurl is not installed")
    done = subprocess.run(
        [binary, "-plaintext", *before, url, *arguments], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_grpcurl_lists_services_and_methods(server: Any) -> None:
    assert grpcurl(server.grpc_url, "list").split() == SERVICES
    methods = grpcurl(server.grpc_url, "list", "inference.GRPCInferenceService").split()
    assert "inference.GRPCInferenceService.ModelStreamInfer" in methods


@pytest.mark.parametrize(
    "symbol",
    [
        "inference.GRPCInferenceService.ModelInfer",
        "inference.ModelInferRequest.InferInputTensor",
        "grpc.health.v1.Health",
    ],
)
def test_grpcurl_describes_any_symbol(server: Any, symbol: str) -> None:
    assert symbol in grpcurl(server.grpc_url, "describe", symbol)


def test_grpcurl_calls_by_what_it_learned(server: Any) -> None:
    ready = grpcurl(server.grpc_url, "inference.GRPCInferenceService/ServerReady")
    assert json.loads(ready) == {"ready": True}
    index = json.loads(grpcurl(server.grpc_url, "inference.GRPCInferenceService/RepositoryIndex"))
    name = index["models"][0]["name"]
    before = ("-d", json.dumps({"name": name}))
    metadata = json.loads(grpcurl(server.grpc_url, "inference.GRPCInferenceService/ModelMetadata", before=before))
    assert metadata["name"] == name
