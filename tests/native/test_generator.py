"""The load generator against servers that answer, refuse, stall, reset, close and keep silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from gateway.loadtest.measure import connected, frame, headers
from gateway.native.generator import Generator
from gateway.native.responder import Responder
from tests.support.h2server import Behaviour, MisbehavingServer

OK = ("answer", 0, b"fine")


@contextmanager
def load_on(
    behave: Callable[[int], Behaviour], connections: int = 1, streams: int = 1, plan_us: Any = None
) -> Iterator[tuple[MisbehavingServer, Generator]]:
    with MisbehavingServer(behave) as server, connected("127.0.0.1", server.port, connections) as sockets:
        yield server, Generator(sockets, [frame(b"question")], headers(b"here"), streams, plan_us)


def drive(load: Generator, until: int, seconds: float = 60.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if load.n_done >= until or not load.n_alive:
            return
        load.step(0.02)
    pytest.fail(f"{load.n_done} of {until} requests ended in {seconds} s")


def test_a_closed_loop_keeps_every_stream_busy_and_counts_each_answer_once() -> None:
    with load_on(lambda number: OK, connections=2, streams=4) as (server, load):
        drive(load, 50)
        assert load.n_open <= 8
        load.end()
        while load.n_open:
            load.step(0.02)
        n = load.n_done
        assert load.counts()["statuses"] == {0: n}
        assert len(load.latencies_us) == n
        assert load.answers == [(0, frame(b"fine"), n)]
        assert server.n_requests == n


def test_statuses_are_counted_by_code_and_only_good_answers_are_kept() -> None:
    with load_on(lambda number: ("answer", 14, b"") if number % 2 else OK) as (_, load):
        drive(load, 20)
        counts = load.counts()["statuses"]
    assert set(counts) == {0, 14}
    assert abs(counts[0] - counts[14]) <= 1
    assert [framed for _, framed, _ in load.answers] == [frame(b"fine")]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [(("reset",), "the stream was reset"), (("no status", b"x"), "the answer has no grpc-status")],
)
def test_a_request_without_a_status_is_lost_by_its_reason_and_the_load_goes_on(
    behaviour: tuple[object, ...], reason: str
) -> None:
    with load_on(lambda number: behaviour if number == 3 else OK) as (_, load):
        drive(load, 10)
        assert load.counts()["losses"] == {reason: 1}
        assert load.counts()["statuses"][0] == load.n_done - 1


def test_a_closed_connection_loses_what_was_in_flight_and_the_others_go_on() -> None:
    with load_on(lambda number: ("close",) if number == 5 else OK, connections=2) as (_, load):
        drive(load, 30)
        assert load.n_alive == 1
        assert load.counts()["losses"] == {"the connection ended": 1}


def test_silence_is_a_loss_only_when_patience_is_over() -> None:
    with load_on(lambda number: ("silence",), streams=3) as (_, load):
        while load.n_open < 3:
            load.step(0.1)
        assert load.n_done == 0
        load.give_up()
        assert load.counts()["losses"] == {"no answer came": 3}
        assert load.n_open == 0


def test_in_an_open_loop_a_stall_makes_everything_behind_it_late() -> None:
    """Coordinated omission: 100 requests due in the stall of half a second, on one stream."""
    plan = np.arange(0, 1_000_000, 5_000)
    with load_on(lambda number: ("stall", 0.5) if number == 20 else OK, streams=1, plan_us=plan) as (_, load):
        drive(load, len(plan))
        latencies_us = load.latencies_us
    assert len(latencies_us) == len(plan)
    late = np.count_nonzero(latencies_us > 100_000)
    assert late >= 60, "a generator that waits for answers would have seen one late request"
    assert load.counts()["statuses"] == {0: len(plan)}


def test_planned_requests_beyond_the_streams_wait_and_are_told() -> None:
    plan = np.arange(0, 10_000, 1_000)
    with load_on(lambda number: ("silence",), streams=2, plan_us=plan) as (_, load):
        while load.n_open + load.n_waiting < 10:
            load.step(0.1)
        assert (load.n_open, load.n_waiting) == (2, 8)


def test_requests_go_in_turn_and_answers_are_told_apart_by_request() -> None:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    thread = threading.Thread(target=Responder([b], frame(b"same")).run)
    thread.start()
    try:
        load = Generator([a], [frame(b"one"), frame(b"two" * 50_000)], headers(b"here"), 5)
        drive(load, 101)
        load.end()
        while load.n_open:
            load.step(0.02)
        counts = {which: count for which, _, count in load.answers}
        assert sum(counts.values()) == load.n_done
        assert abs(counts[0] - counts[1]) <= 1
    finally:
        a.close()
        thread.join(10)
        b.close()
    assert not thread.is_alive()


def test_more_different_answers_than_are_kept_are_counted_as_unkept() -> None:
    with load_on(lambda number: ("answer", 0, number.to_bytes(4, "big")), streams=64) as (_, load):
        drive(load, 4200)
        kept = sum(count for _, _, count in load.answers)
        assert kept == 4096
        assert load.counts()["unkept"] == load.n_done - kept


def test_nonsense_from_the_server_ends_the_connection_and_nothing_else() -> None:
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        load = Generator([a], [frame(b"question")], headers(b"here"), 2)
        while load.n_alive:
            load.step(0.2)
        assert load.n_open == 0


def test_arguments_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="expected sockets, requests, 7 headers and streams >= 1"):
        Generator([], [b""], headers(b"here"), 1)
    a, b = socket.socketpair()
    with a, b, pytest.raises(ValueError, match="plan_us is empty"):
        Generator([a], [b""], headers(b"here"), 1, np.array([], np.int64))
