"""An unmodified Triton client, synchronous and asyncio: what it asks of a server, and the answers it then has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.support import reference
from tests.support.gatewayprocess import GatewayProcess
from tests.support.oip import DTYPES, Array
from tests.support.reference import assert_close, assert_same

pytestmark = pytest.mark.conformance


@pytest.fixture
def sync(server: GatewayProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_url) as client:
        yield client


@pytest.fixture
async def aio(server: GatewayProcess) -> AsyncIterator[triton_aio.InferenceServerClient]:
    async with triton_aio.InferenceServerClient(server.grpc_url) as client:
        yield client


def inputs_of(values: dict[str, Array]) -> list[triton.InferInput]:
    tensors = []
    for name, array in values.items():
        datatype = triton_datatype(array)
        tensor = triton.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array.astype(object) if array.dtype.kind == "U" else array)
        tensors.append(tensor)
    return tensors


def triton_datatype(array: Array) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return str(np_to_triton_dtype(np.dtype(object) if array.dtype.kind == "U" else array.dtype))


def outputs_of(result: Any, names: list[str]) -> dict[str, Array]:
    return {name: result.as_numpy(name) for name in names}


def golden(models: Path, model: str, version: int) -> dict[str, Array]:
    with np.load(models / model / str(version) / "golden.npz") as saved:
        return {name.removeprefix("input:"): saved[name] for name in saved.files if name.startswith("input:")}


def test_it_finds_the_server_and_its_models(sync: triton.InferenceServerClient) -> None:
    assert sync.is_server_live()
    assert sync.is_server_ready()
    assert sync.is_model_ready("wine", "2")
    assert not sync.is_model_ready("wine", "9")
    assert sync.get_server_metadata().name == "gateway"
    assert {model.state for model in sync.get_model_repository_index().models} == {"READY"}
    metadata = sync.get_model_metadata("wine")
    assert {tensor.name: tensor.datatype for tensor in metadata.inputs}["body"] == "BYTES"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("model", ["breast_cancer", "digits", "wine"])
def test_demo_models_answer_as_onnx_runtime_does(
    sync: triton.InferenceServerClient, served_models: Path, model: str, version: int
) -> None:
    inputs = golden(served_models, model, version)
    result = sync.infer(model, inputs_of(inputs), str(version), request_id="7")
    assert_same(outputs_of(result, ["label", "probabilities"]), reference.answer(served_models, model, inputs, version))
    assert result.get_response().id == "7"


@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES"])
def test_each_datatype_makes_the_round_trip(sync: triton.InferenceServerClient, datatype: str) -> None:
    if datatype == "BYTES":
        x: Array = np.array([["ü", ""], ["a\0b", "語"]], object)
    else:
        x = np.arange(8).reshape(2, 4).astype(DTYPES[datatype])
    result = sync.infer(f"identity_{datatype.lower()}", inputs_of({"x": x}))
    assert_same(outputs_of(result, ["y"]), {"y": x})


def test_bf16_goes_in_and_comes_out(sync: triton.InferenceServerClient) -> None:
    import ml_dtypes  # onnx brings it

    x = np.array([[1.5, -2.0], [0.0, 100.0]], ml_dtypes.bfloat16)
    tensor = triton.InferInput("x", [2, 2], "BF16")
    tensor.set_data_from_numpy(x)
    assert sync.infer("bf16_double", [tensor]).as_numpy("y").tolist() == (2 * x).tolist()


def test_requested_outputs_come_alone(sync: triton.InferenceServerClient) -> None:
    x = np.ones((1, 16), np.int32)
    wanted = [triton.InferRequestedOutput("difference")]
    result = sync.infer("sum_and_difference", inputs_of({"b": x, "a": x + 1}), outputs=wanted)
    assert result.as_numpy("difference").tolist() == x.tolist()
    assert result.as_numpy("sum") is None


def test_an_error_has_status_and_text(sync: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        sync.infer("digits", inputs_of({"input": np.zeros((1, 65), np.float32)}))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "got shape [1,65], expected [-1,64]" in caught.value.message()


def test_priority_timeout_and_headers_are_understood(sync: triton.InferenceServerClient) -> None:
    x = np.ones((1, 4), np.float32)
    result = sync.infer(
        "identity_fp32",
        inputs_of({"x": x}),
        priority=1,
        timeout=5_000_000,
        client_timeout=10,
        headers={"x-who": "me"},
        parameters={"customer": "a", "n": 3, "is_test": True},
    )
    assert_same(outputs_of(result, ["y"]), {"y": x})


def test_callbacks_get_each_its_answer(sync: triton.InferenceServerClient) -> None:
    import queue

    answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    inputs = [np.full((1, 4), i, np.float32) for i in range(50)]
    for i, x in enumerate(inputs):
        sync.async_infer(
            "identity_fp32", inputs_of({"x": x}), callback=lambda result, error, i=i: answers.put((i, result, error))
        )
    for _ in inputs:
        i, result, error = answers.get(timeout=10)
        assert error is None
        assert_same(outputs_of(result, ["y"]), {"y": inputs[i]})


async def test_asyncio_answers_are_right_when_many_ask_at_once(
    aio: triton_aio.InferenceServerClient, served_models: Path
) -> None:
    rows = golden(served_models, "digits", 2)["input"]
    assert await aio.is_server_ready()
    wanted = [{"input": rows[i % 16 : i % 16 + 1 + i % 3]} for i in range(60)]
    results = await asyncio.gather(*(aio.infer("digits", inputs_of(x), "2") for x in wanted))
    for x, result in zip(wanted, results, strict=True):
        got = outputs_of(result, ["label", "probabilities"])
        assert_close(got, reference.answer(served_models, "digits", x, 2))


async def test_asyncio_errors_have_status_and_text(aio: triton_aio.InferenceServerClient) -> None:
    with pytest.raises(
        InferenceServerException, match="Request for unknown model: 'nobody' is not found, expected one of"
    ) as caught:
        await aio.infer("nobody", inputs_of({"x": np.ones((1, 4), np.float32)}))
    assert caught.value.status() == "StatusCode.NOT_FOUND"


async def test_a_cancelled_asyncio_call_leaves_the_client_usable(aio: triton_aio.InferenceServerClient) -> None:
    x = np.ones((1, 4), np.float32)
    task = asyncio.ensure_future(aio.infer("identity_fp32", inputs_of({"x": x})))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    result = await aio.infer("identity_fp32", inputs_of({"x": x}))
    assert_same(outputs_of(result, ["y"]), {"y": x})
