"""Memory stays flat whatever callers do, over and over: measured on the worker, after a warm-up of the same kind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from bench import h2load
from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.gatewayprocess import GatewayProcess
from tests.support.h2client import RawClient, framed
from tests.support.oip import Client, connect, request
from tests.support.onnxmodels import identity, linear, store
from tests.support.servedmodels import patient, row

pytestmark = pytest.mark.leak

MIB = 2**20


@pytest.fixture(scope="module")
def own(serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    root = tmp_path_factory.mktemp("memory")
    store(root, "linear", 1, linear())
    store(root, "wide", 1, identity("FP32", ("N", "length")), "onnx: {arena: false}")
    store(root, "words", 1, identity("BYTES", ("N", 2)))
    store(root, "patient", 1, patient(), "batching: {max_batch_size: 8, instances: 1, linger: false}")
    return serve_for_module(root)


@pytest.fixture
def client(own: GatewayProcess) -> Iterator[Client]:
    with connect(own.grpc_url) as channel:
        yield Client(channel)


def growth_bytes(own: GatewayProcess, work: Callable[[], None], rounds: int = 3) -> int:
    """What the worker has grown by over `rounds` of work, after some that do not count. Of one round more, the one
    that grew most is left out: what is needed once (another thread's first arena) is no leak, a leak is in each.
    """
    work()
    work()
    sizes = [own.rss_bytes()]
    for _ in range(rounds + 1):
        work()
        sizes.append(own.rss_bytes())
    return sum(sorted(after - before for before, after in pairwise(sizes))[:-1])


def stays_flat(own: GatewayProcess, work: Callable[[], None], limit_bytes: int, rounds: int = 3) -> bool:
    """Looked at three times at most: a leak is there each time, and what an allocator does once is not."""
    return any(growth_bytes(own, work, rounds) < limit_bytes for _ in range(3))


ONES = {"x": np.ones((1, 4), np.float32)}


@pytest.mark.load
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed (nghttp2-client)")
def test_two_hundred_thousand_requests_leave_memory_flat(own: GatewayProcess, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(framed(request("linear", ONES).SerializeToString()))

    with RawClient(own.port) as raw:
        answer = raw.call(body.read_bytes()[5:])
        assert answer.status == 0

    def load() -> None:
        h2load.run(own.port, body, 8, 16, 50_000).check("gateway", len(answer.data))

    assert stays_flat(own, load, 2 * MIB, rounds=4)  # 10 bytes a request


def test_refusals_leave_memory_flat(own: GatewayProcess, client: Client) -> None:
    bad = [
        request("nobody", ONES),
        request("linear", {"y": ONES["x"]}),
        request("linear", {"x": np.ones((1, 5), np.float32)}),
        request("words", {"x": np.array([["a", "b"]], object)}, outputs=["z"]),
    ]
    typed = request("linear", ONES, typed=True)
    typed.inputs[0].shape[0] = 2  # refused after its contents were decoded
    bad.append(typed)

    def work() -> None:
        for i in range(2000):
            with pytest.raises(grpc.RpcError):
                client.send(bad[i % len(bad)])

    assert stays_flat(own, work, 1 * MIB)


def test_callers_that_cancel_leave_memory_flat(own: GatewayProcess, client: Client) -> None:
    def work() -> None:
        held = client.hold("patient", row(0, 20_000))
        calls = [client.start(request("patient", row(range(50)))) for _ in range(300)]
        client.settle()
        for call in calls:
            call.cancel()
        held.result()
        client.settle()

    assert stays_flat(own, work, 1 * MIB, rounds=6)


def test_connections_that_come_and_go_leave_memory_flat(own: GatewayProcess) -> None:
    message = framed(request("linear", ONES).SerializeToString())

    def work() -> None:
        for i in range(300):
            with RawClient(own.port) as raw:
                stream = raw.open()
                raw.send(stream, message[: 20 + i % 60])  # and leaves in the middle of it
        with RawClient(own.port) as raw:
            raw.settle()

    assert stays_flat(own, work, 1 * MIB)


def test_streams_leave_memory_flat(own: GatewayProcess, client: Client) -> None:
    def work() -> None:
        for i in range(30):
            messages = [request("nobody" if j % 10 == 0 else "linear", ONES) for j in range(50)]
            call = client.stream(iter(messages), timeout=20)
            if i % 3 == 0:
                next(call)
                call.cancel()
            else:
                assert len(list(call)) == 50
        client.settle()

    assert stays_flat(own, work, 1 * MIB)


def test_text_and_typed_contents_leave_memory_flat(own: GatewayProcess, client: Client) -> None:
    x = np.array([[f"{i}", "ü" * (i % 50)] for i in range(400)], object)
    numbers = np.zeros((1, 5000), np.float32)

    def work() -> None:
        for _ in range(50):
            client.infer("words", {"x": x})
            client.infer("words", {"x": x}, typed=True)
            client.infer("wide", {"x": numbers}, typed=True)
            client.send(request("wide", {"x": numbers}), compression=grpc.Compression.Gzip)

    assert stays_flat(own, work, 1 * MIB)


def test_large_messages_leave_memory_flat_and_are_given_back(own: GatewayProcess, client: Client) -> None:
    x = np.zeros((1, 5 * MIB), np.float32)  # 20 MiB
    before = own.rss_bytes()

    def work() -> None:
        for call in [client.start(request("wide", {"x": x})) for _ in range(4)]:
            call.result()

    assert stays_flat(own, work, 10 * MIB, rounds=8)
    eventually(lambda: own.rss_bytes() < before + 10 * MIB, "the memory of large messages is given back")


def test_an_idle_connection_costs_less_than_32_kilobytes(own: GatewayProcess) -> None:
    n = 500
    clients: list[Any] = []
    try:
        for _ in range(50):
            clients.append(RawClient(own.port))
            clients[-1].call(request("linear", ONES).SerializeToString())
        before = own.rss_bytes()
        for _ in range(n):
            clients.append(RawClient(own.port))
            clients[-1].call(request("linear", ONES).SerializeToString())
        assert (own.rss_bytes() - before) / n < 32_000
    finally:
        for client in clients:
            client.sock.close()
