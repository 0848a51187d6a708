"""One of several batch-mates goes wrong; the others are right, and on time.

Each test first holds the only executor with a slow request, so that what follows waits together; the answers then tell
by `run` who ran together. "On time" is long before the deadline that a lost batch-mate would wait for. Where the
executor was free before a test had looked, it has shown nothing and begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

from tests.conftest import Serve
from tests.support.conditions import OverTooEarly, eventually, set_up_anew, still_held
from tests.support.gatewayprocess import GatewayProcess
from tests.support.h2client import RawClient, framed
from tests.support.oip import Client, arrays, connect, request
from tests.support.onnxmodels import store
from tests.support.servedmodels import TABLE_SIZE, patient, row, runs

TURNS = 300_000  # some 0.5 s
SLACK_S = 10.0  # of a machine that is busy with other things; a lost batch-mate would wait for its deadline of 20 s


@dataclass
class Own:
    """A server with one executor per model, and how long a run of TURNS takes there."""

    server: GatewayProcess
    run_s: float

    def client(self) -> Client:
        return Client(connect(self.server.grpc_url))


@pytest.fixture(scope="module")
def own(serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> Own:
    root = tmp_path_factory.mktemp("isolation")
    store(root, "patient", 1, patient(), "batching: {max_batch_size: 16, instances: 1, linger: false}")
    server = serve_for_module(root)
    client = Client(connect(server.grpc_url))
    client.infer("patient", row(0))
    began_s = time.monotonic()
    client.infer("patient", row(0, TURNS))
    return Own(server, time.monotonic() - began_s)


# --- how a batch-mate may leave: each starts its request and gives a function that makes it leave

Leave = Callable[[], None]


def cancelling(own: Own, turns: int) -> Leave:
    client = own.client()
    client.settle()
    call = client.start(request("patient", row(7, turns)))
    client.settle()

    def leave() -> None:
        call.cancel()
        client.settle()

    return leave


def its_time_passes(call: Any) -> None:
    error = call.exception(20)
    if error is None:
        raise OverTooEarly("it was answered in time")
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def timing_out(own: Own, turns: int) -> Leave:
    """The client's own deadline: grpcio resets the stream, and the server has a timer, too."""
    client = own.client()
    client.settle()
    call = client.start(request("patient", row(7, turns)), timeout=own.run_s / 2)
    client.settle()

    return lambda: its_time_passes(call)


def timing_out_by_parameter(own: Own, turns: int) -> Leave:
    client = own.client()
    client.settle()
    wish = {"timeout": int(own.run_s / 2 * 1e6)}
    call = client.start(request("patient", row(7, turns), parameters=wish))
    client.settle()

    return lambda: its_time_passes(call)


def disconnecting(own: Own, turns: int) -> Leave:
    raw = RawClient(own.server.port)
    stream = raw.open()
    raw.send(stream, framed(request("patient", row(7, turns)).SerializeToString()), end=True)
    raw.settle()
    return raw.sock.close


WAYS = [cancelling, timing_out, timing_out_by_parameter, disconnecting]


@pytest.mark.parametrize("way", WAYS)
@set_up_anew
def test_a_mate_that_leaves_the_queue_harms_nobody(own: Own, way: Callable[[Own, int], Leave]) -> None:
    client = own.client()
    held = client.hold("patient", row(0, TURNS))
    before, leave, after = (
        client.start(request("patient", row(1))),
        way(own, 0),
        client.start(request("patient", row(2))),
    )
    client.settle()
    leave()
    still_held(held)
    began_s = time.monotonic()
    first, second = arrays(before.result()), arrays(after.result())
    assert time.monotonic() - began_s < own.run_s + SLACK_S
    assert (first["y"].tolist(), second["y"].tolist()) == ([1], [2])
    assert runs(first) == runs(second)
    assert arrays(held.result())["y"].tolist() == [0]


@pytest.mark.parametrize("way", WAYS)
@set_up_anew
def test_a_mate_that_leaves_while_the_batch_runs_harms_nobody(own: Own, way: Callable[[Own, int], Leave]) -> None:
    client = own.client()
    held = client.hold("patient", row(0, 50_000))
    before, leave, after = (
        client.start(request("patient", row(1, TURNS))),
        way(own, 0),
        client.start(request("patient", row(2))),
    )
    client.settle()
    still_held(held)
    held.result()
    client.settle()
    leave()
    began_s = time.monotonic()
    first, second = arrays(before.result()), arrays(after.result())
    assert time.monotonic() - began_s < own.run_s + SLACK_S
    assert (first["y"].tolist(), second["y"].tolist()) == ([1], [2])
    assert client.infer("patient", row(3), timeout=own.run_s + SLACK_S)["y"].tolist() == [3]


