"""Triton's own HTTP clients, synchronous and asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.support.gatewayprocess import GatewayProcess
from tests.support.oip import Client

pytestmark = [
    pytest.mark.conformance,
    # gevent and geventhttpclient leave sockets and greenlets to the collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def sync(server: GatewayProcess) -> Iterator[Any]:
    client = triton.InferenceServerClient(server.rest_url, concurrency=4)
    yield client
    client.close()


@pytest.fixture
async def aio(server: GatewayProcess) -> AsyncIterator[Any]:
    async with triton_aio.InferenceServerClient(server.rest_url) as client:
        yield client


def inputs(values: np.ndarray[Any, Any], datatype: str, binary: bool) -> list[Any]:
    tensor = triton.InferInput("x", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return [tensor]


X = np.array([[0.1, -2, 3e30, 4]], np.float32)
TEXTS = np.array([["ä", "b"]], object)


def test_server_and_model_answer_what_they_are(sync: Any) -> None:
    assert sync.is_server_live()
    assert sync.is_server_ready()
    assert sync.is_model_ready("linear")
    assert sync.is_model_ready("versions", "3")
    assert not sync.is_model_ready("missing")
    assert not sync.is_model_ready("versions", "2")
    assert "binary_tensor_data" in sync.get_server_metadata()["extensions"]
    assert sync.get_model_metadata("linear")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    index = sync.get_model_repository_index()
    assert {"name": "linear", "version": "1", "state": "READY", "reason": ""} in index


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_sync_infers_as_grpc_does(sync: Any, client: Client, binary_in: bool, binary_out: bool) -> None:
    wanted = client.infer("linear", {"x": X})["y"]
    outputs = [triton.InferRequestedOutput("y", binary_data=binary_out)]
    for coding in (None, "gzip", "deflate"):
        result = sync.infer(
            "linear",
            inputs(X, "FP32", binary_in),
            outputs=outputs,
            request_id="7",
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
        assert result.as_numpy("y").tobytes() == wanted.tobytes()
        assert result.get_response()["id"] == "7"


def test_special_numbers_survive_in_json(sync: Any) -> None:
    special = np.array([[np.nan, np.inf, -np.inf, 1]], np.float32)
    outputs = [triton.InferRequestedOutput("y", binary_data=False)]
    result = sync.infer("identity_fp32", inputs(special, "FP32", True), outputs=outputs)
    np.testing.assert_array_equal(result.as_numpy("y"), special)


@pytest.mark.parametrize("binary", [False, True])
def test_strings_go_both_ways(sync: Any, binary: bool) -> None:
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    result = sync.infer("identity_bytes", inputs(TEXTS, "BYTES", binary), outputs=outputs)
    got = [text.decode() if isinstance(text, bytes) else text for text in result.as_numpy("y").ravel()]
    assert got == ["ä", "b"]


def test_classes_are_asked_for(sync: Any) -> None:
    outputs = [triton.InferRequestedOutput("y", class_count=2)]
    result = sync.infer("identity_fp32", inputs(X, "FP32", True), outputs=outputs)
    assert [text.split(b":")[1] for text in result.as_numpy("y").ravel()] == [b"2", b"3"]


def test_many_requests_at_once(sync: Any, client: Client) -> None:
    wanted = client.infer("linear", {"x": X})["y"].tobytes()
    requests = [sync.async_infer("linear", inputs(X, "FP32", True)) for _ in range(50)]
    assert all(request.get_result().as_numpy("y").tobytes() == wanted for request in requests)


def test_errors_reach_the_caller_as_triton_errors(sync: Any) -> None:
    with pytest.raises(InferenceServerException, match="expected FP32"):
        sync.infer("linear", inputs(np.ones((1, 4), np.int32), "INT32", True))
    with pytest.raises(InferenceServerException, match="missing") as caught:
        sync.infer("missing", inputs(X, "FP32", True))
    assert caught.value.status() == "404"


async def test_aio_does_the_same(aio: Any, client: Client) -> None:
    assert await aio.is_server_ready()
    assert (await aio.get_model_metadata("linear"))["name"] == "linear"
    wanted = client.infer("linear", {"x": X})["y"].tobytes()
    for binary in (False, True):
        for coding in (None, "gzip", "deflate"):
            outputs = [triton_aio.InferRequestedOutput("y", binary_data=binary)]
            result = await aio.infer(
                "linear",
                inputs(X, "FP32", binary),
                outputs=outputs,
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            assert result.as_numpy("y").tobytes() == wanted
    with pytest.raises(InferenceServerException, match="missing"):
        await aio.infer("missing", inputs(X, "FP32", True))


async def test_aio_reads_a_large_compressed_answer(aio: Any) -> None:
    values = np.arange(40_000, dtype=np.float32).reshape(10_000, 4)
    outputs = [triton_aio.InferRequestedOutput("y", binary_data=False)]
    result = await aio.infer("identity_fp32", inputs(values, "FP32", True), outputs=outputs)
    assert result.as_numpy("y").tobytes() == values.tobytes()
