"""One connection from its preface to its end: greetings, pings, draining, and everything that is not HTTP/2."""

from __future__ import annotations

import random

import pytest

from gateway.native.http2 import Session
from tests.support.exchange import OK, Exchange, infer_request
from tests.support.frames import (
    ACK,
    FRAME_SIZE_ERROR,
    GOAWAY,
    NO_ERROR,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    SETTINGS,
    STREAM_INFER,
    data,
    frame,
    goaway,
    grpc_message,
    ping,
    settings,
)

REQUEST = infer_request([1])
ANNOUNCED = 2**31 - 1
"""The last stream of a GOAWAY that refuses nothing yet."""


def fresh() -> tuple[Exchange, Session]:
    exchange = Exchange()
    return exchange, Session(exchange.limits, exchange.plane.budget, exchange.plane.inbox, exchange.plane.dirty)


def test_the_server_greets_with_settings_and_acknowledges_ours(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run()
        kinds = [(one.kind, one.flags) for one in exchange.peer.frames]
        assert kinds[0] == (SETTINGS, 0)
        assert (SETTINGS, ACK) in kinds
        assert exchange.session.has_preface


def test_every_settings_frame_is_acknowledged(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(*[settings((1, 100 + n)) for n in range(5)])
        assert len([one for one in exchange.peer.heard(SETTINGS) if one.flags & ACK]) == 6


def test_a_smaller_header_table_is_kept_to(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(settings((1, 0)))
        exchange.peer.decoder.max_allowed_table_size = 0
        for stream in (1, 3, 5):
            exchange.run(exchange.peer.call(stream, REQUEST))
            assert exchange[stream].status == OK


def test_a_ping_comes_back_with_its_bytes(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(ping(b"12345678"), ping(b"abcdefgh"))
        assert [(one.payload, one.flags) for one in exchange.peer.heard(PING)] == [
            (b"12345678", ACK),
            (b"abcdefgh", ACK),
        ]


def test_an_answer_to_a_ping_that_was_never_sent_is_nothing(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(ping(ack=True), exchange.peer.call(1, REQUEST))
        assert exchange[1].status == OK
        assert not exchange.peer.goaways


# --- not HTTP/2 ----------------------------------------


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v2/models/m/infer HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(100),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
        b"\xff" * 24,
    ],
    ids=["GET", "POST", "TLS", "zeros", "last byte wrong", "ones"],
)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_anything_but_the_preface_is_told_apart_at_its_first_wrong_byte(opening: bytes, size: int) -> None:
    exchange, session = fresh()
    with exchange:
        wrong = next(index for index, byte in enumerate(opening) if index >= len(PREFACE) or byte != PREFACE[index])
        verdicts = [session.receive(opening[at : at + size], 0) for at in range(0, wrong + 1, size)]
        assert verdicts == ["ok"] * (wrong // size) + ["not http2"]
        session.shut()


@pytest.mark.parametrize("n", range(len(PREFACE)))
def test_a_connection_lost_inside_the_preface_leaves_nothing(n: int) -> None:
    exchange, session = fresh()
    with exchange:
        assert session.receive(PREFACE[:n], 0) == "ok"
        session.shut()
        assert session.finished


@pytest.mark.parametrize(
    "first", [ping(), data(1, b"x"), frame(99, 0, 0, b"x"), goaway()], ids=["ping", "data", "99", "goaway"]
)
def test_another_frame_than_settings_first_ends_the_session(cut: str, first: bytes) -> None:
    exchange, session = fresh()
    with exchange:
        for piece in (PREFACE, first):
            session.receive(piece, 0)
        exchange.peer.receive(session.to_send())
        assert exchange.peer.goaways or session.finished
        session.shut()


def test_noise_after_the_preface_never_raises_and_never_lives_on() -> None:
    dice = random.Random(5)
    for _ in range(300):
        exchange, session = fresh()
        with exchange:
            session.receive(PREFACE + settings(), 0)
            noise = dice.randbytes(dice.randrange(1, 400))
            while noise and session.receive(noise, 0) == "ok":
                exchange.plane.turn(0)
                session.to_send()
                noise = dice.randbytes(dice.randrange(400)) if not session.finished and dice.random() < 0.7 else b""
            session.shut()
            assert session.n_open == 0


@pytest.mark.parametrize(
    ("bytes_said", "code"),
    [
        (frame(PING, 0, 0, b"short"), FRAME_SIZE_ERROR),
        (frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, b"12345"), FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 3, bytes(6)), PROTOCOL_ERROR),
        (frame(0, 0, 0, b"x"), PROTOCOL_ERROR),
        (frame(1, 4, 0, b"x"), PROTOCOL_ERROR),
        (frame(1, 4, 2, b"\x82"), PROTOCOL_ERROR),
        (frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff\xff"), 9),
        (frame(9, 4, 1, b"x"), PROTOCOL_ERROR),
        (frame(3, 0, 1, b"\0\0\0\x08"), PROTOCOL_ERROR),
        (frame(5, 4, 1, bytes(4)), PROTOCOL_ERROR),
        (frame(99, 0, 0, b"x", length=2**24 - 1), FRAME_SIZE_ERROR),
    ],
    ids=[
        "ping of 5", "ping on a stream", "settings of 5", "acknowledgement with entries", "settings on a stream",
        "data on 0", "headers on 0", "even stream", "bad hpack", "continuation of nothing", "reset of an idle stream",
        "push", "frame of 16 MiB",
    ],
)  # fmt: skip
def test_a_broken_rule_of_the_connection_is_a_goaway_with_its_code(cut: str, bytes_said: bytes, code: int) -> None:
    with Exchange(cut) as exchange:
        exchange.run(bytes_said)
        assert [one.code for one in exchange.peer.goaways] == [code]
        assert exchange.session.finished


def test_a_frame_of_an_unknown_kind_is_ignored(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(frame(0x42, 0xFF, 0, b"whatever"), frame(0xFA, 0, 1, b""), exchange.peer.call(1, REQUEST))
        assert exchange[1].status == OK


# --- the end ----------------------------------------


def test_a_drain_announces_then_pings_and_finally_names_the_last_stream(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(exchange.peer.call(1, REQUEST))
        exchange.session.start_drain()
        exchange.read()
        assert [(one.last_stream, one.code) for one in exchange.peer.goaways] == [(ANNOUNCED, NO_ERROR)]
        [sent] = exchange.peer.heard(PING)
        exchange.run(exchange.peer.call(3, REQUEST))
        assert exchange.plane.n_requests == 2, "what was on its way when the drain began is still served"
        exchange.run(ping(sent.payload, ack=True))
        assert [(one.last_stream, one.code) for one in exchange.peer.goaways][1:] == [(3, NO_ERROR)]
        exchange.run(exchange.peer.call(5, REQUEST))
        assert exchange.plane.n_requests == 2, "a stream above the last one is ignored"
        assert exchange[5].order == ""
        assert not exchange.session.finished
        exchange.release()
        assert [exchange[stream].status for stream in (1, 3)] == [OK, OK]
        assert exchange.session.finished


def test_headers_of_an_ignored_stream_still_count_for_the_header_table(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(exchange.peer.open(1))
        exchange.session.start_drain()
        exchange.read()
        exchange.run(ping(ack=True), exchange.peer.open(3, STREAM_INFER, ("x-new", "entry")))
        exchange.run(data(1, grpc_message(REQUEST)), exchange.peer.headers(1, [("x-new", "entry")], end=True))
        exchange.release()
        assert exchange[1].status == OK
        assert exchange[3].order == ""


def test_a_drain_of_an_idle_session_finishes_at_the_pings_answer(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run()
        exchange.session.start_drain()
        exchange.session.start_drain()
        exchange.read()
        assert not exchange.session.finished
        exchange.run(ping(ack=True))
        assert exchange.session.finished
        assert len(exchange.peer.heard(GOAWAY)) == 2
        assert len(exchange.peer.heard(PING)) == 1


def test_a_drain_with_a_call_reset_by_its_caller_finishes(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(exchange.peer.call(1, REQUEST))
        exchange.session.start_drain()
        exchange.read()
        exchange.run(ping(ack=True), frame(3, 0, 1, (8).to_bytes(4)))
        assert exchange.session.finished


def test_a_caller_that_says_goaway_gets_its_answers_and_then_the_end(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(exchange.peer.call(1, REQUEST), goaway())
        exchange.release()
        assert exchange[1].status == OK


def test_nothing_happens_after_the_connection_is_lost() -> None:
    with Exchange() as exchange:
        exchange.run(exchange.peer.call(1, REQUEST))
        exchange.drop()
        exchange.drop()
        exchange.session.start_drain()
        assert exchange.session.receive(PREFACE, 0) == "broken"
        assert exchange.session.to_send() == b""
        assert exchange.session.finished
