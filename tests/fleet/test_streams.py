"""ModelStreamInfer through the gateway to real decoupled and stateful models."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from demo.triton import wheel
from gateway import pb
from tests.support import oip
from tests.support.conditions import eventually
from tests.support.gatewayprocess import GatewayProcess
from tests.support.triton import TritonServer, models, serve_remotely

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(wheel.why_not()), reason=wheel.why_not()),
]

WANTS_FINAL = {"triton_enable_empty_final_response": True}


class Fleet:
    def __init__(self, folder: Path) -> None:
        self.servers = [
            TritonServer(models(folder / name / "models", "double", "repeat", "total"), folder / name) for name in "ab"
        ]
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda server: server.start(), self.servers))
        for name in ("double", "repeat", "total"):
            serve_remotely(folder / "models", f"our_{name}", [server.url for server in self.servers], remote=name)
        self.gateway = GatewayProcess(folder / "models", folder / "gateway")

    def close(self) -> None:
        try:
            self.gateway.stop()
        finally:
            for server in self.servers:
                server.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("streams"))
    yield fleet
    fleet.close()


@pytest.fixture
def client(fleet: Fleet) -> Iterator[oip.Client]:
    with oip.connect(fleet.gateway.grpc_url) as channel:
        yield oip.Client(channel)


class Stream:
    """A stream whose requests are sent one by one."""

    def __init__(self, client: oip.Client, **wishes: Any) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        self.call = client.stream(iter(self._requests.get, None), **{"timeout": 30, **wishes})

    def send(self, *requests: Any) -> None:
        for request in requests:
            self._requests.put(request)

    def close(self) -> None:
        """The caller has nothing more to ask."""
        self._requests.put(None)

    def take(self, n: int) -> list[Any]:
        return [next(self.call) for _ in range(n)]


def repeat(count: int, *, pause_ms: int = 0, size: int = 1, id: str = "", **parameters: Any) -> Any:
    given = {"count": count, "pause_ms": pause_ms, "size": size}
    inputs = {name: np.array([value], np.int32) for name, value in given.items()}
    return oip.request("our_repeat", inputs, id=id, parameters=parameters)


def step(value: int, key: Any, **parameters: Any) -> Any:
    inputs = {"value": np.array([[value]], np.int32)}
    return oip.request("our_total", inputs, parameters={"sequence_id": key, **parameters})


def indexes(answers: list[Any]) -> list[int]:
    return [int(oip.arrays(answer.infer_response)["index"][0]) for answer in answers]


def test_one_request_has_as_many_answers_as_the_model_likes(client: oip.Client) -> None:
    stream = Stream(client, metadata=(("traceparent", "no traceparent"),))  # which no server could be sent
    stream.send(repeat(5, id="five"))
    stream.close()
    answers = list(stream.call)
    assert indexes(answers) == [0, 1, 2, 3, 4]
    assert {answer.infer_response.id for answer in answers} == {"five"}
    assert {answer.infer_response.model_name for answer in answers} == {"our_repeat"}
    assert not any(answer.error_message for answer in answers)


def test_the_empty_final_answer_comes_to_those_who_ask_for_it(client: oip.Client) -> None:
    stream = Stream(client)
    stream.send(repeat(1, id="a", **WANTS_FINAL), repeat(0, id="b", **WANTS_FINAL), repeat(0, id="c"))
    stream.close()
    answers = list(stream.call)
    final = [
        each.infer_response.id for each in answers if each.infer_response.parameters["triton_final_response"].bool_param
    ]
    assert sorted(final) == ["a", "b"]
    assert len(answers) == 3


def test_answers_come_as_they_are_made_and_not_at_the_end(client: oip.Client) -> None:
    stream = Stream(client)
    stream.send(repeat(1000, pause_ms=50))
    assert indexes(stream.take(2)) == [0, 1]  # 48 s before the last one
    stream.call.cancel()


def test_a_failure_is_in_band_and_the_stream_lives_on(client: oip.Client) -> None:
    wrong = repeat(1, id="wrong")
    wrong.inputs[0].name = "nonsense"
    stream = Stream(client)
    stream.send(repeat(-1, id="fails"))
    first = stream.take(3)
    assert [bool(each.error_message) for each in first] == [False, False, True]
    assert "asked to fail" in first[2].error_message
    stream.send(wrong)
    (answer,) = stream.take(1)
    assert answer.infer_response.id == "wrong"
    assert "unexpected inference input 'nonsense'" in answer.error_message
    stream.send(repeat(1, id="after"))
    stream.close()
    assert indexes(list(stream.call)) == [0]


def test_models_here_and_there_share_one_stream(client: oip.Client) -> None:
    rows = oip.request("our_double", {"input": np.ones((1, 16), np.float32)}, id="rows")
    stream = Stream(client)
    stream.send(rows, repeat(2, id="many"), rows)
    stream.close()
    ids = sorted(answer.infer_response.id for answer in stream.call)
    assert ids == ["many", "many", "rows", "rows"]


def test_many_requests_with_one_id_all_get_all_their_answers(client: oip.Client) -> None:
    stream = Stream(client)
    stream.send(*[repeat(3, id="same") for _ in range(40)])
    stream.close()
    assert sorted(indexes(list(stream.call))) == sorted([0, 1, 2] * 40)


def test_a_caller_who_does_not_read_stops_the_model_and_loses_nothing(fleet: Fleet, client: oip.Client) -> None:
    """The answers are 600 times 256 KiB: more than all windows and queues on the way hold."""
    before = fleet.gateway.rss_bytes()
    stream = Stream(client, timeout=60)
    stream.send(repeat(600, size=65_536))
    stream.close()
    assert next(stream.call).infer_response.outputs
    sizes = deque([0], maxlen=40)

    def is_settled() -> bool:
        sizes.append(fleet.gateway.rss_bytes())
        return len(sizes) == sizes.maxlen and max(sizes) == min(sizes)

    eventually(is_settled, "the gateway takes in no more")
    assert sizes[-1] - before < 80 << 20
    assert indexes(list(stream.call)) == list(range(1, 600))


def test_a_caller_who_leaves_cancels_the_request_on_its_server(fleet: Fleet, client: oip.Client) -> None:
    stream = Stream(client)
    stream.send(repeat(100_000, pause_ms=5))
    stream.take(3)
    before = sum(server.log.count("cancelled after") for server in fleet.servers)
    stream.call.cancel()
    eventually(
        lambda: sum(server.log.count("cancelled after") for server in fleet.servers) > before, "the model hears of it"
    )


def test_a_deadline_ends_a_stream(client: oip.Client) -> None:
    stream = Stream(client, timeout=0.5)
    stream.send(repeat(100_000, pause_ms=5))
    with pytest.raises(grpc.RpcError) as caught:
        list(stream.call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_decoupled_model_refuses_a_unary_request_and_says_what_to_do(client: oip.Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.send(repeat(1))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "ModelStreamInfer" in caught.value.details()


def test_sequences_keep_their_state_however_many_there_are(client: oip.Client) -> None:
    """20 at once, one by one and then in a stream: a step that went to another server would be refused there."""
    totals = {}
    for value in range(4):
        for key in range(1, 21):
            answer = client.send(step(key + value, key, sequence_start=value == 0, sequence_end=value == 3))
            totals[key] = int(oip.arrays(answer)["total"][0, 0])
    assert totals == {key: 4 * key + 6 for key in range(1, 21)}
    stream = Stream(client)
    for value in range(3):
        stream.send(*[step(value, 1000 + key, sequence_start=value == 0, sequence_end=value == 2) for key in range(10)])
    stream.close()
    answers = list(stream.call)
    assert not any(answer.error_message for answer in answers)
    assert (
        sorted(int(oip.arrays(answer.infer_response)["total"][0, 0]) for answer in answers)
        == [0] * 10 + [1] * 10 + [3] * 10
    )


def test_a_stream_is_finished_before_the_gateway_stops(fleet: Fleet, tmp_path: Path) -> None:
    gateway = GatewayProcess(fleet.gateway.models, tmp_path / "stops")
    try:
        with oip.connect(gateway.grpc_url) as channel:
            stream = Stream(oip.Client(channel))
            stream.send(repeat(40, pause_ms=20, id="forty"))
            stream.take(1)
            gateway.terminate()
            found: list[Any] = []
            with pytest.raises(grpc.RpcError) as caught:
                found.extend(stream.call)
            assert indexes(found) == list(range(1, 40))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "shutting down" in caught.value.details()
        assert gateway.wait() == 0
    finally:
        gateway.stop()


def test_requests_and_how_they_ended_are_counted(fleet: Fleet, client: oip.Client) -> None:
    def counted() -> dict[str, int]:
        statistics = client.unary("ModelStatistics")(pb.inference.ModelStatisticsRequest(name="our_repeat"), timeout=20)
        (found,) = statistics.model_stats
        return {"ok": found.inference_stats.success.count, "failed": found.inference_stats.fail.count}

    before = counted()
    stream = Stream(client)
    stream.send(repeat(3), repeat(-1), repeat(0))
    stream.close()
    list(stream.call)
    after = counted()
    assert {kind: after[kind] - before[kind] for kind in after} == {"ok": 2, "failed": 1}


def test_when_a_server_dies_its_sequences_and_streams_are_told_and_go_on_elsewhere(
    fleet: Fleet, client: oip.Client
) -> None:
    keys = range(101, 121)
    for key in keys:
        client.send(step(1, key, sequence_start=True))
    stream = Stream(client, timeout=60)
    stream.send(repeat(100_000, pause_ms=5, id="begun"))
    stream.take(2)
    dies = fleet.servers[0]
    dies.kill()

    def go_on() -> dict[int, str]:
        told = {}
        for key in keys:
            try:
                client.send(step(1, key))
            except grpc.RpcError as error:
                told[key] = f"{error.code().name}: {error.details()}"
        return told

    told = go_on()
    assert 0 < len(told) < len(keys), "some were there, some on the other"
    eventually(lambda: "down" in str(fleet.gateway.events("Triton server is not asked as before")), "it is taken out")
    for key in told:
        with pytest.raises(grpc.RpcError):  # it was told, and the new server does not know the sequence
            client.send(step(1, key))
        answer = client.send(step(7, key, sequence_start=True, sequence_end=True))
        assert int(oip.arrays(answer)["total"][0, 0]) == 7
    stream.send(repeat(1, id="new"))
    kinds = set()
    for answer in stream.call:
        kinds.add((answer.infer_response.id, bool(answer.error_message)))
        if answer.infer_response.id == "new":
            break
    stream.call.cancel()
    assert ("new", False) in kinds
    dies.start()
