"""gRPC message compression: gzip and deflate in, and the same out where the caller shows that it can."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from gateway import pb
from tests.support import reference
from tests.support.gatewayprocess import GatewayProcess
from tests.support.h2client import RawClient, framed
from tests.support.oip import Client, arrays, connect, request
from tests.support.reference import assert_same

pytestmark = pytest.mark.conformance

METHODS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
PACK = {"gzip": gzip.compress, "deflate": zlib.compress}
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}

ZEROS = np.zeros((1, 5000), np.float32)
NOISE = np.frombuffer(np.random.default_rng(0).bytes(4 * 5000), np.uint32).astype(np.float32).reshape(1, -1)


@pytest.mark.parametrize("values", [ZEROS, NOISE, np.ones((1, 1), np.float32)], ids=["zeros", "noise", "small"])
@pytest.mark.parametrize("encoding", METHODS)
def test_grpcio_gets_the_right_answer(client: Client, encoding: str, values: Any) -> None:
    message = request("identity_wide", {"x": values})
    assert_same(arrays(client.send(message, compression=METHODS[encoding])), {"y": values})


@pytest.mark.parametrize("encoding", METHODS)
def test_a_channel_that_compresses_everything_works_for_unary_and_stream(
    server: GatewayProcess, served_models: Path, encoding: str
) -> None:
    options = [("grpc.default_compression_algorithm", METHODS[encoding].value), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.grpc_url, options=options) as channel:
        client = Client(channel)
        messages = [request("identity_wide", {"x": ZEROS + i}) for i in range(20)]
        answers = [arrays(answer.infer_response) for answer in client.stream(iter(messages), timeout=20)]
        assert [answer["y"][0, 0] for answer in answers] == list(range(20))
        x = np.ones((3, 4), np.float32)
        assert_same(client.infer("linear", {"x": x}), reference.answer(served_models, "linear", {"x": x}))
        assert client.index()["linear", "1"][0] == "READY"


@pytest.mark.parametrize("encoding", METHODS)
def test_tritons_client_compresses(server: GatewayProcess, encoding: str) -> None:
    tensor = triton.InferInput("x", list(ZEROS.shape), "FP32")
    tensor.set_data_from_numpy(ZEROS)
    with triton.InferenceServerClient(server.grpc_url) as client:
        result = client.infer("identity_wide", [tensor], compression_algorithm=encoding)
        assert_same({"y": result.as_numpy("y")}, {"y": ZEROS})


@pytest.mark.parametrize("encoding", METHODS)
def test_the_answer_to_a_compressed_request_is_compressed_when_that_is_worth_it(
    server: GatewayProcess, encoding: str
) -> None:
    with RawClient(server.port) as raw:
        for values, is_worth_it in ((ZEROS, True), (np.ones((1, 1), np.float32), False)):
            message = request("identity_wide", {"x": values}).SerializeToString()
            stream = raw.open(headers={"grpc-encoding": encoding})
            raw.send(stream, framed(PACK[encoding](message), 1), end=True)
            answer = raw.finish(stream)
            assert (answer.status, answer.headers["grpc-encoding"]) == (0, encoding)
            assert answer.data[0] == is_worth_it
            body = UNPACK[encoding](answer.data[5:]) if is_worth_it else answer.data[5:]
            assert_same(arrays(pb.inference.ModelInferResponse.FromString(body)), {"y": values})
            if is_worth_it:
                assert len(answer.data) < values.nbytes / 10


def test_a_message_may_be_plain_though_the_call_names_an_encoding(server: GatewayProcess) -> None:
    with RawClient(server.port) as raw:
        answer = raw.call(request("identity_wide", {"x": ZEROS}).SerializeToString(), headers={"grpc-encoding": "gzip"})
    assert answer.status == 0


def test_a_caller_that_does_not_compress_gets_plain_answers(server: GatewayProcess) -> None:
    with RawClient(server.port) as raw:
        answer = raw.call(
            request("identity_wide", {"x": ZEROS}).SerializeToString(),
            headers={"grpc-accept-encoding": "identity,gzip"},
        )
    assert answer.status == 0
    assert "grpc-encoding" not in answer.headers
    assert answer.data[0] == 0


def test_a_refusal_of_an_encoding_lists_those_that_are_understood(server: GatewayProcess) -> None:
    with RawClient(server.port) as raw:
        answer = raw.call(b"", headers={"grpc-encoding": "br"})
    assert answer.headers["grpc-accept-encoding"] == "identity,deflate,gzip"


def test_ten_compressed_megabytes_go_both_ways(server: GatewayProcess) -> None:
    x = (np.arange(2_621_440) % 100).astype(np.float32).reshape(1, -1)
    with connect(server.grpc_url) as channel:
        answer = Client(channel).send(request("identity_wide", {"x": x}), compression=grpc.Compression.Gzip)
    assert_same(arrays(answer), {"y": x})
