"""A client of frames against a data plane, with no socket, no loop and no clock.

What a test says is fed in the pieces that it wants.

`say` collects bytes, `run` feeds them cut as `cut` says ("whole", "bytes", "random") with a loop turn after every
piece, and reads what comes back. Batches run at once unless `hold`. Leaving the `with` block loses the connection and
asserts that nothing stays behind.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gateway import pb
from gateway.native.batch import Batch
from gateway.native.dataplane import DataPlane
from gateway.native.http2 import Session, SessionLimits
from gateway.native.lane import Lane
from gateway.native.routetable import RouteTable
from gateway.native.signature import Signature
from tests.support.frames import (
    ACK,
    DEFAULT_FRAME_BYTES,
    INFER,
    INITIAL_WINDOW_SIZE,
    SETTINGS,
    Answer,
    Peer,
    grpc_message,
    pieces,
    settings,
)

CUTS = ("whole", "bytes", "random")
FINE_BYTES = 3_000
"""So much of one run is fed byte by byte, at its head and at its tail; what lies between is cut at random places."""

Array = np.ndarray[Any, Any]
Spec = tuple[str, str, tuple[int, ...]]

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = range(6)
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 8, 12, 13, 14


def infer_request(values: Sequence[float] | Array, model: str = "m", request_id: str = "", name: str = "x") -> bytes:
    """A row of FP32 `values` for the model of `Exchange`."""
    array = np.asarray(values, np.float32).reshape(1, -1)
    message = pb.inference.ModelInferRequest(model_name=model, id=request_id)
    message.inputs.add(name=name, datatype="FP32", shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    return message.SerializeToString()


def infer_response(message: bytes) -> Any:
    return pb.inference.ModelInferResponse.FromString(message)


def stream_response(message: bytes) -> Any:
    return pb.inference.ModelStreamInferResponse.FromString(message)


def values_of(message: bytes) -> list[float]:
    """The first output of an answer as numbers."""
    return np.frombuffer(infer_response(message).raw_output_contents[0], np.float32).tolist()


class Exchange:
    """Model "m" answers y = 2 * x for an FP32 row of any width."""

    def __init__(
        self,
        cut: str = "whole",
        *,
        seed: int = 1,
        unary: dict[str, Callable[[bytes], bytes]] | None = None,
        streaming: dict[str, Callable[[Any], Any]] | None = None,
        max_in_flight_bytes: int = 1 << 30,
        wide: bool = True,
        hold: bool = False,
        policy: dict[str, Any] | None = None,
        **limits: int,
    ) -> None:
        self.cut, self.random, self.hold = cut, random.Random(seed), hold
        self.limits = SessionLimits(**limits)
        self.faults: list[BaseException] = []
        self.plane = DataPlane(self.limits, max_in_flight_bytes, unary or {}, streaming or {}, self.faults.append)
        self.now_us = 1_000_000
        self.batches: list[Batch] = []
        self.n_run = 0
        self.lanes: dict[str, Lane] = {}
        self.policy = {"max_batch_size": 8, "inline_below_us": 0, **(policy or {})}
        self.serve("m", [("x", "FP32", (-1, -1))], [("y", "FP32", (-1, -1))], lambda arrays: [arrays[0] * 2])
        self.session = Session(self.limits, self.plane.budget, self.plane.inbox, self.plane.dirty)
        self.peer = Peer()
        self.verdicts: list[str] = []
        self._said = bytearray(self.peer.preface(wide=wide))

    def serve(
        self, model: str, inputs: Sequence[Spec], outputs: Sequence[Spec], run: Any, batched: bool = True, **policy: Any
    ) -> Lane:
        """One more model."""
        signature = Signature(model, "1", inputs, outputs, batched)
        wishes = {**self.policy, **policy}
        lane = Lane(
            signature, run, self.batches.append, self.faults.append, self.plane.timers, self.plane.pending, **wishes
        )
        self.lanes[model] = lane
        self.plane.routes = RouteTable({name: {"": one, "1": one} for name, one in self.lanes.items()})
        return lane

    # --- the client

    def say(self, *stuff: bytes) -> None:
        """To be fed by the next `run`."""
        for part in stuff:
            self._said += part

    def run(self, *stuff: bytes) -> None:
        """Feed everything said; then one more turn."""
        self.say(*stuff)
        said, self._said = bytes(self._said), bytearray()
        for piece in self._pieces(said):
            self.verdicts.append(self.session.receive(piece, self.now_us))
            self.turn()
        self.turn()

    def _pieces(self, said: bytes) -> Any:
        n = len(said)
        if self.cut == "whole":
            return [said] if said else []
        if self.cut == "random":
            return pieces(said, (self.random.randrange(n + 1) for _ in range(min(n // 3, 200) + 2)))
        fine = range(n) if n <= 2 * FINE_BYTES else [*range(FINE_BYTES), *range(n - FINE_BYTES, n)]
        return pieces(said, [*fine, *(self.random.randrange(n + 1) for _ in range(50))])

    def upload(self, stream: int, stuff: bytes, end: bool = True, size: int = DEFAULT_FRAME_BYTES) -> int:
        """Sends as much as the server's windows allow; returns how much it took. Repeated `run`s return window."""
        sent = 0
        while sent < len(stuff):
            take = min(size, self.peer.room(stream), len(stuff) - sent)
            if take <= 0:
                before = self.peer.room(stream)
                self.run()
                if self.peer.room(stream) <= before:
                    break
                continue
            self.run(self.peer.part(stream, stuff[sent : sent + take], end and sent + take == len(stuff)))
            sent += take
        return sent

    def ask(self, message: bytes, path: str = INFER, *more: tuple[str, str], stream: int = 1) -> Answer:
        """A whole call, however long."""
        self.run()
        self.run(self.peer.open(stream, path, *more))
        body = grpc_message(message)
        assert self.upload(stream, body) == len(body)
        return self[stream]

    def __getitem__(self, stream: int) -> Answer:
        return self.peer.answers[stream]

    # --- the server

    def turn(self, after_us: int = 0) -> None:
        self.now_us += after_us
        self.plane.turn(self.now_us)
        while self.batches and not self.hold:
            self.finish()
        self.read()

    def finish(self, index: int = 0) -> None:
        """One submitted batch runs and is settled."""
        batch = self.batches.pop(index)
        self.n_run += 1
        batch.execute(self.lanes[batch.signature.model].runner)
        self.plane.settle(batch, self.now_us)
        self.plane.turn(self.now_us)

    def release(self) -> None:
        """Everything held runs."""
        self.hold = False
        self.turn()

    def read(self) -> None:
        """What the session wants to send reaches the client."""
        for one in self.peer.receive(self.session.to_send()):
            if one.kind == SETTINGS and not one.flags & ACK:
                self.say(settings(ack=True))
                self.peer.stream_room = self.peer.server_settings[INITIAL_WINDOW_SIZE]

    # --- the end

    @property
    def used(self) -> int:
        return int(self.plane.budget.used)

    def drop(self) -> None:
        """The connection is lost."""
        self.session.shut()
        self.plane.turn(self.now_us)

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.drop()
        if kind is not None:
            return
        self.hold = False
        while self.batches:
            self.finish()
        self.plane.turn(self.now_us)
        assert not self.faults, f"reported and not expected: {self.faults}"
        assert self.session.n_open == 0
        assert self.plane.inbox == []
        assert self.plane.pending == []
        if self.used:
            gc.collect()  # tracebacks hold what they pass
        assert self.used == 0, f"{self.used} bytes are still counted as in flight"
        assert len(self.plane.timers) == 0
        for lane in self.lanes.values():
            assert lane.is_idle
            lane.close()
            lane.release()

    def forget(self) -> None:
        """Let go of all that is native, where the exchange itself lives on: as a fixture's value it outlives the
        test.
        """
        self.lanes.clear()
        del self.plane, self.session, self.limits

    def expect_fault(self, kind: type[BaseException]) -> BaseException:
        """Takes the one reported failure."""
        assert [type(fault) for fault in self.faults] == [kind]
        return self.faults.pop()


def framed_requests(*messages: bytes) -> bytes:
    return b"".join(grpc_message(message) for message in messages)
