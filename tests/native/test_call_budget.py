"""Bytes in flight: reserved when a message announces its length, given back by whoever drops it.

When it is exhausted no call but the one that is too much comes to harm.
"""

from __future__ import annotations

from gateway.native.http2 import Session
from tests.support.exchange import OK, RESOURCE_EXHAUSTED, Exchange, infer_request
from tests.support.frames import Peer, data, grpc_message, rst_stream

REQUEST = infer_request([1.0] * 100)
BODY = grpc_message(REQUEST)


def test_a_message_is_reserved_when_its_length_is_known(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), data(1, BODY[:4]))
        assert exchange.used == 0
        exchange.run(data(1, BODY[4:5]))
        assert exchange.used == len(REQUEST)
        exchange.run(data(1, BODY[5:], end=True))
        assert exchange[1].status == OK
        assert exchange.used == 0


def test_a_message_that_does_not_fit_is_refused_at_once_and_fits_later(cut: str) -> None:
    with Exchange(cut, hold=True, max_in_flight_bytes=2 * len(REQUEST)) as exchange:
        exchange.run(exchange.peer.call(1, REQUEST), exchange.peer.call(3, REQUEST))
        assert exchange.used == 2 * len(REQUEST)
        exchange.run(exchange.peer.open(5), data(5, BODY[:5]))
        answer = exchange[5]
        assert (answer.status, answer.order) == (RESOURCE_EXHAUSTED, "HR")
        assert "max_in_flight_bytes" in answer.text
        assert str(2 * len(REQUEST)) in answer.text
        exchange.release()
        assert [exchange[stream].status for stream in (1, 3)] == [OK, OK]
        assert exchange.used == 0
        exchange.run(exchange.peer.call(7, REQUEST))
        assert exchange[7].status == OK


def test_an_exact_fit_is_taken() -> None:
    with Exchange(hold=True, max_in_flight_bytes=len(REQUEST)) as exchange:
        exchange.run(exchange.peer.call(1, REQUEST))
        exchange.run(exchange.peer.open(3), data(3, grpc_message(b"", length=1)))
        assert exchange[3].status == RESOURCE_EXHAUSTED
        exchange.release()
        assert exchange[1].status == OK


def test_an_answer_counts_until_it_has_left(cut: str) -> None:
    with Exchange(cut, wide=False, max_in_flight_bytes=1000) as exchange:
        exchange.run(exchange.peer.change((4, 100)), exchange.peer.call(1, REQUEST))
        assert len(exchange[1].body) == 100
        assert exchange.used > 400, "an unsent answer is in flight"
        exchange.run(exchange.peer.grant(1, 1000))
        assert exchange[1].status == OK
        assert exchange.used == 0


def test_an_answer_over_the_budget_still_leaves(cut: str) -> None:
    """What was admitted is answered; refusing answers would only waste the work."""
    with Exchange(cut, wide=False, max_in_flight_bytes=len(REQUEST)) as exchange:
        exchange.serve(
            "m", [("x", "FP32", (-1, -1))], [("y", "FP32", (-1, -1))], lambda arrays: [arrays[0].repeat(9, axis=1)]
        )
        exchange.run(exchange.peer.change((4, 0)), exchange.peer.call(1, REQUEST))
        assert exchange.used > 9 * 400
        exchange.run(exchange.peer.change((4, 65_535)), exchange.peer.open(3), data(3, BODY, end=True))
        exchange.run()
        assert exchange[1].status == OK
        assert len(exchange[1].messages[0]) > 9 * 400
        assert exchange.used == 0


def test_the_budget_is_shared_by_sessions() -> None:

    with Exchange(max_in_flight_bytes=len(REQUEST)) as exchange:
        other, peer = (
            Session(exchange.limits, exchange.plane.budget, exchange.plane.inbox, exchange.plane.dirty),
            Peer(),
        )
        other.receive(peer.preface() + peer.open(1) + data(1, BODY[:5]), 0)
        exchange.run(exchange.peer.call(1, REQUEST))
        assert exchange[1].status == RESOURCE_EXHAUSTED
        other.receive(rst_stream(1), 0)
        exchange.run(exchange.peer.call(3, REQUEST))
        assert exchange[3].status == OK
        other.shut()
