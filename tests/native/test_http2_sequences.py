"""State x input: whatever a caller does, in whatever order, the session stays legal or ends.

Either way no outcome is lost and no byte is kept.
"""

from __future__ import annotations

import gc
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.native import counters
from tests.support import frames
from tests.support.exchange import CUTS, Exchange, infer_request
from tests.support.frames import (
    INFER,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    STREAM_INFER,
    compressed,
    data,
    frame,
    goaway,
    grpc_message,
    ping,
    priority,
    rst_stream,
    window_update,
)

GOOD = infer_request([1, 2])
UNARY, STREAMING = "/t/Unary", "/t/Streaming"

PATHS = st.sampled_from([INFER, INFER, STREAM_INFER, UNARY, STREAMING, "/nothing"])
MORE = st.sampled_from(
    [
        (),
        (),
        (("grpc-encoding", "gzip"),),
        (("grpc-encoding", "br"),),
        (("grpc-timeout", "5m"),),
        (("grpc-timeout", "x"),),
    ]
)
STUFF = st.sampled_from(
    [
        grpc_message(GOOD),
        grpc_message(GOOD) * 2,
        grpc_message(GOOD)[:9],
        grpc_message(GOOD)[9:],
        grpc_message(infer_request([3.0] * 3000)),
        compressed(GOOD, "gzip"),
        grpc_message(b"junk"),
        grpc_message(b""),
        b"\7",
        grpc_message(b"", length=2**31),
        b"",
        grpc_message(infer_request([13.0])),
    ]
)

WHICH = st.integers(0, 5)
"""Which of the streams opened so far, from the last one back."""

ENTRIES = [(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 70_000), (MAX_FRAME_SIZE, 20_000), (1, 0)]
HARMLESS = [ping(), ping(ack=True), priority(3), frame(77, 1, 3, b"?"), goaway()]
FORBIDDEN = [frame(9, 0, 1, b"\x82"), priority(1, 1), data(0), frame(5, 4, 1, bytes(4)), window_update(0, 0)]

KINDS = {
    "call": (9, st.tuples(PATHS, MORE, STUFF)),
    "open": (5, st.tuples(PATHS, MORE, st.booleans())),
    "data": (8, st.tuples(WHICH, STUFF, st.booleans(), st.sampled_from([None, None, 0, 7]))),
    "trailers": (1, st.tuples(WHICH, st.booleans())),
    "reset": (3, st.tuples(WHICH)),
    "window": (2, st.tuples(WHICH, st.sampled_from([1, 100, 2**16]))),
    "zero window": (1, st.tuples(WHICH)),
    "setting": (2, st.tuples(st.sampled_from(ENTRIES))),
    "bytes": (1, st.tuples(st.sampled_from(HARMLESS))),
    "break": (1, st.tuples(st.sampled_from(FORBIDDEN))),
    "drain": (1, st.tuples()),
    "run a batch": (4, st.tuples()),
    "handler sends": (2, st.tuples()),
    "handlers finish": (2, st.tuples()),
    "time": (2, st.tuples(st.sampled_from([1, 4000, 6000]))),
}  # fmt: skip
"""Kind of action -> how often, and its details."""

ACTIONS = st.lists(
    st.sampled_from([kind for kind, (weight, _) in KINDS.items() for _ in range(weight)]).flatmap(
        lambda kind: st.tuples(st.just(kind), KINDS[kind][1])
    ),
    max_size=25,
)


class Handler:
    def __init__(self, stream: Any, alive: list[Handler]) -> None:
        self.stream, self.alive, self.n_half_closed = stream, alive, 0
        alive.append(self)

    def on_message(self, message: bytes) -> None:
        assert self in self.alive, "told after the end"
        assert not self.n_half_closed, "a message after the half-close"

    def on_half_close(self) -> None:
        assert self in self.alive
        self.n_half_closed += 1
        assert self.n_half_closed == 1

    def on_cancel(self) -> None:
        assert self in self.alive, "cancelled twice, or after its own finish"
        self.alive.remove(self)

    def finish(self) -> None:
        self.alive.remove(self)
        self.stream.finish(0)


def run(arrays: list[Any]) -> list[Any]:
    if (arrays[0] == 13).any():
        raise ZeroDivisionError("unlucky")
    return [arrays[0] * 2]


