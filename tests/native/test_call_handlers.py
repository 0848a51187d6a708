"""The slow path: what a Python handler sees of a call, in which order, and what becomes of its mistakes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import NotFound
from tests.support.exchange import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    NOT_FOUND,
    OK,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    Exchange,
)
from tests.support.frames import Answer, data, grpc_message, rst_stream

UNARY, STREAMING = "/t/Unary", "/t/Streaming"


class Recorder:
    """Notes what it is told. `on` are reactions: event -> function of the handler."""

    def __init__(self, stream: Any, told: list[Any], on: dict[str, Callable[[Recorder], object]]) -> None:
        self.stream, self.told, self.on = stream, told, on
        self.note("open", stream.path)

    def note(self, event: str, *detail: Any) -> None:
        self.told.append((event, *detail) if detail else event)
        if event in self.on:
            self.on[event](self)

    def on_message(self, message: bytes) -> None:
        self.note("message", message)

    def on_half_close(self) -> None:
        self.note("half-close")

    def on_cancel(self) -> None:
        self.note("cancel")


def recording(cut: str = "whole", **on: Callable[[Recorder], object]) -> tuple[Exchange, list[Any]]:
    told: list[Any] = []
    reactions = {name.replace("_", "-"): reaction for name, reaction in on.items()}
    return Exchange(cut, streaming={STREAMING: lambda stream: Recorder(stream, told, reactions)}), told


BEGUN = ("open", STREAMING)


# --- unary ----------------------------------------


def test_a_unary_handler_gets_the_message_and_its_result_is_the_answer(cut: str) -> None:
    with Exchange(cut, unary={UNARY: lambda message: message * 2}) as exchange:
        answer = exchange.ask(b"ab", UNARY)
        assert (answer.status, answer.messages) == (OK, [b"abab"])


@pytest.mark.parametrize("size", [0, 448, 449, 70_000])
def test_messages_of_every_size_go_both_ways(size: int) -> None:
    with Exchange(unary={UNARY: lambda message: message[::-1]}) as exchange:
        message = bytes(index % 251 for index in range(size))
        assert exchange.ask(message, UNARY).messages == [message[::-1]]


@pytest.mark.parametrize("n", [0, 2, 3])
def test_a_unary_handler_is_called_for_exactly_one_message(cut: str, n: int) -> None:
    called: list[bytes] = []
    with Exchange(cut, unary={UNARY: lambda message: called.append(message) or b""}) as exchange:
        exchange.run(exchange.peer.open(1, UNARY), data(1, grpc_message(b"x") * n, end=True))
        assert exchange[1].status == UNIMPLEMENTED
        assert str(n) in exchange[1].text
        assert called == []


def test_a_unary_handler_is_not_called_before_the_end_of_the_request(cut: str) -> None:
    called: list[bytes] = []
    with Exchange(cut, unary={UNARY: lambda message: called.append(message) or b"y"}) as exchange:
        exchange.run(exchange.peer.open(1, UNARY), data(1, grpc_message(b"x")))
        assert called == []
        exchange.run(data(1, end=True))
        assert called == [b"x"]
        assert exchange[1].messages == [b"y"]


def test_a_unary_call_that_is_reset_first_is_never_handled(cut: str) -> None:
    called: list[bytes] = []
    with Exchange(cut, unary={UNARY: lambda message: called.append(message) or b"y"}) as exchange:
        exchange.run(exchange.peer.open(1, UNARY), data(1, grpc_message(b"x")), rst_stream(1))
        assert called == []


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (NotFound("model 'a' is not here"), NOT_FOUND, "model 'a' is not here"),
        (ZeroDivisionError("internal detail"), INTERNAL, "the gateway failed on this call"),
    ],
)
def test_an_exception_of_a_unary_handler_is_a_status_and_strange_ones_are_reported(
    cut: str, error: Exception, code: int, text: str
) -> None:
    def fail(message: bytes) -> bytes:
        raise error

    with Exchange(cut, unary={UNARY: fail}) as exchange:
        answer = exchange.ask(b"x", UNARY)
        assert (answer.status, answer.text, answer.is_trailers_only) == (code, text, True)
        if code == INTERNAL:
            assert exchange.expect_fault(ZeroDivisionError) is error
        error.__traceback__ = None


# --- streaming ----------------------------------------


def test_a_streaming_handler_is_told_everything_in_order(cut: str) -> None:
    exchange, told = recording(cut, half_close=lambda handler: handler.stream.finish())
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING))
        assert told == [BEGUN]
        exchange.run(data(1, grpc_message(b"a") + grpc_message(b"")), data(1, grpc_message(b"c")), data(1, end=True))
        assert told == [BEGUN, ("message", b"a"), ("message", b""), ("message", b"c"), "half-close"]
        assert exchange[1].status == OK


def test_everything_in_one_read_is_told_in_order() -> None:
    exchange, told = recording(half_close=lambda handler: handler.stream.finish())
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING), data(1, grpc_message(b"a") + grpc_message(b"b"), end=True))
        assert told == [BEGUN, ("message", b"a"), ("message", b"b"), "half-close"]


def test_a_handler_may_answer_at_any_time_and_the_answer_keeps_its_order(cut: str) -> None:
    def echo(handler: Recorder) -> None:
        handler.stream.send(handler.told[-1][1])

    exchange, told = recording(
        cut,
        open=lambda handler: handler.stream.send(b"hello"),
        message=echo,
        half_close=lambda handler: (handler.stream.send(b"bye"), handler.stream.finish()),
    )
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING))
        assert exchange[1].messages == [b"hello"]
        exchange.run(data(1, grpc_message(b"1")), data(1, grpc_message(b"2")))
        assert exchange[1].messages == [b"hello", b"1", b"2"]
        assert exchange[1].status is None
        exchange.run(data(1, end=True))
        assert exchange[1].messages == [b"hello", b"1", b"2", b"bye"]
        assert (exchange[1].status, len(told)) == (OK, 4)


def test_messages_sent_outside_of_any_event_leave_with_the_next_turn() -> None:
    streams: list[Any] = []
    exchange, _ = recording(open=lambda handler: streams.append(handler.stream))
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING))
        streams[0].send(b"later")
        exchange.read()
        assert exchange[1].messages == [b"later"]
        streams[0].finish(5, "gone")
        exchange.read()
        assert (exchange[1].status, exchange[1].text) == (5, "gone")
        exchange.run(rst_stream(1))


def test_nothing_is_told_after_the_handler_has_finished(cut: str) -> None:
    exchange, told = recording(cut, message=lambda handler: handler.stream.finish())
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING), data(1, grpc_message(b"a")))
        assert exchange[1].status == OK
        exchange.run(data(1, grpc_message(b"b")), data(1, end=True))
        assert told == [BEGUN, ("message", b"a")]


def test_send_and_finish_after_the_end_do_nothing(cut: str) -> None:
    streams: list[Any] = []
    exchange, _ = recording(cut, open=lambda handler: streams.append(handler.stream))
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING), exchange.peer.open(3, STREAMING), data(1, end=True))
        finished, _reset = streams
        assert finished.is_active
        finished.finish(0)
        exchange.run(rst_stream(3))
        for stream in streams:
            assert not stream.is_active
            stream.send(b"late")
            stream.finish(3, "late")
        exchange.turn()
        assert (exchange[1].status, exchange[1].messages) == (OK, [])
        assert exchange[3].order == ""
        assert exchange.used == 0


@pytest.mark.parametrize("ended", [False, True])
def test_a_reset_is_told_once_as_cancel(cut: str, ended: bool) -> None:
    exchange, told = recording(cut)
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING), data(1, grpc_message(b"a"), end=ended))
        exchange.run(rst_stream(1))
        assert told == [BEGUN, ("message", b"a"), *(["half-close"] if ended else []), "cancel"]


def test_a_lost_connection_is_told_as_cancel(cut: str) -> None:
    exchange, told = recording(cut)
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING), exchange.peer.open(3, STREAMING))
        exchange.drop()
        assert told == [BEGUN, BEGUN, "cancel", "cancel"]


def test_a_deadline_is_told_as_cancel_and_ends_the_call(cut: str) -> None:
    exchange, told = recording(cut)
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING, ("grpc-timeout", "10m")))
        exchange.turn(10_000)
        exchange.turn()
        assert exchange[1].status == DEADLINE_EXCEEDED
        exchange.run(data(1, end=True))
        assert told == [BEGUN, "cancel"]


@pytest.mark.parametrize(
    ("bytes_said", "ended", "code"),
    [
        (grpc_message(b"x", flag=7), False, INTERNAL),
        (grpc_message(b"x", flag=1), False, INTERNAL),
        (grpc_message(b"", length=2**30), False, RESOURCE_EXHAUSTED),
        (grpc_message(b"xyz")[:-1], True, INTERNAL),
    ],
    ids=["flag", "not compressed", "too large", "cut"],
)
def test_a_call_that_is_refused_in_the_middle_is_told_as_cancel(
    cut: str, bytes_said: bytes, ended: bool, code: int
) -> None:
    """A handler that is not told would keep its subscription for ever."""
    exchange, told = recording(cut)
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING), data(1, grpc_message(b"a")))
        exchange.run(data(1, bytes_said, end=ended))
        exchange.turn()
        assert exchange[1].status == code
        assert told == [BEGUN, ("message", b"a"), "cancel"]


def test_a_call_refused_in_its_first_read_is_never_opened() -> None:
    exchange, told = recording()
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING), data(1, grpc_message(b"x", flag=7)))
        assert exchange[1].status == INTERNAL
        assert told == []


@pytest.mark.parametrize("event", ["open", "message", "half-close"])
def test_an_exception_of_a_streaming_handler_ends_its_call_alone(cut: str, event: str) -> None:
    def fail(handler: Recorder) -> None:
        raise ZeroDivisionError("internal detail")

    exchange, _ = recording(cut, **{event.replace("-", "_"): fail})
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING), data(1, grpc_message(b"a"), end=True))
        assert (exchange[1].status, exchange[1].text) == (INTERNAL, "the gateway failed on this call")
        exchange.expect_fault(ZeroDivisionError)
        exchange.run(exchange.peer.open(3, "/other"))
        assert exchange[3].status == UNIMPLEMENTED


def test_an_error_with_a_code_raised_by_a_streaming_handler_is_the_status(cut: str) -> None:
    def refuse(handler: Recorder) -> None:
        raise NotFound("no such service")

    exchange, _ = recording(cut, message=refuse)
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING), data(1, grpc_message(b"a"), end=True))
        assert (exchange[1].status, exchange[1].text) == (NOT_FOUND, "no such service")


def test_a_handler_may_finish_while_it_is_opened(cut: str) -> None:
    exchange, told = recording(cut, open=lambda handler: handler.stream.finish(NOT_FOUND, "closed today"))
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING), data(1, grpc_message(b"a"), end=True))
        assert (exchange[1].status, exchange[1].text) == (NOT_FOUND, "closed today")
        assert told == [BEGUN]


@pytest.mark.parametrize("way", ["finish", "finish at once", "reset", "lost", "refused"])
def test_a_handler_is_let_go_when_its_call_is_over(way: str) -> None:
    """Handler and call refer to each other; the call takes no part in garbage collection."""
    alive: list[weakref.ref[Recorder]] = []

    def opened(handler: Recorder) -> None:
        alive.append(weakref.ref(handler))
        if way == "finish at once":
            handler.stream.finish()

    exchange, _ = recording(open=opened, half_close=lambda handler: handler.stream.finish())
    with exchange:
        exchange.run(exchange.peer.open(1, STREAMING))
        if way == "reset":
            exchange.run(rst_stream(1))
        elif way == "refused":
            exchange.run(data(1, b"\7\0\0\0\0"))
        elif way == "lost":
            exchange.drop()
        else:
            exchange.run(data(1, end=True))
        exchange.turn()
        gc.collect()
        assert [ref() for ref in alive] == [None]


def test_two_answers_of_one_handler_larger_than_the_window_keep_their_order(cut: str) -> None:
    exchange, _ = recording(
        cut,
        half_close=lambda handler: (
            [handler.stream.send(bytes([n]) * 3000) for n in range(5)],
            handler.stream.finish(),
        ),
    )
    with exchange:
        exchange.run(exchange.peer.change((4, 1000)), exchange.peer.open(1, STREAMING, end=True))
        answer: Answer = exchange[1]
        assert len(answer.body) == 1000
        for _ in range(20):
            exchange.run(exchange.peer.grant(1, 777))
        assert [message[:1] for message in answer.messages] == [bytes([n]) for n in range(5)]
        assert answer.status == OK
