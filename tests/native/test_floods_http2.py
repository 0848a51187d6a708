"""Floods: a caller that makes work without wanting answers is cut off, or costs a bounded amount.

Its neighbours notice nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from gateway.native.http2 import Session
from tests.support.exchange import OK, Exchange, infer_request, values_of
from tests.support.frames import (
    CONTINUATION,
    ENHANCE_YOUR_CALM,
    HEADERS,
    STREAM_INFER,
    Peer,
    data,
    frame,
    grpc_message,
    ping,
    priority,
    rst_stream,
    settings,
    window_update,
)

REQUEST = infer_request([1])


class Flood:
    """An attacker's session beside the one of `Exchange`, on the same data plane. It never reads, unless `reads`."""

    def __init__(self, exchange: Exchange, reads: bool = True) -> None:
        self.exchange, self.reads, self.peer = exchange, reads, Peer()
        plane = exchange.plane
        self.session = Session(exchange.limits, plane.budget, plane.inbox, plane.dirty)
        self.n_sent = self.n_received = 0
        assert self.feed(self.peer.preface()) == "ok"

    def feed(self, stuff: bytes) -> str:
        verdict = self.session.receive(stuff, self.exchange.now_us)
        self.n_sent += len(stuff)
        self.exchange.turn()
        if self.reads:
            got = self.session.to_send()
            self.n_received += len(got)
            self.peer.receive(got)
        return str(verdict)

    def run(self, parts: Iterator[bytes]) -> int:
        """Feeds until the session has had enough; how many parts it took."""
        for n, part in enumerate(parts):
            if self.feed(part) != "ok" or self.session.finished:
                return n
        return -1

    @property
    def is_cut_off(self) -> bool:
        return bool(self.session.finished or self.peer.goaways)


def streams(first: int = 1) -> Iterator[int]:
    return iter(range(first, 2**31, 2))


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    """With a neighbour in the middle of a call, which must come to its right end."""
    with Exchange(reset_burst=100, resets_per_s=10, max_concurrent_streams=50, hold=True) as exchange:
        body = grpc_message(REQUEST)
        exchange.run(exchange.peer.open(1), data(1, body[:20]))
        yield exchange
        exchange.run(data(1, body[20:], end=True))
        exchange.release()
        assert exchange[1].status == OK
        assert values_of(exchange[1].messages[0]) == [2]
        exchange.run(exchange.peer.call(3, REQUEST))
        assert exchange[3].status == OK
    exchange.forget()


def test_rapid_reset_is_cut_off_after_its_burst(exchange: Exchange) -> None:
    """CVE-2023-44487."""
    flood = Flood(exchange)
    n = flood.run(flood.peer.call(stream, REQUEST) + rst_stream(stream) for stream in range(1, 4001, 2))
    assert 90 <= n <= 300, f"cut off after {n} resets, the burst is 100"
    assert flood.is_cut_off
    assert [one.code for one in flood.peer.goaways] in ([], [ENHANCE_YOUR_CALM], [2])
    flood.session.shut()
    exchange.turn()
    assert exchange.lanes["m"].n_queued == 0


def test_resets_that_come_slowly_are_honest(exchange: Exchange) -> None:
    """Nothing is cut off that stays within the burst."""
    flood = Flood(exchange)
    assert flood.run(flood.peer.call(stream, REQUEST) + rst_stream(stream) for stream in range(1, 181, 2)) == -1
    assert not flood.is_cut_off
    flood.session.shut()


def test_resets_provoked_from_the_server_are_bounded(exchange: Exchange) -> None:
    """ "MadeYouReset", CVE-2025-8671: errors that make the server send RST_STREAM, with the work already begun."""
    flood = Flood(exchange)
    lane = exchange.lanes["m"]
    for stream in range(1, 2001, 2):
        if flood.feed(flood.peer.call(stream, REQUEST) + window_update(stream, 0)) != "ok" or flood.session.finished:
            break
        assert flood.peer.answers[stream].reset is not None
        assert (flood.session.n_open, lane.n_queued) == (0, 0)
        assert lane.n_running <= 1
        assert exchange.used <= 2 * len(REQUEST)
    flood.session.shut()


def test_continuations_without_end_are_cut_off(exchange: Exchange) -> None:
    """CVE-2024-28182."""
    flood = Flood(exchange)
    flood.feed(frame(HEADERS, 0, 1, b"\x82"))
    n = flood.run(frame(CONTINUATION, 0, 1, b"\0\1a\1b" * 1000) for _ in range(1000))
    assert 0 <= n <= 8
    flood.session.shut()


def test_empty_continuations_are_cut_off_too(exchange: Exchange) -> None:
    flood = Flood(exchange)
    flood.feed(frame(HEADERS, 0, 1, b""))
    assert 0 <= flood.run(frame(CONTINUATION, 0, 1) for _ in range(1000)) <= 8
    flood.session.shut()


