"""The load generator of HTTP/1.1 against a server that answers in every legal way, and in some that are not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from gateway.loadtest.measure import Shape, connected, driven
from gateway.native.httpgenerator import HttpGenerator

REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nbody"
FINE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 4\r\n\r\nfine"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi\r\nA;note=x\r\n0123456789\r\n2\r\nne\r\n0\r\n\r\n"
)


class RawServer:
    """Answers the n-th request (of all connections) with the pieces that `behave(n)` gives, one write each; after an
    empty piece it closes the connection.
    """

    def __init__(self, behave: Callable[[int], list[bytes]]) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self._lock = threading.Lock()
        self._links: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(link,))
            self._links.append(link)
            self._threads.append(thread)
            thread.start()

    def _serve(self, link: socket.socket) -> None:
        with link:
            data = b""
            while True:
                try:
                    while len(data) < len(REQUEST):
                        more = link.recv(65536)
                        if not more:
                            return
                        data += more
                    with self._lock:
                        number = len(self.requests)
                        self.requests.append(data[: len(REQUEST)])
                    data = data[len(REQUEST) :]
                    for piece in self._behave(number):
                        if not piece:
                            return
                        link.sendall(piece)
                except OSError:
                    return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join()


@contextmanager
def load_on(
    behave: Callable[[int], list[bytes]], connections: int = 1, plan_us: object = None
) -> Iterator[tuple[RawServer, HttpGenerator]]:
    server = RawServer(behave)
    try:
        with connected("127.0.0.1", server.port, connections) as sockets:
            yield server, HttpGenerator(sockets, [REQUEST], plan_us)  # type: ignore[arg-type]
    finally:
        server.close()


def drive(load: HttpGenerator, until: int, seconds: float = 60.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if load.n_done >= until or not load.n_alive:
            return
        load.step(0.02)
    pytest.fail(f"{load.n_done} of {until} requests ended in {seconds} s")


def test_a_closed_loop_keeps_every_connection_busy_and_counts_each_answer_once() -> None:
    with load_on(lambda number: [FINE], connections=3) as (server, load):
        drive(load, 60)
        assert load.n_open <= 3
        load.end()
        while load.n_open:
            load.step(0.02)
        n = load.n_done
        assert load.counts()["statuses"] == {0: n}
        assert len(load.latencies_us) == n
        assert load.answers == [(0, b"fine", n)]
        assert server.requests == [REQUEST] * n


@pytest.mark.parametrize(("answer", "body"), [(FINE, b"fine"), (CHUNKED, b"fi0123456789ne")])
def test_an_answer_may_come_byte_by_byte(answer: bytes, body: bytes) -> None:
    with load_on(lambda number: [answer[i : i + 1] for i in range(len(answer))]) as (_, load):
        drive(load, 3)
        assert {(data, which) for which, data, _ in load.answers} == {(body, 0)}


def test_every_cut_of_an_answer_in_two_is_read_alike() -> None:
    with load_on(
        lambda number: [CHUNKED[: 1 + number % (len(CHUNKED) - 1)], CHUNKED[1 + number % (len(CHUNKED) - 1) :]]
    ) as (
        _,
        load,
    ):
        drive(load, len(CHUNKED))
        assert [(which, data) for which, data, _ in load.answers] == [(0, b"fi0123456789ne")]


def test_statuses_are_told_as_grpc_codes_and_only_good_answers_are_kept() -> None:
    lines = {200: 0, 400: 3, 404: 5, 422: 3, 429: 8, 500: 13, 503: 14, 504: 4, 302: 2}
    asked = list(lines)

    def behave(number: int) -> list[bytes]:
        return [b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nno" % asked[number % len(asked)]]

    with load_on(behave) as (_, load):
        drive(load, 2 * len(asked))
        assert set(load.counts()["statuses"]) == set(lines.values())
        assert [data for _, data, _ in load.answers] == [b"no"]
        assert load.answers[0][2] == load.counts()["statuses"][0]


def test_an_answer_that_closes_its_connection_counts_and_the_connection_is_gone() -> None:
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with load_on(lambda number: [closing, b""], connections=2) as (_, load):
        drive(load, 2)
        assert load.n_alive == 0
        assert load.counts()["statuses"] == {0: 2}
        assert load.counts()["losses"] == {}


def test_connections_that_are_gone_can_be_made_again() -> None:
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with load_on(lambda number: [closing, b""] if number < 2 else [FINE], connections=2) as (server, load):
        drive(load, 2)
        assert load.n_alive == 0
        with connected("127.0.0.1", server.port, 3) as sockets:
            load.revive(sockets)
            assert load.n_alive == 2
            drive(load, 20)
            assert load.counts()["statuses"] == {0: load.n_done}
            load.give_up()


def test_a_server_that_closes_every_connection_at_once_is_not_quick() -> None:
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    shape = Shape(connections=2, streams=1, seconds=1.0, warmup_s=0.0)
    with load_on(lambda number: [closing, b""], connections=2) as (_, load):
        assert 0 < driven(load, shape, "here").requests_per_s <= 2.0


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Le", b""], "the connection ended"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b""], "the connection ended"),
        ([b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n"], "the answer cannot be read"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"], "the answer cannot be read"),
        ([b"HTTP/1.1 200 OK\r\n\r\n"], "the answer cannot be read"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], "the answer cannot be read"),
        ([b"x" * 70_000], "the answer cannot be read"),
    ],
)
def test_what_is_no_answer_is_a_loss_with_its_reason(pieces: list[bytes], why: str) -> None:
    with load_on(lambda number: pieces) as (_, load):
        drive(load, 1)
        assert load.counts()["losses"] == {why: 1}
        assert load.counts()["statuses"] == {}
        assert load.n_alive == 0


def test_silence_is_a_loss_when_patience_is_over() -> None:
    with load_on(lambda number: [], connections=2) as (_, load):
        load.step(0.05)
        load.give_up()
        assert load.counts()["losses"] == {"no answer came": 2}


def test_an_open_loop_sends_at_its_times_and_counts_from_them() -> None:
    plan = np.arange(1, 41, dtype=np.int64) * 5_000
    with load_on(lambda number: [FINE], connections=4, plan_us=plan) as (server, load):
        began_s = time.monotonic()
        load.step(0.1)
        assert load.n_done <= (time.monotonic() - began_s) / 0.005
        drive(load, 40)
        assert len(server.requests) == 40
        assert load.n_waiting == 0
        assert len(load.latencies_us) == 40


def test_a_stall_of_an_open_loop_makes_everything_behind_it_late() -> None:
    released = threading.Event()

    def behave(number: int) -> list[bytes]:
        if number == 0:
            released.wait(60)
        return [FINE]

    plan = np.arange(10, dtype=np.int64) * 1_000
    with load_on(behave, plan_us=plan) as (_, load):
        while load.n_waiting < 9:
            load.step(0.1)
        load.step(0.1)
        released.set()
        drive(load, 10)
        assert min(load.latencies_us) > 80_000