@pytest.mark.parametrize("position", range(4))
@set_up_anew
def test_a_row_that_makes_the_model_fail_fails_alone(own: Own, position: int) -> None:
    """Four run together and fail; halves are tried, so that two neighbours run together again and the others alone."""
    client = own.client()
    held = client.hold("patient", row(0, TURNS))
    indexes = [TABLE_SIZE + 5 if at == position else at + 1 for at in range(4)]
    began_s = time.monotonic()
    futures = [client.start(request("patient", row(index))) for index in indexes]
    client.settle()
    still_held(held)
    guilty = futures.pop(position).exception(20)
    assert guilty.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert 'model "patient" version 1 refused the input' in guilty.details()
    assert str(TABLE_SIZE + 5) in guilty.details()
    answers = [arrays(future.result()) for future in futures]
    assert time.monotonic() - began_s < 20 * own.run_s + SLACK_S
    assert [answer["y"].tolist() for answer in answers] == [[at + 1] for at in range(4) if at != position]
    found = {at: runs(answer)[0] for at, answer in zip([at for at in range(4) if at != position], answers, strict=True)}
    pair = (2, 3) if position < 2 else (0, 1)
    alone = {0: 1, 1: 0, 2: 3, 3: 2}[position]
    assert found[pair[0]] == found[pair[1]] != found[alone]


@set_up_anew
def test_a_request_of_many_rows_fails_as_a_whole_and_alone(own: Own) -> None:
    client = own.client()
    held = client.hold("patient", row(0, TURNS))
    good = client.start(request("patient", row([1, 2, 3])))
    bad = client.start(request("patient", row([4, TABLE_SIZE, 6])))
    split = client.start(request("patient", row([*range(10, 45), TABLE_SIZE, *range(45, 50)])))  # over several batches
    last = client.start(request("patient", row(5)))
    client.settle()
    still_held(held)
    assert arrays(good.result())["y"].tolist() == [1, 2, 3]
    assert arrays(last.result())["y"].tolist() == [5]
    assert bad.exception(20).code() is split.exception(20).code() is grpc.StatusCode.INVALID_ARGUMENT
    held.result()


def test_a_failure_of_the_model_tells_the_caller_nothing_of_its_inside(client: Client, server: GatewayProcess) -> None:
    x = np.array([["not a number"]], object)
    with pytest.raises(grpc.RpcError) as caught:
        client.infer("parse_number", {"x": x})
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == 'model "parse_number" version 1 failed on this request'

    def causes() -> list[Any]:
        return [event for event in server.events("request failed") if event["model"] == "parse_number"]

    assert "running Cast node" in eventually(causes, "the cause is in the log")[0]["error"]
    assert client.infer("parse_number", {"x": np.array([["4.5"]], object)})["y"].tolist() == [[4.5]]


def test_a_stream_that_is_reset_leaves_the_unary_call_of_its_connection_alone(own: Own) -> None:
    client = own.client()
    held = client.hold("patient", row(0, TURNS))

    def talk() -> Iterator[Any]:
        yield request("patient", row(1))
        while True:  # never ends it by itself
            time.sleep(0.01)
            if not stream.is_active():
                return

    stream = client.stream(talk())
    unary = client.start(request("patient", row(2)))
    client.settle()
    stream.cancel()
    assert arrays(unary.result())["y"].tolist() == [2]
    assert arrays(held.result())["y"].tolist() == [0]


def test_a_hundred_callers_of_which_every_third_gives_up(own: Own) -> None:
    client, fickle = own.client(), own.client()
    fickle.settle()
    held = client.hold("patient", row(0, TURNS))
    futures = [(fickle if i % 3 == 0 else client).start(request("patient", row(i))) for i in range(100)]
    client.settle()
    fickle.settle()
    for i in range(0, 100, 3):
        futures[i].cancel()
    answers = {i: arrays(futures[i].result())["y"].tolist() for i in range(100) if i % 3}
    assert answers == {i: [i] for i in answers}
    assert arrays(held.result())["y"].tolist() == [0]
