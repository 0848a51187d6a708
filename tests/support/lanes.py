"""Lanes under a clock that the test holds: data plane and HTTP/2 session without a loop, real frames, executors a list.

`send` feeds frames, `turn` is one loop turn, `batches` holds what was submitted and `finish` runs one of them. Leaving
the `with` block closes the connection and asserts that nothing is left: no timer, queue, native object, unread fault.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import hpack
import numpy as np

from gateway import pb
from gateway.native.batch import Batch
from gateway.native.counters import is_debug, live
from gateway.native.dataplane import DataPlane
from gateway.native.http2 import Session, SessionLimits
from gateway.native.lane import Lane
from gateway.native.refusal import Refusal
from gateway.native.routetable import RouteTable
from gateway.native.signature import Signature

Array = np.ndarray[Any, Any]
Spec = tuple[str, str, tuple[int, ...]]

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 3, 4, 5
RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE = 8, 13, 14

NUMPY = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
    "BYTES": np.object_,
}  # fmt: skip
DATATYPES = {np.dtype(kind): name for name, kind in NUMPY.items()}

DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
MAX_FRAME_BYTES = 16_384
WIDE = 1 << 30
INFER = "/inference.GRPCInferenceService/ModelInfer"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def literal(name: str, value: str) -> bytes:
    """An HPACK field that neither side has to remember; lengths below 127."""
    return b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


def raw(array: Array) -> bytes:
    """A tensor as raw_input_contents carries it."""
    if array.dtype != object:
        return array.tobytes()
    texts = [text.encode() if isinstance(text, str) else text for text in array.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def unraw(data: bytes, datatype: str, shape: Sequence[int]) -> Array:
    if datatype != "BYTES":
        return np.frombuffer(data, NUMPY[datatype]).reshape(shape)
    texts, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        texts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    cells = np.empty(len(texts), object)
    cells[:] = texts
    return cells.reshape(shape)


@dataclass(eq=False)
class Sent:
    """One call, and what came back for it."""

    stream: int
    code: int | None = None  # gRPC status; None: no answer yet
    text: str = ""
    body: bytes = b""
    n_ends: int = 0  # END_STREAM or RST_STREAM seen
    is_cancelled: bool = False

    @property
    def is_answered(self) -> bool:
        return self.code is not None

    @property
    def response(self) -> Any:
        assert self.code == OK, f"got {self.code} {self.text!r}"
        assert self.body[:1] == b"\0"
        assert len(self.body) == 5 + int.from_bytes(self.body[1:5])
        message = pb.inference.ModelInferResponse()
        message.ParseFromString(self.body[5:])
        return message

    @property
    def outputs(self) -> dict[str, Array]:
        response = self.response
        return {
            spec.name: unraw(data, spec.datatype, list(spec.shape))
            for spec, data in zip(response.outputs, response.raw_output_contents, strict=True)
        }

    @property
    def rows(self) -> list[float]:
        """The first output of the answer, flat."""
        return next(iter(self.outputs.values())).ravel().tolist()


@dataclass
class Model:
    """Answers y = 2 * x for every input, notes what it was run on, and fails on rows that hold a number of `poison`."""

    poison: set[float] = field(default_factory=set)
    error: Callable[[], Exception] = lambda: RuntimeError("poisoned")
    runs: list[list[float]] = field(default_factory=list)  # first input's first column

    def __call__(self, inputs: list[Array]) -> list[Array]:
        column = [float(row.ravel()[0]) if row.size else 0.0 for row in inputs[0]]
        self.runs.append(column)
        if self.poison.intersection(column):
            raise self.error()
        return [array * 2 for array in inputs]


X: Spec = ("x", "FP32", (-1, 1))
Y: Spec = ("y", "FP32", (-1, 1))


class Harness:
    """With `streams` calls open at once at most. Time starts at one second and moves only when told."""

    def __init__(self, *, max_in_flight_bytes: int = WIDE, streams: int = 10_000) -> None:
        if is_debug():
            gc.collect()
        self._alive_before = live()
        limits = SessionLimits(
            max_concurrent_streams=streams, stream_window_bytes=WIDE, connection_window_bytes=WIDE, reset_burst=100_000
        )
        self.faults: list[BaseException] = []
        self._had_faults = False
        self.plane = DataPlane(limits, max_in_flight_bytes, {}, {}, self._report)
        self.now_us = 1_000_000
        self.batches: list[Batch] = []
        self.lanes: dict[str, Lane] = {}
        self.calls: dict[int, Sent] = {}
        self._next_stream = 1
        self._decoder = hpack.Decoder()
        self._unread = b""
        self.session = Session(limits, self.plane.budget, self.plane.inbox, self.plane.dirty)
        window = (4).to_bytes(2) + WIDE.to_bytes(4)
        self._feed(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS, 0, 0, window)
            + frame(WINDOW_UPDATE, 0, 0, (WIDE - 65_535).to_bytes(4))
        )
        self.read()
        self._feed(frame(SETTINGS, ACK, 0))  # from here on its wide windows hold

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.shut()
        if kind is not None:
            return
        assert not self.faults, f"unexpected faults: {self.faults}"
        for batch in self.batches:  # an executor ends what it was given, whoever is gone
            batch.execute(self.lanes[self.model_of(batch)].runner)
            self.plane.settle(batch, self.now_us)
            del batch
        self.batches.clear()
        self.faults.clear()
        for lane in self.lanes.values():
            counts = lane.statistics()
            assert (counts["queued"], counts["running"]) == (0, 0)
            assert (lane.queued_rows, lane.queued_bytes, lane.n_queued, lane.n_running) == (0, 0, 0, 0)
            assert counts["batches"] == sum(counts["releases"].values())
            lane.close()
            lane.release()
        assert len(self.plane.timers) == 0
        if self._had_faults:  # tracebacks reach our own frames, and with them the batch that holds the exception
            gc.collect()
        assert self.plane.budget.used == 0
        for call in self.calls.values():
            assert call.n_ends <= 1
        self.lanes.clear()
        del self.plane, self.session
        if is_debug():
            gc.collect()
        assert live() == self._alive_before

    def _report(self, error: BaseException) -> None:
        self._had_faults = True
        self.faults.append(error)

    def shut(self) -> None:
        """The connection is lost: every open call is cancelled."""
        self.session.shut()
        self.plane.inbox.clear()

    def expect_faults(self, *kinds: type[BaseException]) -> list[BaseException]:
        """Takes the reported faults; they must be of these kinds, in order."""
        faults, self.faults[:] = list(self.faults), []
        assert [type(fault) for fault in faults] == list(kinds)
        return faults

    # --- lanes

    def lane(
        self,
        run: Callable[[list[Array]], list[Array]] | None = None,
        *,
        model: str = "m",
        version: str = "1",
        inputs: Sequence[Spec] = (X,),
        outputs: Sequence[Spec] | None = None,
        batched: bool = True,
        submit: Callable[[Batch], object] | None = None,
        report: Callable[[BaseException], object] | None = None,
        **policy: Any,
    ) -> Lane:
        """A served version of `model`; outputs are the inputs' unless given. Nothing runs inline unless asked for. One
        other than version 1 is known to `lanes` as model/version, and to no route.
        """
        if outputs is None:
            outputs = [(f"y{name[1:]}" if name[0] == "x" else f"{name}_out", *rest) for name, *rest in inputs]  # type: ignore[misc]
        policy = {"max_batch_size": 8, "inline_below_us": 0, **policy}
        signature = Signature(model, version, inputs, outputs, batched)
        lane = Lane(
            signature,
            run or Model(),
            submit or self.batches.append,
            report or self._report,
            self.plane.timers,
            self.plane.pending,
            **policy,
        )
        self.lanes[model if version == "1" else f"{model}/{version}"] = lane
        served = {name: one for name, one in self.lanes.items() if "/" not in name}
        self.plane.routes = RouteTable({name: {"": one, "1": one} for name, one in served.items()})
        return lane

    @staticmethod
    def model_of(batch: Batch) -> str:
        signature = batch.signature
        return signature.model if signature.version == "1" else f"{signature.model}/{signature.version}"

    # --- requests

    def request(
        self,
        *arrays: Array | Sequence[float] | float,
        model: str = "m",
        outputs: Sequence[str] = (),
        request_id: str = "",
        timeout_us: int = 0,
        priority: int = 0,
        names: Sequence[str] | None = None,
        shapes: Sequence[Sequence[int]] | None = None,
    ) -> Any:
        """A ModelInferRequest; a number or a list of numbers is a column of FP32 rows."""
        message = pb.inference.ModelInferRequest(model_name=model, id=request_id)
        signature_names = names or (["x"] if len(arrays) == 1 else [f"x{i}" for i in range(len(arrays))])
        for position, (name, given) in enumerate(zip(signature_names, arrays, strict=True)):
            array = given if isinstance(given, np.ndarray) else np.array(given, np.float32).reshape(-1, 1)
            shape = shapes[position] if shapes else array.shape
            tensor = message.inputs.add(name=name, datatype=DATATYPES[array.dtype])
            tensor.shape.extend(shape)
            message.raw_input_contents.append(raw(array))
        for name in outputs:
            message.outputs.add(name=name)
        if timeout_us:
            message.parameters["timeout"].int64_param = timeout_us
        if priority:
            message.parameters["priority"].int64_param = priority
        return message

    def send(
        self,
        *arrays: Any,
        grpc_timeout: str = "",
        message: Any = None,
        metadata: Iterable[tuple[str, str]] = (),
        between: Callable[[], object] | None = None,
        first_bytes: int = MAX_FRAME_BYTES,
        **wishes: Any,
    ) -> Sent:
        """Feeds one complete ModelInfer call; the next turn() admits it and forms batches. `between` is called when the
        headers are in and the message is not; the message's first frame has `first_bytes`.
        """
        if message is None:
            message = self.request(*arrays, **wishes)
        body = message.SerializeToString()
        body = b"\0" + len(body).to_bytes(4) + body
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        fields = {
            ":method": "POST", ":scheme": "http", ":path": INFER, ":authority": "test",
            "content-type": "application/grpc", "te": "trailers",
        }  # fmt: skip
        if grpc_timeout:
            fields["grpc-timeout"] = grpc_timeout
        block = b"".join(literal(*field) for field in (*fields.items(), *metadata))
        frames = [frame(HEADERS, END_HEADERS, stream, block)]
        starts = [0, *range(first_bytes, len(body), MAX_FRAME_BYTES), len(body)]
        pieces = [body[start:end] for start, end in pairwise(starts)]
        frames += [frame(DATA, 0, stream, piece) for piece in pieces[:-1]]
        frames.append(frame(DATA, END_STREAM, stream, pieces[-1]))
        call = self.calls[stream] = Sent(stream)
        if between is not None:
            self._feed(frames.pop(0))
            between()
        self._feed(b"".join(frames))
        return call

    def cancel(self, call: Sent) -> None:
        """RST_STREAM(CANCEL)."""
        call.is_cancelled = True
        self._feed(frame(RST_STREAM, 0, call.stream, (8).to_bytes(4)))

    def _feed(self, data: bytes) -> None:
        assert self.session.receive(data, self.now_us) == "ok"

    # --- time and executors

    def turn(self, after_us: int = 0) -> None:
        """Time passes; what was sent is admitted, timers fire, batches are formed."""
        self.now_us += after_us
        self.plane.turn(self.now_us)
        self.read()

    def finish(self, index: int = 0) -> Batch:
        """One submitted batch runs, and its members are settled."""
        batch = self.batches.pop(index)
        batch.execute(self.lanes[self.model_of(batch)].runner)
        return self.settle(batch)

    def settle(self, batch: Batch) -> Batch:
        self.plane.settle(batch, self.now_us)
        self.turn()
        return batch

    def finish_all(self) -> int:
        """Until nothing is left to run; returns how many batches ran."""
        n = 0
        while self.batches:
            self.finish()
            n += 1
        return n

    # --- answers

    def read(self) -> None:
        """Takes what the session wants to send."""
        self._unread += self.session.to_send()
        self.plane.dirty.clear()
        while len(self._unread) >= 9:
            size = int.from_bytes(self._unread[:3])
            if len(self._unread) < 9 + size:
                return
            kind, flags, stream = self._unread[3], self._unread[4], int.from_bytes(self._unread[5:9])
            payload, self._unread = self._unread[9 : 9 + size], self._unread[9 + size :]
            self._on_frame(kind, flags, stream, payload)

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert kind != GOAWAY, payload
        if stream == 0:
            return
        call = self.calls[stream]
        if kind == HEADERS:
            assert flags & END_HEADERS
            assert not flags & PADDED
            fields = dict(self._decoder.decode(payload))
            if "grpc-status" in fields:
                assert call.code is None, "two statuses"
                call.code = int(fields["grpc-status"])
                call.text = fields.get("grpc-message", "")
        elif kind == DATA:
            assert not flags & PADDED
            call.body += payload
        elif kind == RST_STREAM:
            call.n_ends += 1
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            call.n_ends += 1


def refused(function: Callable[..., object], *arguments: Any) -> Refusal:
    """The Refusal that a call raises."""
    try:
        function(*arguments)
    except Refusal as refusal:
        return refusal
    raise AssertionError("not refused")
