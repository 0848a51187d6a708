"""Flow control, both ways: an answer of two megabytes through any window.

And an upload that is larger than every window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.exchange import OK, Exchange, infer_request, values_of
from tests.support.frames import (
    FLOW_CONTROL_ERROR,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_FRAME_SIZE,
    PROTOCOL_ERROR,
    data,
    grpc_message,
    settings,
    window_update,
)

N = 2**19
"""Floats of an answer: two megabytes."""


def large(exchange: Exchange) -> None:
    """Serves, as model "m", N numbers for one."""

    def run(arrays: list[Any]) -> list[Any]:
        return [np.tile(np.arange(N, dtype=np.float32), (len(arrays[0]), 1))]

    exchange.serve("m", [("x", "FP32", (-1, -1))], [("y", "FP32", (-1, -1))], run)


def assert_large(exchange: Exchange, stream: int = 1) -> None:
    answer = exchange[stream]
    assert answer.status == OK
    [message] = answer.messages
    assert values_of(message) == list(range(N))


def test_a_large_answer_comes_whole_when_windows_are_wide(cut: str) -> None:
    with Exchange(cut) as exchange:
        large(exchange)
        exchange.run(exchange.peer.call(1, infer_request([1])))
        assert_large(exchange)
        assert exchange.used == 0


def test_a_large_answer_comes_whole_through_the_default_window(cut: str) -> None:
    with Exchange(cut, wide=False) as exchange:
        large(exchange)
        exchange.run(exchange.peer.call(1, infer_request([1])))
        n_rounds = 0
        while not exchange[1].is_over:
            before = len(exchange[1].body)
            assert exchange.peer.windows[0] == 0 or exchange.peer.windows[1] == 0, "it stopped with window left"
            exchange.run(exchange.peer.grant(1, 65_535), exchange.peer.grant(0, 65_535))
            assert 0 <= len(exchange[1].body) - before <= 65_535
            n_rounds += 1
        assert n_rounds > 30
        assert_large(exchange)


@pytest.mark.parametrize("of", ["stream", "connection"])
def test_a_window_of_one_byte_moves_one_byte_at_a_time(of: str) -> None:
    with Exchange(wide=False) as exchange:
        large(exchange)
        if of == "stream":
            exchange.run(
                exchange.peer.grant(0, LARGEST_WINDOW - 65_535), exchange.peer.change((INITIAL_WINDOW_SIZE, 1))
            )
            exchange.run(exchange.peer.call(1, infer_request([1])))
            begin = 1
        else:
            exchange.run(exchange.peer.change((INITIAL_WINDOW_SIZE, LARGEST_WINDOW)))
            exchange.run(exchange.peer.call(1, infer_request([1])))
            begin = 65_535
        assert len(exchange[1].body) == begin
        stream = 1 if of == "stream" else 0
        for n in range(1, 2000):
            exchange.run(exchange.peer.grant(stream, 1))
            assert len(exchange[1].body) == begin + n
        exchange.run(exchange.peer.grant(stream, N * 4 + 1000))
        assert_large(exchange)


def test_a_window_that_shrinks_below_zero_stops_the_answer_until_it_is_positive(cut: str) -> None:
    with Exchange(cut, wide=False) as exchange:
        large(exchange)
        exchange.run(exchange.peer.grant(0, 2**30), exchange.peer.change((INITIAL_WINDOW_SIZE, 50_000)))
        exchange.run(exchange.peer.call(1, infer_request([1])))
        assert len(exchange[1].body) == 50_000
        exchange.run(exchange.peer.change((INITIAL_WINDOW_SIZE, 10)))
        assert exchange.peer.windows[1] == 10 - 50_000
        exchange.run(exchange.peer.grant(1, 49_990))
        assert len(exchange[1].body) == 50_000
        exchange.run(exchange.peer.grant(1, 1))
        assert len(exchange[1].body) == 50_001
        exchange.run(exchange.peer.change((INITIAL_WINDOW_SIZE, LARGEST_WINDOW - 2**17)))
        assert_large(exchange)


def test_a_changed_initial_window_counts_for_open_and_for_new_streams(cut: str) -> None:
    with Exchange(cut, wide=False) as exchange:
        large(exchange)
        exchange.run(exchange.peer.grant(0, 2**30), exchange.peer.change((INITIAL_WINDOW_SIZE, 0)))
        exchange.run(exchange.peer.call(1, infer_request([1])))
        assert exchange[1].order == "H"
        exchange.run(exchange.peer.change((INITIAL_WINDOW_SIZE, 7)), exchange.peer.call(3, infer_request([1])))
        assert [len(exchange[stream].body) for stream in (1, 3)] == [7, 7]
        exchange.run(exchange.peer.change((INITIAL_WINDOW_SIZE, 2**22)))
        assert_large(exchange, 1)
        assert_large(exchange, 3)


@pytest.mark.parametrize("size", [16_384, 20_000, 2**24 - 1])
def test_frames_are_no_larger_than_the_caller_allows(cut: str, size: int) -> None:
    with Exchange(cut) as exchange:
        large(exchange)
        exchange.run(exchange.peer.change((MAX_FRAME_SIZE, size)), exchange.peer.call(1, infer_request([1])))
        assert_large(exchange)  # Peer checks the size of every frame


@pytest.mark.parametrize("high_bytes", [1, 20_000, 100_000])
def test_what_one_pull_takes_stays_near_its_limit_however_large_the_answer(high_bytes: int) -> None:
    """Else a slow reader with a wide window would have its whole answer copied into the write buffer."""
    with Exchange() as exchange:
        large(exchange)
        exchange.run()
        exchange.session.receive(exchange.peer.call(1, infer_request([1])), 0)
        exchange.plane.turn(0)
        exchange.finish()
        pulls = 0
        while got := exchange.session.to_send(high_bytes):
            assert len(got) < high_bytes + 2 * (16_384 + 9)
            exchange.peer.receive(got)
            pulls += 1
        assert pulls >= N * 4 // (high_bytes + 2 * 16_393)
        assert_large(exchange)


def test_calls_share_the_connection_window_and_each_gets_some(cut: str) -> None:
    with Exchange(cut, wide=False) as exchange:
        large(exchange)
        exchange.run(exchange.peer.change((INITIAL_WINDOW_SIZE, 2**22)))
        exchange.run(*[exchange.peer.call(stream, infer_request([1])) for stream in (1, 3, 5)])
        for _ in range(40):
            exchange.run(exchange.peer.grant(0, 20_000))
        assert all(len(exchange[stream].body) > 50_000 for stream in (1, 3, 5))
        exchange.run(exchange.peer.grant(0, 2**23))
        for stream in (1, 3, 5):
            assert_large(exchange, stream)


def test_an_upload_larger_than_every_window_arrives_as_window_is_returned(cut: str) -> None:
    values = [float(index % 100) for index in range(200_000)]
    with Exchange(cut, stream_window_bytes=65_535, connection_window_bytes=65_535) as exchange:
        answer = exchange.ask(infer_request(values))
        assert answer.status == OK
        assert values_of(answer.messages[0]) == [2 * value for value in values]
        assert exchange.peer.granted[1] >= 800_000 - 65_535
        assert exchange.peer.granted[0] >= 800_000 - 65_535


def test_window_of_the_connection_is_returned_for_calls_that_were_refused_or_reset(cut: str) -> None:
    with Exchange(cut, stream_window_bytes=65_535, connection_window_bytes=65_535) as exchange:
        exchange.run()
        for stream in range(1, 60, 2):
            exchange.run(exchange.peer.open(stream), exchange.peer.part(stream, b"\7" + bytes(9_999)))
            assert exchange[stream].is_over
        assert exchange.peer.room(61) > 30_000, "the connection's window leaked away"


def test_bytes_over_the_stream_window_reset_the_stream_or_end_the_session() -> None:
    with Exchange(
        stream_window_bytes=65_535, connection_window_bytes=1 << 20, max_stream_pending=1, hold=True
    ) as exchange:
        exchange.run()
        exchange.run(exchange.peer.open(1, "/inference.GRPCInferenceService/ModelStreamInfer"))
        exchange.run(data(1, grpc_message(infer_request([1]))))
        for _ in range(5):
            exchange.run(data(1, grpc_message(b"", length=10**6)[:5] + bytes(16_000)))
        assert exchange[1].reset == FLOW_CONTROL_ERROR or exchange.peer.goaways[0].code == FLOW_CONTROL_ERROR


@pytest.mark.parametrize(
    ("bytes_said", "code"),
    [
        (window_update(0, 0), PROTOCOL_ERROR),
        (window_update(0, LARGEST_WINDOW), FLOW_CONTROL_ERROR),
        (settings((INITIAL_WINDOW_SIZE, 2**31)), FLOW_CONTROL_ERROR),
        (settings((MAX_FRAME_SIZE, 100)), PROTOCOL_ERROR),
    ],
    ids=["update of 0", "overflow", "initial window 2^31", "frame size 100"],
)
def test_window_rules_broken_on_the_connection_end_the_session(cut: str, bytes_said: bytes, code: int) -> None:
    with Exchange(cut) as exchange:
        exchange.run(bytes_said)
        assert [one.code for one in exchange.peer.goaways] == [code]
        assert exchange.session.finished
