"""ModelStreamInfer: answers in the order of the requests, failures in-band, and a stream that lives on."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from gateway import pb
from tests.conftest import Serve
from tests.support.gatewayprocess import GatewayProcess
from tests.support.h2client import RawClient, framed
from tests.support.oip import STREAM_INFER, Array, Client, arrays, connect, request
from tests.support.onnxmodels import store
from tests.support.servedmodels import patient, row

pytestmark = pytest.mark.conformance


def triton_inputs(x: Array) -> list[triton.InferInput]:
    tensor = triton.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    return [tensor]


def ones(value: float = 1) -> Array:
    return np.full((1, 4), value, np.float32)


class Conversation:
    """A stream whose requests are sent one by one, as the test likes."""

    def __init__(self, client: Client, **wishes: Any) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.call = client.stream(iter(self._requests.get, None), timeout=30, **wishes)

    def say(self, message: Any) -> None:
        self._requests.put(message)

    def hear(self) -> Any:
        return next(self.call)

    def end(self) -> None:
        self._requests.put(None)


def test_tritons_stream_answers_in_order(server: GatewayProcess) -> None:
    heard: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(callback=lambda result, error: heard.put((result, error)))
        for i in range(100):
            client.async_stream_infer("identity_fp32", triton_inputs(ones(i)), request_id=str(i))
        client.stop_stream()  # waits until all is answered
    answers = [heard.get_nowait() for _ in range(100)]
    assert [error for _, error in answers if error] == []
    assert [result.get_response().id for result, _ in answers] == [str(i) for i in range(100)]
    assert [result.as_numpy("y")[0, 0] for result, _ in answers] == list(range(100))
    assert heard.empty()


def test_tritons_stream_hears_errors_in_band_and_goes_on(server: GatewayProcess) -> None:
    heard: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(callback=lambda result, error: heard.put((result, error)))
        for model in ("identity_fp32", "nobody", "identity_int32", "identity_fp32"):
            client.async_stream_infer(model, triton_inputs(ones()))
        client.stop_stream()
    (first, _), (_, no_model), (_, bad_datatype), (last, _) = [heard.get_nowait() for _ in range(4)]
    assert first.as_numpy("y").tolist() == last.as_numpy("y").tolist() == ones().tolist()
    assert "unknown model: 'nobody'" in no_model.message()
    assert "got datatype FP32, expected INT32" in bad_datatype.message()


async def test_tritons_asyncio_stream_answers_in_order(server: GatewayProcess) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for i in range(50):
            model = "nobody" if i == 25 else "identity_fp32"
            yield {"model_name": model, "inputs": triton_inputs(ones(i)), "request_id": str(i)}
            await asyncio.sleep(0)

    ids, failed = [], []
    async with triton_aio.InferenceServerClient(server.grpc_url) as client:
        async for result, error in client.stream_infer(requests()):
            if error is None:
                ids.append(int(result.get_response().id))
                assert result.as_numpy("y")[0, 0] == ids[-1]
            else:
                failed.append((len(ids), error.message()))
    assert ids == [i for i in range(50) if i != 25]
    assert [at for at, _ in failed] == [25]


def test_each_answer_comes_while_the_stream_is_still_open(client: Client) -> None:
    talk = Conversation(client)
    for i in range(3):
        talk.say(request("identity_fp32", {"x": ones(i)}))
        assert arrays(talk.hear().infer_response)["y"][0, 0] == i
    talk.end()
    assert list(talk.call) == []
    assert talk.call.code() is grpc.StatusCode.OK


def test_a_malformed_message_is_answered_in_band(client: Client) -> None:
    call = client.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        response_deserializer=pb.inference.ModelStreamInferResponse.FromString,
    )
    good = request("identity_fp32", {"x": ones()}).SerializeToString()
    bad, fine = call(iter([b"\xff\xff\xff", good]), timeout=10)
    assert "malformed protobuf near byte" in bad.error_message
    assert arrays(fine.infer_response)["y"].tolist() == ones().tolist()


def test_a_stream_without_requests_ends_well(client: Client) -> None:
    call = client.stream(iter([]), timeout=10)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_more_requests_than_the_stream_may_hold_are_all_answered(client: Client) -> None:
    """Above max_stream_pending the window is withheld; the client is slowed down, and loses nothing."""
    x = np.zeros((1, 50_000), np.float32)
    messages = (request("identity_wide", {"x": x + i}) for i in range(300))
    answers = [arrays(answer.infer_response)["y"][0, 0] for answer in client.stream(messages, timeout=50)]
    assert answers == list(range(300))


def test_a_slow_reader_gets_everything(client: Client) -> None:
    x = np.zeros((1, 500_000), np.float32)
    go = threading.Event()
    seen: list[float] = []

    def read() -> None:
        for answer in client.stream((request("identity_wide", {"x": x + i}) for i in range(40)), timeout=50):
            go.wait(1 if len(seen) < 3 else 0)  # the first ones are left lying
            seen.append(float(arrays(answer.infer_response)["y"][0, 0]))

    reader = threading.Thread(target=read)
    reader.start()
    assert arrays(client.send(request("linear", {"x": ones()})))["y"].shape == (1, 3)  # nobody else waits for it
    reader.join(50)
    assert seen == list(range(40))


# --- with a server whose model is slow on command


@pytest.fixture(scope="module")
def slow(serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Client]:
    root = tmp_path_factory.mktemp("streams")
    store(
        root,
        "patient",
        1,
        patient(),
        "batching: {max_batch_size: 1, instances: 1, priority_levels: 2, default_priority: 2}",
    )
    store(root, "other", 1, patient(), "batching: {max_batch_size: 1, instances: 1}")
    url = serve_for_module(root).grpc_url
    return lambda: Client(connect(url))


def test_a_quick_answer_waits_for_the_slow_one_before_it(slow: Callable[[], Client]) -> None:
    talk = Conversation(slow())
    talk.say(request("patient", row(1, 100_000), id="slow"))
    talk.say(request("other", row(2), id="quick"))  # another model, so it is done long before
    assert [talk.hear().infer_response.id for _ in range(2)] == ["slow", "quick"]
    talk.end()


def test_a_deadline_inside_a_stream_is_refused_in_band(slow: Callable[[], Client]) -> None:
    talk = Conversation(slow())
    talk.say(request("patient", row(1, 100_000)))
    talk.say(request("patient", row(2, 1_000_000), parameters={"timeout": 20_000}))
    talk.say(request("patient", row(3)))
    talk.end()
    first, late, last = talk.call
    assert arrays(first.infer_response)["y"].tolist() == [1]
    assert "deadline" in late.error_message
    assert arrays(last.infer_response)["y"].tolist() == [3]


def test_a_cancelled_stream_takes_its_queued_requests_along(slow: Callable[[], Client]) -> None:
    """If any of the cancelled ones ran, each would hold the executor for longer than that."""
    client, bystander = slow(), slow()
    talk = Conversation(client)
    talk.say(request("patient", row(0)))
    talk.hear()
    talk.say(request("patient", row(1, 500_000)))  # 1 s, in which the cancel must come
    for _ in range(10):
        talk.say(request("patient", row(2, 20_000_000)))
    held = Conversation(bystander)  # of the same executor: it is behind the first of the stream by now
    held.say(request("other", row(5)))
    held.hear()
    talk.call.cancel()
    with pytest.raises(grpc.RpcError):
        list(talk.call)
    assert bystander.infer("patient", row(7), timeout=10)["y"].tolist() == [7]
    held.end()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_refused_requests_that_come_with_the_end_of_the_stream_are_each_answered(
    server: GatewayProcess, n: int
) -> None:
    """All in one segment with END_STREAM: a refusal is answered while the others have not been looked at."""
    message = framed(request("nobody", {"x": ones()}).SerializeToString())
    with RawClient(server.port) as raw:
        stream = raw.open(STREAM_INFER)
        raw.connection.send_data(stream, message * n, end_stream=True)
        raw.flush()
        answer = raw.finish(stream)
    assert answer.status == 0
    assert answer.data.count(b"unknown model: 'nobody'") == n
