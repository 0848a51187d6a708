"""Server reflection in both dialects: what tools ask, from our own descriptors and from files with extensions."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from gateway import pb
from gateway.errors import Code
from gateway.serving.catalog import Catalog
from gateway.serving.reflection import V1, V1ALPHA, Descriptors, Dialect, Reflection
from gateway.serving.rpc import Services
from gateway.serving.stream import StreamHandler
from tests.support.streams import RecordedStream

both = pytest.mark.parametrize("dialect", [V1, V1ALPHA], ids=["v1", "v1alpha"])


def open_call(dialect: Dialect) -> tuple[StreamHandler, RecordedStream]:
    stream = RecordedStream(dialect.path)
    return Services(Catalog(), "1").streaming[dialect.path](stream), stream


def ask(dialect: Dialect, **fields: Any) -> Any:
    handler, stream = open_call(dialect)
    handler.on_message(dialect.request(host="h", **fields).SerializeToString())
    assert stream.finished is None
    answer = dialect.response.FromString(stream.sent[0])
    assert answer.valid_host == "h"
    assert answer.original_request == dialect.request(host="h", **fields)
    return answer


def files(answer: Any) -> list[str]:
    protos = answer.file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(serialized).name for serialized in protos]


@both
def test_list_services_lists_all_of_them_sorted(dialect: Dialect) -> None:
    answer = ask(dialect, list_services="")
    assert [service.name for service in answer.list_services_response.service] == [
        "gateway.v1.Feedback",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]


@both
@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("inference.GRPCInferenceService", "inference.proto"),
        ("inference.GRPCInferenceService.ModelInfer", "inference.proto"),
        ("inference.ModelInferRequest", "inference.proto"),
        ("inference.ModelInferRequest.InferInputTensor", "inference.proto"),
        ("inference.ModelInferRequest.InferInputTensor.shape", "inference.proto"),
        ("inference.InferParameter.parameter_choice", "inference.proto"),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", "health.proto"),
        ("grpc.health.v1.HealthCheckResponse.SERVING", "health.proto"),
        ("grpc.reflection.v1.ServerReflectionRequest", "reflection.proto"),
        ("grpc.reflection.v1alpha.ServerReflection", "reflection_alpha.proto"),
    ],
)
def test_any_symbol_is_found_in_its_file(dialect: Dialect, symbol: str, file: str) -> None:
    assert files(ask(dialect, file_containing_symbol=symbol))[0] == file


@both
def test_a_file_is_found_by_name(dialect: Dialect) -> None:
    answer = ask(dialect, file_by_filename="health.proto")
    assert list(answer.file_descriptor_response.file_descriptor_proto) == [pb.file_descriptor_protos["health.proto"]]


@both
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"file_by_filename": "x.proto"}, "file_by_filename: 'x.proto' not found"),
        ({"file_containing_symbol": "inference.Nothing"}, "file_containing_symbol: 'inference.Nothing' not found"),
        ({"file_containing_symbol": "inference"}, "file_containing_symbol: 'inference' not found"),  # a package
        ({"all_extension_numbers_of_type": "x.Y"}, "all_extension_numbers_of_type: 'x.Y' not found"),
        (
            {"file_containing_extension": {"containing_type": "inference.InferParameter", "extension_number": 7}},
            "file_containing_extension: extension 7 of 'inference.InferParameter' not found",
        ),
    ],
)
def test_what_is_not_there_is_answered_in_the_stream(dialect: Dialect, fields: dict[str, Any], text: str) -> None:
    error = ask(dialect, **fields).error_response
    assert (error.error_code, error.error_message) == (Code.NOT_FOUND, text)


@both
def test_a_message_without_extensions_has_none(dialect: Dialect) -> None:
    answer = ask(dialect, all_extension_numbers_of_type="inference.InferParameter")
    assert answer.WhichOneof("message_response") == "all_extension_numbers_response"
    assert answer.all_extension_numbers_response.base_type_name == "inference.InferParameter"
    assert list(answer.all_extension_numbers_response.extension_number) == []


@both
def test_an_empty_request_is_answered_as_invalid(dialect: Dialect) -> None:
    assert ask(dialect).error_response.error_code == Code.INVALID_ARGUMENT


@both
def test_answers_come_in_order_and_half_close_ends_the_call_well(dialect: Dialect) -> None:
    handler, stream = open_call(dialect)
    names = list(pb.file_descriptor_protos)
    for name in names:
        handler.on_message(dialect.request(file_by_filename=name).SerializeToString())
    handler.on_half_close()
    assert [files(dialect.response.FromString(message))[0] for message in stream.sent] == names
    assert stream.finished == (0, "")


@both
def test_a_malformed_request_ends_the_call_by_type_name(dialect: Dialect) -> None:
    handler, stream = open_call(dialect)
    handler.on_message(b"\x0a\xff")
    handler.on_half_close()
    assert stream.finished
    assert stream.finished[0] == Code.INVALID_ARGUMENT
    assert "ServerReflectionRequest" in stream.finished[1]


def test_after_cancel_nothing_is_sent() -> None:
    handler, stream = open_call(V1)
    handler.on_cancel()
    handler.on_half_close()
    assert (stream.sent, stream.finished) == ([], None)


@pytest.fixture(scope="module")
def everything() -> Reflection:
    """Files a <- b <- c (and a <- c), with extensions at top level and inside a message."""
    a = FileDescriptorProto(name="a.proto", package="a", syntax="proto2")
    base = a.message_type.add(name="Base")
    base.extension_range.add(start=100, end=200)
    b = FileDescriptorProto(name="b.proto", package="b", syntax="proto2", dependency=["a.proto"])
    b.extension.add(name="top", number=100, label=1, type=5, extendee=".a.Base")
    c = FileDescriptorProto(name="c.proto", syntax="proto2", dependency=["b.proto", "a.proto"])
    outer = c.message_type.add(name="Outer")
    outer.extension.add(name="inner", number=150, label=1, type=5, extendee=".a.Base")
    colour = c.enum_type.add(name="Colour")
    colour.value.add(name="RED", number=0)
    return Reflection(V1, Descriptors({file.name: file.SerializeToString() for file in (a, b, c)}))


def test_a_file_comes_first_and_then_all_it_imports_once(everything: Reflection) -> None:
    answer = everything.answer(V1.request(file_containing_symbol="Outer"))
    assert files(answer)[0] == "c.proto"
    assert sorted(files(answer)) == ["a.proto", "b.proto", "c.proto"]
    pool = descriptor_pool.DescriptorPool()
    for serialized in reversed(answer.file_descriptor_response.file_descriptor_proto):
        pool.AddSerializedFile(serialized)
    assert pool.FindExtensionByName("Outer.inner").number == 150


@pytest.mark.parametrize(
    ("symbol", "file"),
    [("b.top", "b.proto"), ("Outer.inner", "c.proto"), ("RED", "c.proto"), ("Colour", "c.proto")],
)
def test_symbols_without_a_package_and_extensions_are_found(everything: Reflection, symbol: str, file: str) -> None:
    assert files(everything.answer(V1.request(file_containing_symbol=symbol)))[0] == file


@pytest.mark.parametrize(("number", "file"), [(100, "b.proto"), (150, "c.proto")])
def test_extensions_are_found_by_number(everything: Reflection, number: int, file: str) -> None:
    wanted = {"containing_type": "a.Base", "extension_number": number}
    assert files(everything.answer(V1.request(file_containing_extension=wanted)))[0] == file


def test_extension_numbers_are_listed_over_all_files(everything: Reflection) -> None:
    answer = everything.answer(V1.request(all_extension_numbers_of_type="a.Base"))
    assert list(answer.all_extension_numbers_response.extension_number) == [100, 150]
