"""What callers get wrong: one table of (what, code, words of the message). Every message says what came and what was
expected, and the server goes on.
"""

# ruff: noqa: E501 - one line per case is what makes it a table

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

from gateway import pb
from gateway.errors import Code
from tests.support.gatewayprocess import GatewayProcess
from tests.support.h2client import Answer, RawClient, framed
from tests.support.oip import INFER, SERVICE, Client, request

ONES = np.ones((1, 4), np.float32)


def good() -> Any:
    return request("identity_fp32", {"x": ONES})


def typed(model: str, datatype: str, shape: list[int], **contents: Any) -> Any:
    message = pb.inference.ModelInferRequest(model_name=model)
    message.inputs.add(name="x", datatype=datatype, shape=shape).contents.SetInParent()
    for name, values in contents.items():
        getattr(message.inputs[0].contents, name).extend(values)
    return message


def changed(message: Any = None, **fields: Any) -> Any:
    """The good request with other fields; `input_<field>` changes its first tensor, `raws` its raw contents."""
    message = message or good()
    for name, value in fields.items():
        if name == "raws":
            message.raw_input_contents[:] = value
        elif name == "shape":
            message.inputs[0].shape[:] = value
        elif name.startswith("input_"):
            setattr(message.inputs[0], name.removeprefix("input_"), value)
        else:
            setattr(message, name, value)
    return message


def wanting(*outputs: str) -> Any:
    message = good()
    for name in outputs:
        message.outputs.add(name=name)
    return message


def with_parameter(key: str, value: Any, **more: Any) -> Any:
    return request("identity_fp32", {"x": ONES}, parameters={key: value, **more})


def in_shared_memory() -> Any:
    message = changed(raws=[])
    message.inputs[0].parameters["shared_memory_region"].string_param = "region"
    return message


def both_contents() -> Any:
    message = good()
    message.inputs[0].contents.fp32_contents.extend([1, 1, 1, 1])
    return message


def same_input_twice() -> Any:
    message = good()
    message.inputs.add().CopyFrom(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])
    return message


def rows_that_differ() -> Any:
    return request("sum_and_difference", {"a": np.ones((2, 16), np.int32), "b": np.ones((3, 16), np.int32)})


def one_of_two_inputs() -> Any:
    return request("sum_and_difference", {"a": np.ones((1, 16), np.int32)})


def texts(raw: bytes, shape: list[int]) -> Any:
    message = pb.inference.ModelInferRequest(model_name="identity_bytes", raw_input_contents=[raw])
    message.inputs.add(name="x", datatype="BYTES", shape=shape)
    return message


@dataclass(frozen=True)
class Case:
    """A wrong message, and how it is refused."""

    what: str
    message: Any  # a protobuf message or bytes
    code: Code
    words: tuple[str, ...]


INVALID, NOT_FOUND = Code.INVALID_ARGUMENT, Code.NOT_FOUND
IDENTITY = "model 'identity_fp32' version '1'"

