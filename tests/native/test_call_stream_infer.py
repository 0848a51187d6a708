"""ModelStreamInfer: answers in the order of the requests, failures in-band.

A caller that sends faster than it is served is held back by its own window.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from tests.support.exchange import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    Exchange,
    framed_requests,
    infer_request,
    stream_response,
)
from tests.support.frames import STREAM_INFER, Answer, data, grpc_message


def heard(answer: Answer) -> list[Any]:
    """The first value of each answer, or the text of the in-band error."""
    found: list[Any] = []
    for message in map(stream_response, answer.messages):
        if message.error_message:
            assert not message.infer_response.outputs  # it has the request's id, and nothing else
            found.append(message.error_message)
        else:
            found.append(np.frombuffer(message.infer_response.raw_output_contents[0], np.float32)[0].item())
    return found


def numbered(*numbers: float, width: int = 1) -> bytes:
    return framed_requests(*[infer_request([number] * width, request_id=str(number)) for number in numbers])


def test_every_message_is_answered_and_the_end_of_the_requests_ends_the_call(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, STREAM_INFER), exchange.peer.body(1, numbered(1, 2, 3), size=50))
        assert heard(exchange[1]) == [2, 4, 6]
        assert [stream_response(message).infer_response.id for message in exchange[1].messages] == ["1", "2", "3"]
        assert exchange[1].blocks[1] == {"grpc-status": "0"}


def test_an_answer_comes_while_the_caller_may_still_send(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, STREAM_INFER))
        for number in range(1, 5):
            exchange.run(data(1, numbered(number)))
            assert heard(exchange[1]) == [2 * n for n in range(1, number + 1)]
            assert exchange[1].status is None
        exchange.run(data(1, end=True))
        assert exchange[1].status == OK


def test_a_call_without_messages_ends_with_status_zero(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, STREAM_INFER), data(1, end=True))
        exchange.run(exchange.peer.open(3, STREAM_INFER, end=True))
        assert [(exchange[stream].status, exchange[stream].messages) for stream in (1, 3)] == [(OK, []), (OK, [])]


def test_answers_keep_the_order_of_their_requests_though_batches_finish_otherwise(cut: str) -> None:
    with Exchange(cut, hold=True, policy={"instances": 4, "max_batch_size": 1}) as exchange:
        exchange.run(exchange.peer.open(1, STREAM_INFER), data(1, numbered(1, 2, 3, 4)))
        assert len(exchange.batches) == 4
        for index, expected in ((3, []), (1, []), (0, [2, 4]), (0, [2, 4, 6, 8])):
            exchange.finish(index)
            exchange.read()
            assert heard(exchange[1]) == expected
        exchange.run(data(1, end=True))
        assert exchange[1].status == OK


def test_a_request_that_is_refused_is_answered_in_band_at_its_place(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        bad = framed_requests(infer_request([1], model="nothing"), b"junk", infer_request([1], name="z"))
        exchange.run(exchange.peer.open(1, STREAM_INFER), data(1, numbered(1) + bad + numbered(2), end=True))
        assert exchange[1].messages == []
        exchange.release()
        first, no_model, junk, no_input, last = heard(exchange[1])
        assert (first, last) == (2, 4)
        assert "'nothing'" in no_model
        assert "malformed" in junk
        assert "'z'" in no_input
        assert exchange[1].status == OK


@pytest.mark.parametrize("n", [1, 2, 5])
def test_refusals_alone_are_all_answered_before_the_call_ends(cut: str, n: int) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, STREAM_INFER), data(1, grpc_message(b"junk") * n, end=True))
        assert len(heard(exchange[1])) == n
        assert exchange[1].status == OK


def test_a_model_that_fails_is_an_error_in_band_and_the_stream_goes_on(cut: str) -> None:
    def run(arrays: list[Any]) -> list[Any]:
        if (arrays[0] == 13).any():
            raise ZeroDivisionError("unlucky")
        return [arrays[0] * 2]

    with Exchange(cut) as exchange:
        exchange.serve("m", [("x", "FP32", (-1, -1))], [("y", "FP32", (-1, -1))], run)
        exchange.run(exchange.peer.open(1, STREAM_INFER), data(1, numbered(12, 13, 14), end=True))
        first, second, third = heard(exchange[1])
        assert (first, third) == (24, 28)
        assert "failed" in second
        exchange.expect_fault(ZeroDivisionError)
        assert exchange[1].status == OK


@pytest.mark.parametrize(
    ("stuff", "code"),
    [
        (b"\7\0\0\0\0", INTERNAL),
        (grpc_message(b"", length=2**31), RESOURCE_EXHAUSTED),
        (grpc_message(b"x", flag=1), INTERNAL),
    ],
)
def test_a_framing_error_is_the_status_after_the_answers_that_were_sent(cut: str, stuff: bytes, code: int) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, STREAM_INFER), data(1, numbered(1, 2)))
        exchange.run(data(1, stuff))
        assert heard(exchange[1]) == [2, 4]
        assert exchange[1].status == code


def test_the_end_inside_a_message_is_the_status(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, STREAM_INFER), data(1, numbered(1)))
        exchange.run(data(1, numbered(2)[:-1], end=True))
        assert heard(exchange[1]) == [2]
        assert exchange[1].status == INTERNAL


def test_a_deadline_ends_the_whole_call_and_drops_what_is_left(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(exchange.peer.open(1, STREAM_INFER, ("grpc-timeout", "10m")), data(1, numbered(1)))
        exchange.run(data(1, numbered(2)))
        exchange.turn(10_000)
        assert exchange[1].status == DEADLINE_EXCEEDED
        exchange.release()
        assert exchange[1].messages == [] or len(heard(exchange[1])) == 2
        assert exchange.n_run == 1, "what was queued must not run"


def test_window_is_withheld_from_a_stream_with_too_many_waiting_and_returned_when_they_are_answered(cut: str) -> None:
    one = numbered(5, width=2000)
    with Exchange(
        cut, hold=True, max_stream_pending=4, stream_window_bytes=65_535, max_in_flight_bytes=10**6
    ) as exchange:
        exchange.run()
        exchange.run(exchange.peer.open(1, STREAM_INFER))
        sent = exchange.upload(1, one * 30, end=False)
        assert sent < len(one) * 30, "the window was never withheld"
        assert exchange.plane.n_requests < 30
        assert exchange.used <= 65_535 + 5 * len(one)
        assert exchange.peer.room(1) == 0
        while exchange.batches:
            exchange.finish()
            exchange.run()
        assert exchange.peer.room(1) > 0, "the window did not come back"
        exchange.hold = False
        rest = (one * 30)[sent:]
        assert exchange.upload(1, rest) == len(rest)
        assert heard(exchange[1]) == [10] * 30
        assert exchange[1].status == OK


def test_another_call_is_served_while_one_has_its_window_withheld() -> None:
    one = numbered(5, width=2000)
    with Exchange(
        hold=True, max_stream_pending=2, stream_window_bytes=65_535, connection_window_bytes=65_535
    ) as exchange:
        exchange.run()
        exchange.run(exchange.peer.open(1, STREAM_INFER))
        exchange.upload(1, one * 30, end=False)
        assert exchange.peer.room(1) == 0
        exchange.run(exchange.peer.open(3, STREAM_INFER))
        assert exchange.peer.room(3) > 0
        body = numbered(1)
        assert exchange.upload(3, body) == len(body)
        exchange.release()
        assert heard(exchange[3]) == [2]


def test_a_caller_that_does_not_read_holds_back_its_own_requests(cut: str) -> None:
    """Answers that cannot leave count as waiting, so memory stays bounded by the windows of one call."""
    one = numbered(5, width=2000)
    with Exchange(cut, wide=False, max_stream_pending=4, stream_window_bytes=65_535) as exchange:
        exchange.run()
        exchange.run(exchange.peer.change((4, 0)), exchange.peer.open(1, STREAM_INFER))
        sent = exchange.upload(1, one * 60, end=False)
        assert sent <= 2 * 65_535
        assert exchange.used < 4 * 65_535
        exchange.run(exchange.peer.grant(1, 2**30), exchange.peer.grant(0, 2**30))
        rest = (one * 60)[sent:]
        assert exchange.upload(1, rest) == len(rest)
        assert heard(exchange[1]) == [10] * 60


def test_a_hundred_thousand_empty_messages_take_time_in_proportion() -> None:
    """Five bytes each: a megabyte of window holds 200 000, and a list that loses its head costs a move of all the
    rest.
    """

    def seconds(n: int) -> float:
        with Exchange(stream_window_bytes=1 << 20) as exchange:
            exchange.run()
            exchange.run(exchange.peer.open(1, STREAM_INFER))
            stuff = grpc_message(b"") * n
            exchange.say(*[exchange.peer.part(1, stuff[at : at + 16_384]) for at in range(0, len(stuff), 16_384)])
            began = time.thread_time()  # not what others take of the processor
            exchange.session.receive(bytes(exchange._said), exchange.now_us)
            exchange.plane.turn(exchange.now_us)
            sent = exchange.session.to_send()
            took = time.thread_time() - began
            exchange._said.clear()
            assert len(sent) > n
            return took

    seconds(100)
    few, many = min(seconds(10_000) for _ in range(2)), seconds(100_000)
    assert many < 40 * few + 0.2, f"{few:.3f} s for 10 000, {many:.3f} s for 100 000"
