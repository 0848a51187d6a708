"""Http1 without a socket: what it does to its transport, at bounds that no client can see."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.config.limits import Limits
from gateway.native.door import Door
from gateway.serving.front import Front
from gateway.serving.http1 import MAX_WAITING, READ_BYTES, Http1
from gateway.serving.rest.message import Request
from gateway.serving.rest.router import MAX_REMEMBERED, Route, Router
from tests.support.rest import http_request


class Transport:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.sent = b""
        self.calls: list[str] = []

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def writelines(self, parts: Any) -> None:
        self.sent += b"".join(map(bytes, parts))

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None:
        assert high > 0

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


class Scene:
    """One connection whose requests to /slow wait in `asked`; /fail raises, /now answers."""

    def __init__(self, **limits: Any) -> None:
        self.asked: list[Request] = []
        self.bodies: list[bytes] = []
        self.reported: list[BaseException] = []
        budget = SimpleNamespace(used=0, limit=10**6)
        self.door = Door()
        hub = SimpleNamespace(budget=budget, http1_connections=set(), bytes_in=0, bytes_out=0, door=self.door)
        routes = [
            Route("/slow", GET=self.ask, POST=self.ask),
            Route("/fail", GET=self.fail),
            Route("/now", GET=lambda request: request.respond(b"{}")),
        ]
        self.front = Front(hub, Router(routes), Limits(**limits), self.reported.append)
        self.transport = Transport()
        self.connection = Http1(self.front, self.transport)
        self.connection.connection_made(self.transport)

    def ask(self, request: Request) -> None:
        self.asked.append(request)
        self.bodies.append(bytes(request.body))

    def fail(self, request: Request) -> None:
        raise ZeroDivisionError

    def feed(self, data: bytes) -> None:
        self.connection.data_received(data)

    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.transport.sent.split(b"HTTP/1.1 ")[1:]]


def test_a_bounded_number_of_requests_is_worked_on_and_reading_stops() -> None:
    scene = Scene()
    scene.feed(http_request("/slow") * 100)
    assert len(scene.asked) == MAX_WAITING
    assert scene.transport.calls == ["pause_reading"]
    for i in range(100):
        scene.asked[i].respond(b"%d" % i)
    assert scene.transport.calls == ["pause_reading", "resume_reading"]
    assert scene.statuses() == [200] * 100


def test_answers_that_come_out_of_order_are_sent_in_order() -> None:
    scene = Scene()
    scene.feed(http_request("/slow") * 3 + http_request("/now"))
    for i in (2, 1):
        scene.asked[i].respond(b"answer %d" % i)
    assert scene.transport.sent == b""
    scene.asked[0].respond(b"answer 0")
    assert [part[-8:] for part in scene.transport.sent.split(b"HTTP/1.1")[1:4]] == [b"answer %d" % i for i in range(3)]
    assert len(scene.statuses()) == 4


def test_a_paused_transport_gets_nothing_and_no_request_is_started() -> None:
    scene = Scene()
    scene.connection.pause_writing()
    scene.feed(http_request("/now") * 50)
    assert scene.transport.sent == b""
    assert scene.transport.calls == ["pause_reading"]
    scene.connection.resume_writing()
    assert scene.statuses() == [200] * 50


def test_a_second_answer_is_dropped() -> None:
    scene = Scene()
    scene.feed(http_request("/slow"))
    scene.asked[0].respond(b"one")
    scene.asked[0].fail(500, "two")
    assert scene.statuses() == [200]


def test_a_lost_connection_cancels_each_waiting_request_once() -> None:
    scene = Scene()
    gone: list[int] = []
    scene.feed(http_request("/slow", b"x" * 40_000) * 3 + http_request("/slow", b"x" * 40_000)[:-1])
    for i, request in enumerate(scene.asked):
        request.cancel = lambda i=i: gone.append(i)  # type: ignore[misc]
    scene.asked[1].respond(b"already answered")
    scene.connection.connection_lost(None)
    assert gone == [0, 2]
    assert scene.front.n_held == 0
    assert not scene.front.hub.http1_connections
    scene.asked[0].respond(b"too late")
    assert scene.transport.sent == b""


def test_a_lost_connection_gives_back_bodies_that_waited_for_their_turn() -> None:
    scene = Scene()
    scene.feed(http_request("/slow", b"x" * 1000) * (MAX_WAITING + 5))
    assert scene.front.n_held == 5000
    scene.connection.connection_lost(None)
    assert scene.front.n_held == 0


def test_input_behind_the_last_answer_is_read_and_dropped_until_the_peer_closes() -> None:
    scene = Scene()
    scene.feed(http_request("/now", head=["Connection: close"]) + b"GET /now HTTP/1.1\r\n" * 50)
    scene.feed(b"more" * 10_000)
    assert scene.statuses() == [200]
    assert scene.transport.calls == ["write_eof"]


def test_heads_are_measured_alone_however_reads_cut_them() -> None:
    scene = Scene(max_header_list_bytes=4096)
    request = http_request("/now", head=["X: " + "y" * 1000])
    scene.feed(request * 200)
    assert scene.statuses() == [200] * 200
    scene.feed(http_request("/now", head=["X: " + "y" * 5000]))
    assert scene.statuses()[200:] == [431]


def test_an_endless_head_is_refused_before_it_ends() -> None:
    scene = Scene(max_header_list_bytes=4096)
    scene.feed(b"GET /now HTTP/1.1\r\nHost: a\r\nX: ")
    for _ in range(5):
        scene.feed(b"y" * 1000)
    assert scene.statuses() == [431]


@pytest.mark.parametrize("step", [1, 1000, READ_BYTES, 10**6])
def test_large_bodies_arrive_whole_in_any_pieces(step: int) -> None:
    scene = Scene()
    body = bytes(range(256)) * 70
    data = http_request("/slow", body) * 2
    for at in range(0, len(data), step):
        rest = data[at : at + step]
        while rest:  # as a socket would
            buffer = scene.connection.get_buffer(0)
            n = min(len(buffer), len(rest))
            buffer[:n] = rest[:n]
            scene.connection.buffer_updated(n)
            rest = rest[n:]
    assert scene.bodies == [body, body]


def test_a_handler_that_fails_is_told_to_the_log_and_not_to_the_caller() -> None:
    scene = Scene()
    scene.feed(http_request("/fail") + http_request("/now"))
    assert scene.statuses() == [500, 200]
    assert b"Zero" not in scene.transport.sent
    assert [type(error) for error in scene.reported] == [ZeroDivisionError]


def test_bodies_are_given_back_to_the_budget() -> None:
    scene = Scene()
    scene.feed(
        http_request("/slow", b"x" * 30_000) + http_request("/slow", b"x" * 100) + http_request("/now", b"x", "GET")
    )
    assert scene.front.n_held == 0
    scene.feed(http_request("/slow", b"x" * 30_000)[:-1])
    assert scene.front.n_held == 30_000


def test_remembered_paths_do_not_pile_up() -> None:
    router = Router([Route("/v2/models/{model}", GET=print)])
    for i in range(2 * MAX_REMEMBERED + 10):
        assert router.find(b"GET", b"/v2/models/%d" % i)[1] == (str(i),)
    assert len(router._remembered) <= MAX_REMEMBERED