CASES = [
    # the model
    Case("no model", changed(model_name=""), NOT_FOUND, ("model_name is empty", "expected one of", "breast_cancer")),
    Case("unknown model", changed(model_name="nobody"), NOT_FOUND, ("Request for unknown model: 'nobody'", "expected one of", "digits")),
    Case("unknown version", changed(model_version="9"), NOT_FOUND, ("model_version of model 'identity_fp32': got '9', expected one of 1",)),
    Case("a version of letters", changed(model_version="new"), NOT_FOUND, ("got 'new', expected one of 1",)),
    # inputs and outputs
    Case("no input", pb.inference.ModelInferRequest(model_name="identity_fp32"), INVALID, (f"input 'x' of {IDENTITY} is missing", "expected 'x'")),
    Case("unknown input", changed(input_name="pixels"), INVALID, (f"inputs of {IDENTITY}: got 'pixels', expected 'x'",)),
    Case("one of two inputs", one_of_two_inputs(), INVALID, ("input 'b' of model 'sum_and_difference' version '1' is missing", "expected 'a', 'b'")),
    Case("the same input twice", same_input_twice(), INVALID, (f"input 'x' of {IDENTITY} comes twice, expected once",)),
    Case("unknown output", wanting("z"), INVALID, (f"outputs of {IDENTITY}: got 'z', expected 'y'",)),
    Case("the same output twice", wanting("y", "y"), INVALID, (f"outputs of {IDENTITY}: 'y' is asked for twice, expected once",)),
    Case("rows that differ", rows_that_differ(), INVALID, ("input 'b'", "got 3 rows, expected 2 as in input 'a'")),
    # datatype and shape
    Case("another datatype", changed(input_datatype="FP64"), INVALID, (f"input 'x' of {IDENTITY}: got datatype FP64, expected FP32",)),
    Case("no datatype", changed(input_datatype=""), INVALID, ("got datatype none, expected FP32",)),
    Case("a datatype that is none", changed(input_datatype="FLOAT"), INVALID, ("got datatype FLOAT, expected FP32",)),
    Case("too low a rank", changed(shape=[4]), INVALID, ("input 'x'", "got shape [4], expected [-1,4] (-1 is any)")),
    Case("too high a rank", changed(shape=[1, 1, 4]), INVALID, ("got shape [1,1,4], expected [-1,4]",)),
    Case("no shape", changed(shape=[]), INVALID, ("got shape [], expected [-1,4]",)),
    Case("another inner size", changed(shape=[1, 5]), INVALID, ("got shape [1,5], expected [-1,4]",)),
    Case("a negative size", changed(shape=[-1, 4]), INVALID, ("got shape [-1,4], expected [-1,4]",)),
    Case("a size beyond all messages", changed(shape=[2**61, 4]), INVALID, ("shape [2305843009213693952,4] has more elements",)),
    Case("sizes that overflow to the right one", changed(request("identity_wide", {"x": ONES}), shape=[2**33, 2**33]), INVALID, ("has more elements",)),
    Case("a hundred dimensions", changed(shape=[1] * 100), INVALID, ("InferInputTensor.shape: more than", "dimensions, expected at most")),
    # how many bytes
    Case("too few bytes", changed(raws=[b"\0" * 15]), INVALID, ("got 15 bytes in raw_input_contents, expected 16 for shape [1,4] of FP32",)),
    Case("too many bytes", changed(raws=[b"\0" * 17]), INVALID, ("got 17 bytes in raw_input_contents, expected 16",)),
    Case("a thousand raws", changed(raws=[b""] * 2000), INVALID, ("raw_input_contents",)),
    Case("one raw too many", changed(raws=[b"\0" * 16, b""]), INVALID, (f"raw_input_contents of {IDENTITY}: got 2 entries, expected 1",)),
    Case("no data", changed(raws=[]), INVALID, ("unable to find data for input tensor 'x' for model 'identity_fp32' in request", "got neither contents nor raw_input_contents")),
    Case("both kinds of data", both_contents(), INVALID, ("contents field must not be specified when using raw_input_contents for 'x' for model 'identity_fp32'",)),
    Case("too few elements", typed("identity_fp32", "FP32", [1, 4], fp32_contents=[1, 2, 3]), INVALID, ("got 3 elements in contents, expected 4 for shape [1,4]",)),
    Case("too many elements", typed("identity_fp32", "FP32", [1, 4], fp32_contents=[1] * 5), INVALID, ("got 5 elements in contents, expected 4",)),
    Case("contents that are empty", typed("identity_fp32", "FP32", [1, 4]), INVALID, ("got 0 elements in contents, expected 4",)),
    Case("contents of another kind", typed("identity_fp32", "FP32", [1, 4], int_contents=[1] * 4), INVALID, ("got int_contents, expected fp32_contents for datatype FP32",)),
    Case("contents of two kinds", typed("identity_fp32", "FP32", [1, 4], fp32_contents=[1] * 4, bytes_contents=[b""]), INVALID, ("got bytes_contents, expected fp32_contents",)),
    Case("typed FP16", typed("identity_fp16", "FP16", [1, 4], fp32_contents=[1] * 4), INVALID, ("got typed contents, but FP16 exists only as raw_input_contents",)),
    Case("typed BF16", typed("bf16_double", "BF16", [1, 2], fp32_contents=[1] * 2), INVALID, ("got typed contents, but BF16 exists only as raw_input_contents",)),
    Case("INT8 out of range", typed("identity_int8", "INT8", [1, 4], int_contents=[1, 127, 128, 1]), INVALID, ("element 2 of int_contents does not fit datatype INT8",)),
    Case("UINT16 out of range", typed("identity_uint16", "UINT16", [1, 4], uint_contents=[65535, 0, 0, 65536]), INVALID, ("element 3 of uint_contents does not fit datatype UINT16",)),
    # text
    Case("text cut in its length", texts(b"\0\0\0\0\0\0", [1, 2]), INVALID, ("input 'x'", "element 1 is cut short in raw_input_contents, expected a 4-byte little-endian length")),
    Case("text cut in its bytes", texts(b"\0\0\0\0\5\0\0\0abcd", [1, 2]), INVALID, ("element 1 is cut short",)),
    Case("too few texts", texts(b"\0\0\0\0", [1, 2]), INVALID, ("got 1 strings in raw_input_contents, expected 2 for shape [1,2]",)),
    Case("too many texts", texts(b"\0\0\0\0" * 3, [1, 2]), INVALID, ("got 3 strings in raw_input_contents, expected 2",)),
    Case("text that is not UTF-8", texts(b"\1\0\0\0a\1\0\0\0\xff", [1, 2]), INVALID, ("element 1 is not valid UTF-8, expected text",)),
    Case("typed text that is not UTF-8", typed("identity_bytes", "BYTES", [1, 2], bytes_contents=[b"\xc3", b""]), INVALID, ("element 0 is not valid UTF-8",)),
    Case("a model name that is not UTF-8", b"\x0a\x01\xff", INVALID, ("ModelInferRequest.model_name: malformed protobuf near byte 2",)),
    Case("an id that is not UTF-8", b"\x1a\x02\xc0\x80" + good().SerializeToString(), INVALID, ("ModelInferRequest.id: malformed protobuf",)),
    # values that the model itself refuses
    Case("a value the model refuses", request("lookup", {"x": np.array([8], np.int64)}), INVALID, ('model "lookup" version 1 refused the input', "8")),
    # parameters
    Case("shared memory", in_shared_memory(), Code.UNIMPLEMENTED, (f"input 'x' of {IDENTITY}: shared memory is not offered here, send raw_input_contents",)),
    # protobuf
    Case("no bytes at all", b"", NOT_FOUND, ("model_name is empty",)),
    Case("protobuf cut short", good().SerializeToString()[:-1], INVALID, ("ModelInferRequest: malformed protobuf near byte", "expected an inference.ModelInferRequest")),
    Case("not protobuf", b'{"model_name": "identity_fp32"}', INVALID, ("malformed protobuf near byte",)),
    Case("another message", b"\x0b" * 10, INVALID, ("malformed protobuf",)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what.replace(" ", "-"))
def test_a_wrong_request_is_refused_with_code_and_reason(client: Client, case: Case) -> None:
    infer = client.channel.unary_unary(INFER)
    raw = case.message if isinstance(case.message, bytes) else case.message.SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        infer(raw, timeout=10)
    assert caught.value.code().value[0] == case.code, caught.value.details()
    for words in case.words:
        assert words in caught.value.details()
    assert len(caught.value.details()) < 1000


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what.replace(" ", "-"))
def test_a_wrong_request_in_a_stream_is_refused_in_band_with_the_same_reason(client: Client, case: Case) -> None:
    stream = client.channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer", response_deserializer=pb.inference.ModelStreamInferResponse.FromString
    )
    raw = case.message if isinstance(case.message, bytes) else case.message.SerializeToString()
    refused, fine = stream(iter([raw, good().SerializeToString()]), timeout=10)
    for words in case.words:
        assert words in refused.error_message
    assert fine.infer_response.model_name == "identity_fp32"