@pytest.mark.parametrize(
    "part", [ping(), settings(), settings((1, 4096))], ids=["ping", "settings", "settings with an entry"]
)
def test_questions_whose_answers_are_not_read_are_cut_off(exchange: Exchange, part: bytes) -> None:
    """CVE-2019-9512, CVE-2019-9515: each costs an answer that must be kept."""
    flood = Flood(exchange, reads=False)
    n = flood.run(part * 10 for _ in range(1000))
    assert 0 <= n <= 110
    assert len(flood.session.to_send()) < 50_000
    flood.session.shut()


@pytest.mark.parametrize("part", [ping(), settings()], ids=["ping", "settings"])
def test_questions_whose_answers_are_read_cost_one_answer_each(exchange: Exchange, part: bytes) -> None:
    flood = Flood(exchange)
    assert flood.run(part * 100 for _ in range(100)) == -1
    assert flood.n_received < 2 * flood.n_sent
    flood.session.shut()


def test_settings_with_many_entries_are_cut_off(exchange: Exchange) -> None:
    flood = Flood(exchange)
    assert flood.run(iter([settings(*[(4, 1)] * 33)])) == 0
    flood.session.shut()


@pytest.mark.parametrize(
    "part",
    [lambda: data(1), lambda: data(1, padding=0), lambda: data(1, padding=255)],
    ids=["empty", "padded 0", "padding"],
)
@pytest.mark.parametrize("path", ["/inference.GRPCInferenceService/ModelInfer", STREAM_INFER, "/t/T"])
def test_data_frames_with_nothing_in_them_hold_no_memory(
    exchange: Exchange, path: str, part: Callable[[], bytes]
) -> None:
    """CVE-2019-9518. They are not cut off: they cost what they are, and nothing stays."""
    flood = Flood(exchange)
    flood.feed(flood.peer.open(1, path))
    before = exchange.used
    flood.run(part() * 100 for _ in range(100))
    assert exchange.used == before
    assert flood.n_received < flood.n_sent
    flood.session.shut()


def test_priority_frames_for_streams_that_never_open_hold_no_memory(exchange: Exchange) -> None:
    """CVE-2019-9513: no priority tree is kept."""
    flood = Flood(exchange)
    flood.run(
        b"".join(priority(stream, max(0, stream - 2)) for stream in range(at, at + 200, 2))
        for at in range(1, 20_000, 200)
    )
    assert flood.session.n_open == 0
    assert flood.n_received < 1000
    flood.session.shut()


def test_window_updates_by_the_thousand_change_nothing(exchange: Exchange) -> None:
    flood = Flood(exchange)
    flood.feed(flood.peer.open(1))
    flood.run(window_update(1, 1) * 100 for _ in range(100))
    assert flood.n_received < 1000
    flood.session.shut()


def test_streams_that_are_opened_and_left_are_no_more_than_agreed(exchange: Exchange) -> None:
    flood = Flood(exchange)
    flood.run(flood.peer.open(stream) for stream in range(1, 4001, 2))
    assert flood.session.n_open <= 50
    flood.session.shut()


def test_refused_calls_that_go_on_sending_are_no_more_than_agreed(exchange: Exchange) -> None:
    flood = Flood(exchange)
    flood.feed(settings(ack=True))
    for stream in range(1, 2001, 2):
        if flood.feed(flood.peer.open(stream, STREAM_INFER) + data(stream, b"\7" + bytes(99))) != "ok":
            break
        assert flood.session.n_open <= 50
    flood.session.shut()


def test_a_flood_of_small_calls_that_are_never_read_is_bounded_by_the_streams(exchange: Exchange) -> None:
    """Windows of 0: answers can not leave, so calls stay open, so no new ones are taken."""
    exchange.hold = False
    flood = Flood(exchange, reads=False)
    flood.feed(settings((4, 0), ack=False))
    flood.run(flood.peer.call(stream, REQUEST) for stream in range(1, 4001, 2))
    assert flood.session.n_open <= 50
    assert exchange.used < 51 * 500
    flood.session.shut()


def test_a_header_that_costs_a_byte_and_stands_for_four_thousand_takes_bounded_time(exchange: Exchange) -> None:
    flood = Flood(exchange, reads=False)
    encoder_entry = b"\x40" + b"\1a" + b"\x7f\xa1\x1e" + b"b" * 4000  # length 127 + 3873, indexed
    flood.feed(frame(HEADERS, 4, 1, b"\x83\x86\x84" + encoder_entry))
    began = time.thread_time()
    flood.run(frame(HEADERS, 4, stream, b"\x83\x86\x84" + b"\xbe" * 16_000) for stream in range(3, 43, 2))
    assert time.thread_time() - began < 2
    flood.session.shut()
