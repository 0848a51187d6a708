"""A call given up at every moment: it costs nobody else anything, and nothing of it stays."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.exchange import OK, Exchange, infer_request, values_of
from tests.support.frames import (
    CANCEL,
    INITIAL_WINDOW_SIZE,
    NO_ERROR,
    STREAM_INFER,
    data,
    grpc_message,
    rst_stream,
    window_update,
)

REQUEST = infer_request([1])
BODY = grpc_message(REQUEST)
CODES = pytest.mark.parametrize("code", [CANCEL, NO_ERROR, 0xDEADBEEF])


def neighbour_is_answered(exchange: Exchange) -> None:
    exchange.run(exchange.peer.call(99, REQUEST))
    exchange.release()
    assert exchange[99].status == OK
    assert values_of(exchange[99].messages[0]) == [2]
    assert exchange.session.n_open == 0


@CODES
def test_a_reset_right_after_the_headers(cut: str, code: int) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), rst_stream(1, code))
        assert exchange.session.n_open == 0
        assert exchange[1].order == ""
        neighbour_is_answered(exchange)


@CODES
def test_a_reset_inside_a_message_returns_its_bytes(cut: str, code: int) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), data(1, grpc_message(b"", length=10_000) + bytes(500)))
        assert exchange.used == 10_000
        exchange.run(rst_stream(1, code))
        assert exchange.used == 0
        neighbour_is_answered(exchange)


def test_a_reset_while_queued_leaves_the_queue(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(exchange.peer.call(1, REQUEST))
        exchange.run(exchange.peer.call(3, REQUEST))
        lane = exchange.lanes["m"]
        assert (lane.n_queued, lane.n_running) == (1, 1)
        exchange.run(rst_stream(3))
        assert (lane.n_queued, lane.statistics()["cancelled"]) == (0, 1)
        exchange.release()
        assert exchange[1].status == OK
        assert exchange[3].order == ""
        assert exchange.n_run == 1


def test_a_reset_while_running_drops_the_answer_and_no_neighbours(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(exchange.peer.call(1, REQUEST))
        exchange.run(*[exchange.peer.call(stream, infer_request([stream])) for stream in (3, 5, 7)])
        exchange.finish()
        exchange.turn()
        assert len(exchange.batches) == 1, "three requests wait for one batch"
        exchange.run(rst_stream(5))
        exchange.release()
        assert exchange[5].order == ""
        assert [values_of(exchange[stream].messages[0]) for stream in (3, 7)] == [[6], [14]]
        neighbour_is_answered(exchange)


def test_a_reset_of_every_member_of_a_running_batch(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(*[exchange.peer.call(stream, REQUEST) for stream in (1, 3, 5)])
        exchange.run(*[rst_stream(stream) for stream in (5, 1, 3)])
        exchange.release()
        assert [exchange[stream].order for stream in (1, 3, 5)] == ["", "", ""]
        assert exchange.used == 0
        neighbour_is_answered(exchange)


@CODES
def test_a_reset_in_the_middle_of_the_answer_stops_it(cut: str, code: int) -> None:
    with Exchange(cut, wide=False) as exchange:
        exchange.run(exchange.peer.call(1, infer_request([0.5] * 1000)))
        assert len(exchange[1].body) > 4000
        exchange.run(exchange.peer.change((INITIAL_WINDOW_SIZE, 100)))
        exchange.run(exchange.peer.call(3, infer_request([0.5] * 1000)))
        assert len(exchange[3].body) == 100
        assert exchange.used > 3900
        exchange.run(rst_stream(3, code))
        assert exchange.used == 0
        exchange.run(window_update(3, 1000))
        assert len(exchange[3].body) == 100
        assert exchange[3].order == "HD"
        exchange.run(exchange.peer.change((INITIAL_WINDOW_SIZE, 1000)))
        neighbour_is_answered(exchange)


def test_a_reset_after_the_answer_is_nothing(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.call(1, REQUEST))
        exchange.run(rst_stream(1), rst_stream(1), window_update(1, 5))
        assert exchange[1].status == OK
        assert not exchange.peer.goaways
        neighbour_is_answered(exchange)


def test_a_reset_between_the_messages_of_a_stream(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(exchange.peer.open(1, STREAM_INFER), data(1, BODY * 3 + BODY[:7]))
        assert exchange.plane.n_requests == 3
        exchange.run(rst_stream(1))
        exchange.release()
        assert exchange[1].order == ""
        assert exchange.used == 0
        neighbour_is_answered(exchange)


@pytest.mark.parametrize("path", ["/inference.GRPCInferenceService/ModelInfer", STREAM_INFER])
def test_a_lost_connection_cancels_everything(cut: str, path: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(exchange.peer.open(1, path), data(1, BODY, end=True))  # runs
        exchange.run(exchange.peer.open(3, path), data(3, BODY, end=True))  # queued
        exchange.run(exchange.peer.open(5, path), data(5, BODY[:9]))  # arriving
        exchange.run(exchange.peer.open(7, path))  # opened
        lane = exchange.lanes["m"]
        exchange.drop()
        assert exchange.session.n_open == 0
        assert lane.n_queued == 0
        assert lane.statistics()["cancelled"] == 2
        exchange.release()
        assert exchange.used == 0
        assert exchange.session.receive(b"more", 0) == "broken"
        assert exchange.session.to_send() == b""


def test_a_lost_connection_in_the_middle_of_an_answer_returns_its_bytes() -> None:
    with Exchange(wide=False) as exchange:
        exchange.run(exchange.peer.call(1, infer_request([1.0] * 10_000)))
        exchange.run(exchange.peer.call(3, infer_request([1.0] * 10_000)))
        assert exchange.used > 0
        exchange.drop()
        assert exchange.used == 0


def test_a_timer_of_a_call_that_was_given_up_in_the_same_read_is_not_kept(cut: str) -> None:
    """Else a caller could pile up timers that last for years: one for each pair of HEADERS and RST_STREAM."""
    opened: list[Any] = []

    class Handler:
        def __init__(self, stream: Any) -> None:
            opened.append(self)

        def on_cancel(self) -> None:
            opened.remove(self)

    with Exchange(cut, streaming={"/t/T": Handler}) as exchange:
        for stream in range(1, 101, 2):
            for path in ("/t/T", STREAM_INFER):
                number = stream * 2 + (1 if path == STREAM_INFER else -1)
                exchange.say(exchange.peer.open(number, path, ("grpc-timeout", "99999999H")), rst_stream(number))
        exchange.run()
        assert len(exchange.plane.timers) == 0
        assert opened == []