# --- below protobuf: gRPC and HTTP/2, which no gRPC library gets wrong

GOOD = good().SerializeToString()


@dataclass(frozen=True)
class WireCase:
    what: str
    send: Callable[[RawClient], Answer]
    code: Code
    words: tuple[str, ...]
    http_status: str = "200"


def calling(message: bytes = GOOD, path: str = INFER, **headers: str | None) -> Callable[[RawClient], Answer]:
    fields = {name.replace("__", ":").replace("_", "-"): value for name, value in headers.items()}
    return lambda raw: raw.call(message, path, fields)


def sending(data: bytes, **headers: str | None) -> Callable[[RawClient], Answer]:
    """These bytes as the whole request stream."""

    def send(raw: RawClient) -> Answer:
        stream = raw.open(headers={name.replace("_", "-"): value for name, value in headers.items()})
        raw.send(stream, data, end=True)
        return raw.finish(stream)

    return send


def gzip_bomb() -> bytes:
    return framed(gzip.compress(bytes(65 * 2**20), 9), 1)


WIRE_CASES = [
    WireCase("another content-type", calling(content_type="application/json"), Code.INVALID_ARGUMENT, ("content-type: got 'application/json', expected application/grpc",), "415"),
    WireCase("no content-type", calling(content_type=None), Code.INVALID_ARGUMENT, ("content-type: got '', expected application/grpc",), "415"),
    WireCase("almost the content-type", calling(content_type="application/grpcweb"), Code.INVALID_ARGUMENT, ("got 'application/grpcweb', expected",), "415"),
    WireCase("GET", calling(__method="GET"), Code.UNIMPLEMENTED, (":method: got 'GET', expected POST",), "405"),
    WireCase("unknown method", calling(path=f"/{SERVICE}/ModelTrain"), Code.UNIMPLEMENTED, (f"method: got '/{SERVICE}/ModelTrain', expected one of the methods",)),
    WireCase("unknown service", calling(path="/a.B/C"), Code.UNIMPLEMENTED, ("method: got '/a.B/C'",)),
    WireCase("a Triton method that is not offered", calling(path=f"/{SERVICE}/TraceSetting"), Code.UNIMPLEMENTED, ("TraceSetting",)),
    WireCase("unknown compression", calling(grpc_encoding="snappy"), Code.UNIMPLEMENTED, ("grpc-encoding: got 'snappy', expected identity, deflate or gzip",)),
    WireCase("a timeout that is none", calling(grpc_timeout="soon"), Code.INVALID_ARGUMENT, ("grpc-timeout: got 'soon', expected up to 8 digits and a unit",)),
    WireCase("a timeout without unit", calling(grpc_timeout="100"), Code.INVALID_ARGUMENT, ("grpc-timeout: got '100'",)),
    WireCase("a timeout of nine digits", calling(grpc_timeout="123456789m"), Code.INVALID_ARGUMENT, ("grpc-timeout: got '123456789m'",)),
    WireCase("an oversized message", sending(framed(b"")[:1] + (2**26 + 1).to_bytes(4, "big")), Code.RESOURCE_EXHAUSTED, ("message size: got 67108865 bytes, expected at most 67108864 (max_message_bytes)",)),
    WireCase("a message of 4 GiB", sending(b"\0\xff\xff\xff\xff"), Code.RESOURCE_EXHAUSTED, ("message size: got 4294967295 bytes",)),
    WireCase("a message oversized when unpacked", sending(gzip_bomb(), grpc_encoding="gzip"), Code.RESOURCE_EXHAUSTED, ("message size after decompression: got more than 67108864 bytes",)),
    WireCase("gzip that is none", sending(framed(b"hello", 1), grpc_encoding="gzip"), Code.INTERNAL, ("a message said to be gzip cannot be decompressed",)),
    WireCase("gzip cut short", sending(framed(gzip.compress(GOOD)[:-9], 1), grpc_encoding="gzip"), Code.INTERNAL, ("a message said to be gzip is cut short",)),
    WireCase("deflate without its header", sending(framed(zlib.compress(GOOD)[2:-4], 1), grpc_encoding="deflate"), Code.INTERNAL, ("said to be deflate",)),
    WireCase("compressed without saying how", sending(framed(GOOD, 1)), Code.INTERNAL, ("flag says compressed, but grpc-encoding is missing",)),
    WireCase("an unknown flag", sending(framed(GOOD, 2)), Code.INTERNAL, ("message flag: got 2, expected 0 or 1",)),
    WireCase("a frame cut in its prefix", sending(b"\0\0"), Code.INTERNAL, ("the request stream ended inside a message",)),
    WireCase("a frame cut in its message", sending(framed(GOOD)[:-1]), Code.INTERNAL, ("the request stream ended inside a message",)),
    WireCase("no message", sending(b""), Code.UNIMPLEMENTED, ("got no request message, expected one",)),
    WireCase("two messages", sending(framed(GOOD) * 2), Code.UNIMPLEMENTED, ("got a second request message, expected one",)),
    WireCase("headers too many", calling(**{f"x-{i}": "v" * 500 for i in range(40)}), Code.RESOURCE_EXHAUSTED, ("header list: got", "expected at most 16384 (max_header_list_bytes)")),
    WireCase("protobuf of the wrong kind", calling(b"\xff" * 9, path=f"/{SERVICE}/ModelMetadata"), Code.INVALID_ARGUMENT, ("got 9 bytes that are no inference.ModelMetadataRequest",)),
]  # fmt: skip


@pytest.mark.parametrize("case", WIRE_CASES, ids=lambda case: case.what.replace(" ", "-"))
def test_a_wrong_call_is_refused_with_code_and_reason(server: GatewayProcess, case: WireCase) -> None:
    with RawClient(server.port) as raw:
        answer = case.send(raw)
        assert (answer.status, answer.http_status) == (case.code, case.http_status), answer.message
        for words in case.words:
            assert words in answer.message
        assert not raw.goaways
        assert raw.call(GOOD).status == Code.OK  # the connection lives on


def test_a_message_with_line_breaks_and_letters_arrives_whole(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.send(changed(model_name="größe\n100 %"))
    assert "got 'größe\n100 %'" in caught.value.details()


def test_bad_priorities_are_named(client: Client) -> None:
    """Where a model has no levels they are ignored, as Triton does; see test_deadlines.py for one that has."""
    client.send(with_parameter("priority", 9))


def test_the_server_took_no_harm(server: GatewayProcess) -> None:
    """Runs after the table: nothing above is a fault of the gateway."""
    assert len(server.workers()) == 1
    assert not server.events("worker died")
    assert "Traceback" not in server.log
