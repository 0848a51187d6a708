"""From start to exit: ready when warm, broken models beside good ones, a worker that dies, a drain without a loss."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway import pb
from tests.conftest import Serve
from tests.serving.supervised import is_alive
from tests.support import onnxmodels
from tests.support.conditions import OverTooEarly, eventually, lasting, set_up_anew
from tests.support.gatewayprocess import free_port
from tests.support.h2client import RawClient, framed
from tests.support.oip import Client, arrays, connect, request
from tests.support.onnxmodels import identity, linear, store, store_external
from tests.support.servedmodels import patient, row

ENDLESS = 50_000_000  # turns: more than 30 s on any machine
X = np.ones((1, 4), np.float32)
LINEAR = request("linear", {"x": X}).SerializeToString()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    store(root, "linear", 1, linear())
    store(root, "patient", 1, patient(), "batching: {max_batch_size: 4, instances: 1, linger: false}")
    return root


# --- start


@set_up_anew
def test_it_is_live_at_once_and_ready_only_when_every_model_is_warm(serve: Serve, models: Path) -> None:
    store(models, "heavy", 1, patient(base_turns=lasting(300_000)), "batching: {max_batch_size: 1}")
    port = free_port()
    server = serve(models, "--grpc-port", str(port), wait=False)
    with connect(f"127.0.0.1:{port}", ("grpc.max_reconnect_backoff_ms", 50)) as channel:
        client = Client(channel)
        ready, model_ready = client.unary("ServerReady"), client.unary("ModelReady")
        live = client.unary("ServerLive")(pb.inference.ServerLiveRequest(), wait_for_ready=True, timeout=50)
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
        assert live.live
        seen = next(watch).status, ready(pb.inference.ServerReadyRequest(), timeout=20).ready
        model_seen = model_ready(pb.inference.ModelReadyRequest(name="heavy"), timeout=20).ready, client.index()
        refused = client.start(request("heavy", row(1))).exception()
        if client.index()["heavy", "1"] == ("READY", ""):
            raise OverTooEarly("it was warm before all was asked")
        assert seen == (health_pb2.HealthCheckResponse.NOT_SERVING, False)
        assert (model_seen[0], model_seen[1]["heavy", "1"]) == (False, ("LOADING", ""))
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
        assert refused.details() == "model 'heavy' does not serve: version 1 is LOADING"
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        assert ready(pb.inference.ServerReadyRequest(), timeout=10).ready
        assert client.index()["heavy", "1"] == ("READY", "")
        assert client.infer("heavy", row(1))["y"].tolist() == [1]
    server.wait_ready()


def broken_models(root: Path) -> dict[str, tuple[str, ...]]:
    """Versions that cannot be loaded, and words of the reason that a person needs."""
    good = linear()
    store(root, "truncated", 1, good[: len(good) // 2])
    store(root, "empty_file", 1, b"")
    store(root, "no_model", 1, b"x")
    store(root, "new_opset", 1, identity(opset=999))
    store(root, "bad_settings", 1, good, "batching: {max_batch_size: lots}")
    store(root, "unbatchable", 1, onnxmodels.mean_of_rows(), "batching: {max_batch_size: 8}")
    store_external(root, "weights_gone", 1, good)
    (root / "weights_gone" / "1" / "weights.bin").unlink()
    (root / "file_gone" / "1").mkdir(parents=True)
    unknown = onnxmodels.build(
        [onnxmodels.node("Frobnicate", ["x"], ["y"])], [onnxmodels.tensor("x")], [onnxmodels.tensor("y")]
    )
    store(root, "unknown_operator", 1, unknown)
    return {
        "truncated": ("model.onnx",),
        "empty_file": ("model.onnx",),
        "no_model": ("model.onnx",),
        "new_opset": ("opset",),
        "bad_settings": ("model.yaml", "max_batch_size", "lots", "auto or a whole number"),
        "unbatchable": ("cannot be batched", "changes with the rows beside it"),
        "weights_gone": ("weights.bin",),
        "file_gone": ("model.onnx",),
        "unknown_operator": ("Frobnicate",),
    }


def test_broken_models_are_unavailable_with_the_reason_and_the_others_serve(serve: Serve, models: Path) -> None:
    reasons = broken_models(models)
    store(models, "half", 1, linear())
    store(models, "half", 2, b"broken")
    (models / "linear" / "notes").mkdir()  # no version: ignored
    server = serve(models)
    with connect(server.grpc_url) as channel:
        client = Client(channel)
        index = client.index()
        for model, words in reasons.items():
            state, reason = index[model, "1"]
            assert state == "UNAVAILABLE", model
            assert "\n" not in reason
            for word in words:
                assert word in reason, model
            with pytest.raises(grpc.RpcError) as caught:
                client.infer(model, {"x": X})
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert reason in caught.value.details()
        assert {key for key, (state, _) in index.items() if state == "READY"} == {
            ("linear", "1"),
            ("patient", "1"),
            ("half", "1"),
        }
        assert client.send(request("half", {"x": X})).model_version == "1"  # the highest that serves
        assert client.unary("ServerReady")(pb.inference.ServerReadyRequest(), timeout=10).ready
        assert not client.unary("ModelReady")(pb.inference.ModelReadyRequest(name="truncated"), timeout=10).ready
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        status = health.Check(health_pb2.HealthCheckRequest(service="truncated"), timeout=10).status
        assert status == health_pb2.HealthCheckResponse.NOT_SERVING
    said = {event["model"] for event in server.events("version unavailable")}
    assert said == {*reasons, "half"}
    assert "Traceback" not in server.log


def test_a_model_with_rows_that_no_message_can_carry_delays_nobody(serve: Serve, models: Path) -> None:
    """The file may declare anything."""
    huge = onnx.load_from_string(identity("FP32", ("N", 2**40)))
    store(models, "huge", 1, huge.SerializeToString())
    server = serve(models)
    with connect(server.grpc_url) as channel:
        client = Client(channel)
        assert client.infer("linear", {"x": X})["y"].shape == (1, 3)
        with pytest.raises(grpc.RpcError) as caught:
            client.infer("huge", {"x": X})
        assert "got shape [1,4], expected [-1,1099511627776]" in caught.value.details()


# --- a worker dies


def test_a_killed_worker_harms_only_its_own_connections_and_comes_back(serve: Serve, models: Path) -> None:
    server = serve(models, "--workers", "2")
    first, second = server.workers()
    clients: dict[int, list[RawClient]] = {first: [], second: []}
    while min(map(len, clients.values())) < 2:
        client = RawClient(server.port)
        assert client.call(LINEAR).status == 0
        worker = server.worker_of(client.sock)
        assert worker is not None
        clients[worker].append(client)
    stop = threading.Event()
    counts: dict[RawClient, int] = {}
    broken: set[RawClient] = set()

    def load(client: RawClient) -> None:
        while not stop.is_set():
            try:
                assert client.call(LINEAR).status == 0
            except (AssertionError, OSError):
                broken.add(client)
                return
            counts[client] = counts.get(client, 0) + 1

    threads = [threading.Thread(target=load, args=[client]) for client in itertools.chain(*clients.values())]
    for thread in threads:
        thread.start()
    eventually(lambda: len(counts) == len(threads), "every client is being served")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: broken == set(clients[first]), "the connections of the killed worker are closed")
    before = {client: counts[client] for client in clients[second]}
    eventually(lambda: all(counts[client] > before[client] + 20 for client in clients[second]), "the others go on")
    died = eventually(lambda: server.events("worker died"), "the death is reported")
    assert died[0]["exit"] == "killed by SIGKILL"
    back = eventually(lambda: [w for w in server.workers() if w not in (first, second)], "another is started", 60)
    eventually(lambda: server.events("worker ready"), "it is ready", 60)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert broken == set(clients[first])

    def is_served_by_the_new_one() -> bool:
        with RawClient(server.port) as client:
            assert client.call(LINEAR).status == 0
            return server.worker_of(client.sock) == back[0]

    eventually(is_served_by_the_new_one, "the new worker takes its share")
    for client in itertools.chain(*clients.values()):
        client.sock.close()
    assert server.stop() == 0


def test_workers_drain_when_their_supervisor_is_killed(serve: Serve, models: Path) -> None:
    server = serve(models)
    (worker,) = server.workers()
    with connect(server.grpc_url) as channel:
        held = Client(channel).hold("patient", row(5, 300_000))
        server.process.kill()
        server.process.wait()
        assert arrays(held.result())["y"].tolist() == [5]
    eventually(
        lambda: not Path(f"/proc/{worker}/cmdline").exists() or not Path(f"/proc/{worker}/cmdline").read_bytes(),
        "the worker is gone",
    )


# --- stop


class Flood:
    """A connection that sends requests as quickly as it may, until the server's last GOAWAY, and reads to the end."""

    def __init__(self, port: int, messages: list[bytes]) -> None:
        self.raw = RawClient(port)
        self.raw.settle()
        self._messages = itertools.cycle(messages)
        self._thread = threading.Thread(target=self._run)
        self.failure: BaseException | None = None
        self._thread.start()

    def _run(self) -> None:
        raw, may_send = self.raw, True
        try:
            while not raw.is_closed:
                n_open = sum(not answer.is_over for answer in raw.answers.values())
                if n_open < 40 and may_send and not self.last_stream:
                    try:
                        raw.send(raw.open(), framed(next(self._messages)), end=True)
                    except (
                        OSError
                    ):  # it closed while we were writing, as it may; what it said before is still to be read
                        may_send = False
                else:
                    raw.read(5)
        except BaseException as error:
            self.failure = error

    @property
    def last_stream(self) -> int:
        """Of the GOAWAY that names one; 0 before."""
        return next((last for last, _ in self.raw.goaways if last < 2**31 - 1), 0)

    @property
    def n_answered(self) -> int:
        return sum(answer.status == 0 for answer in self.raw.answers.copy().values())

    def check(self) -> int:
        """Every request that the server accepted has a right answer, no other has any; how many were accepted."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.raw.sock.close()
        if self.failure:
            raise self.failure
        assert self.last_stream, "the server closed without naming the last stream"
        accepted = [number for number in self.raw.answers if number <= self.last_stream]
        lost = [number for number in accepted if self.raw.answers[number].status != 0]
        assert not lost, f"{len(lost)} of {len(accepted)} accepted requests got no answer: {lost[:10]}"
        assert all(not self.raw.answers[number].headers for number in self.raw.answers if number > self.last_stream)
        return len(accepted)


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_loses_no_accepted_request(serve: Serve, models: Path, workers: int) -> None:
    server = serve(models, "--workers", str(workers))
    slow = request("patient", row(1, 2_000)).SerializeToString()
    floods = [Flood(server.port, [LINEAR, LINEAR, slow]) for _ in range(3)]
    eventually(lambda: all(flood.n_answered > 100 for flood in floods), "load")
    began_s = time.monotonic()
    server.terminate()
    assert server.wait() == 0
    assert time.monotonic() - began_s < 25  # of a drain of 30
    assert all(flood.check() > 100 for flood in floods)
    assert not server.events("worker did not end cleanly")


def test_sigterm_lets_grpcio_finish_what_is_in_flight_and_then_go_elsewhere(serve: Serve, models: Path) -> None:
    server = serve(models)
    with connect(server.grpc_url) as channel:
        client = Client(channel)
        held = client.hold("patient", row(0, 300_000))
        queued = [client.start(request("patient", row(i, 5_000))) for i in range(1, 21)]
        client.settle()
        server.terminate()
        assert [arrays(call.result())["y"].tolist() for call in (held, *queued)] == [[i] for i in range(21)]
        assert server.wait() == 0
        with pytest.raises(grpc.RpcError) as caught:
            client.infer("linear", {"x": X})
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_drain_tells_watchers_first_and_refuses_readiness(serve: Serve, models: Path) -> None:
    server = serve(models)
    with connect(server.grpc_url) as channel:
        client = Client(channel)
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        held = client.hold("patient", row(0, 300_000))
        server.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert arrays(held.result())["y"].tolist() == [0]
    assert server.wait() == 0


def test_a_stream_in_use_is_finished_and_an_idle_one_ended_by_a_drain(serve: Serve, models: Path) -> None:
    server = serve(models)
    go_on, is_sent = threading.Event(), threading.Event()

    def quiet() -> Iterator[Any]:
        yield request("linear", {"x": X})
        go_on.wait(60)

    def one() -> Iterator[Any]:
        yield request("patient", row(3, 150_000))
        is_sent.set()  # grpcio asks for the next one when this one is written

    with connect(server.grpc_url) as channel:
        client = Client(channel)
        idle, used = (
            client.stream(quiet(), timeout=60),
            client.stream(one(), timeout=60),
        )
        next(idle)
        assert is_sent.wait(60)
        client.settle()
        server.terminate()
        (answer,) = list(used)
        assert arrays(answer.infer_response)["y"].tolist() == [3]
        with pytest.raises(grpc.RpcError) as caught:
            next(idle)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        go_on.set()
    assert server.wait() == 0


def test_idle_connections_do_not_hold_up_the_exit(serve: Serve, models: Path) -> None:
    server = serve(models)
    with RawClient(server.port) as deaf, connect(server.grpc_url) as channel:
        deaf.settle()  # and reads nothing from now on
        Client(channel).infer("linear", {"x": X})
        began_s = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        assert time.monotonic() - began_s < 25  # of a drain of 30


def test_what_takes_longer_than_the_drain_is_given_up_and_the_exit_code_says_so(serve: Serve, models: Path) -> None:
    server = serve(models, "--drain", "1s")
    with connect(server.grpc_url) as channel:
        held = Client(channel).hold("patient", row(0, ENDLESS))
        began_s = time.monotonic()
        server.terminate()
        assert held.exception(20).code() is grpc.StatusCode.UNAVAILABLE
        assert server.wait() == 1
        assert 0.9 < time.monotonic() - began_s < 25
    assert server.events("drain time is over")[0]["calls_given_up"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once_and_leaves_nobody_behind(
    serve: Serve, models: Path, number: signal.Signals
) -> None:
    server = serve(models, "--workers", "2")
    workers = server.workers()
    with connect(server.grpc_url) as channel:
        held = Client(channel).hold("patient", row(0, ENDLESS))
        server.process.send_signal(number)
        eventually(lambda: server.events("stopping"), "the first signal is heard")
        assert server.process.poll() is None
        began_s = time.monotonic()
        server.process.send_signal(number)
        assert server.wait() == 128 + number
        assert time.monotonic() - began_s < 25
        assert held.exception(20).code() is grpc.StatusCode.UNAVAILABLE
    assert not any(map(is_alive, workers))


def test_a_stop_while_models_load_is_heard(serve: Serve, models: Path) -> None:
    store(models, "heavy", 1, patient(base_turns=ENDLESS), "batching: {max_batch_size: 1}")
    port = free_port()
    server = serve(models, "--grpc-port", str(port), wait=False)
    with connect(f"127.0.0.1:{port}") as channel:
        Client(channel).unary("ServerLive")(pb.inference.ServerLiveRequest(), wait_for_ready=True, timeout=50)
    began_s = time.monotonic()
    server.terminate()
    assert server.wait() == 0
    assert time.monotonic() - began_s < 25