class Script:
    """Carries out actions; knows which streams it has opened in order, as HTTP/2 wants them."""

    def __init__(self, exchange: Exchange, handlers: list[Handler]) -> None:
        self.exchange, self.peer, self.handlers = exchange, exchange.peer, handlers
        self.next = 1
        exchange.run()

    def act(self, kind: str, detail: tuple[Any, ...]) -> None:
        exchange, peer = self.exchange, self.peer
        if kind in ("data", "trailers", "reset", "window", "zero window"):
            if self.next == 1:
                return
            which, *rest = detail
            detail = (max(1, self.next - 2 - 2 * which), *rest)
        match kind, detail:
            case "call", (path, more, stuff):
                exchange.say(peer.open(self.next, path, *more), data(self.next, stuff, end=True))
                self.next += 2
            case "open", (path, more, end):
                exchange.say(peer.open(self.next, path, *more, end=end))
                self.next += 2
            case "data", (stream, stuff, end, padding):
                exchange.say(
                    *[data(stream, stuff[at : at + 16_000], padding=padding) for at in range(0, len(stuff), 16_000)]
                )
                exchange.say(data(stream, end=end))
            case "trailers", (stream, end):
                exchange.say(peer.headers(stream, [("x-trailer", "1")], end=end))
            case "reset", (stream,):
                exchange.say(rst_stream(stream))
            case "window", (stream, increment):
                exchange.say(peer.grant(stream, increment), peer.grant(0, increment))
            case "zero window", (stream,):
                exchange.say(window_update(stream, 0))
            case "setting", (entry,):
                exchange.run()  # a window can only be counted that has no DATA on its way
                exchange.run(peer.change(entry))
            case "bytes" | "break", (stuff,):
                exchange.say(stuff)
            case "drain", ():
                exchange.run()
                exchange.session.start_drain()
            case "run a batch", ():
                exchange.run()
                if exchange.batches:
                    exchange.finish()
            case "handler sends", ():
                exchange.run()
                for handler in self.handlers:
                    handler.stream.send(b"m" * 700)
            case "handlers finish", ():
                exchange.run()
                for handler in list(self.handlers):
                    handler.finish()
            case "time", (after_us,):
                exchange.run()
                exchange.turn(after_us)
            case _:
                raise AssertionError(kind)

    def is_over(self) -> bool:
        return "broken" in self.exchange.verdicts or bool(self.exchange.session.finished)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions=ACTIONS, cut=st.sampled_from(CUTS), wide=st.booleans(), budget=st.sampled_from([1 << 30, 13_000, 200]))
def test_any_sequence_of_actions_is_answered_legally_and_leaves_nothing(
    actions: list[tuple[Any, ...]], cut: str, wide: bool, budget: int
) -> None:
    before = counters.live()
    handlers: list[Handler] = []
    exchange = Exchange(
        cut,
        hold=True,
        wide=wide,
        max_in_flight_bytes=budget,
        max_stream_pending=2,
        max_continuations=100,
        unary={UNARY: lambda message: message},
        streaming={STREAMING: lambda stream: Handler(stream, handlers)},
    )
    lane = exchange.serve("m", [("x", "FP32", (-1, -1))], [("y", "FP32", (-1, -1))], run)
    with exchange:
        script = Script(exchange, handlers)
        for action in actions:
            script.act(*action)
            if script.is_over():
                break
        exchange.run()
        assert "not http2" not in exchange.verdicts
        over = script.is_over()
        if not over:  # let everything out, and the session must be as good as new
            script.act("handlers finish", ())
            exchange.release()
            peer = exchange.peer
            room = 2**31 - 2**30 - 70_000
            exchange.run(*[peer.grant(stream, room) for stream in peer.windows if peer.windows[stream] <= 2**30 - 1])
            over = script.is_over()
        if not over and not exchange.session.is_draining and not exchange.peer.goaways:
            fresh = max(script.next, 11)
            exchange.run(exchange.peer.headers(fresh, frames.request_fields("/nothing"), end=True))
            if not script.is_over():
                assert exchange[fresh].status == 12, "the session no longer answers"
        exchange.drop()
        while exchange.batches:
            exchange.finish()
        assert handlers == []
        for fault in exchange.faults:
            assert isinstance(fault, ZeroDivisionError)
            fault.__traceback__ = None
        exchange.faults.clear()
        counted = lane.statistics()
        n_outcomes = sum(counted["requests"].values()) + counted["cancelled"]
        assert exchange.plane.n_requests - exchange.plane.n_refused <= n_outcomes <= exchange.plane.n_requests
    lane = exchange = script = None  # type: ignore[assignment]
    if counters.live() != before:
        gc.collect()
        assert counters.live() == before


@settings(max_examples=100, deadline=None)
@given(
    data_=st.data(),
    cut=st.sampled_from(CUTS),
    stuffs=st.lists(STUFF, min_size=1, max_size=6),
)
def test_every_complete_call_of_an_honest_caller_gets_exactly_one_status(
    data_: st.DataObject, cut: str, stuffs: list[bytes]
) -> None:
    with Exchange(cut) as exchange:
        exchange.serve("m", [("x", "FP32", (-1, -1))], [("y", "FP32", (-1, -1))], run)
        for index, stuff in enumerate(stuffs):
            path = data_.draw(PATHS)
            exchange.say(exchange.peer.open(2 * index + 1, path), exchange.peer.body(2 * index + 1, stuff, size=5000))
        exchange.run()
        exchange.faults.clear()
        for index in range(len(stuffs)):
            answer = exchange[2 * index + 1]
            assert answer.is_ended
            assert answer.status is not None
        assert exchange.session.n_open == 0
