"""What is fuzzed. A target takes bytes and returns a short description of what came of them.

Any exception but its own is a finding.

The description steers the loop: an input that gives a new one is worth keeping and mutating further, in place of
branch coverage, which gcc's build of the native modules does not report.
"""

from __future__ import annotations

import gc
import re
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from gateway import pb
from gateway.native import codec, counters
from gateway.native.batch import Batch
from gateway.native.dataplane import DataPlane
from gateway.native.http2 import Session, SessionLimits
from gateway.native.jsonrequest import request_from_json
from gateway.native.lane import Lane
from gateway.native.refusal import Refusal
from gateway.native.routetable import RouteTable
from gateway.native.signature import Signature
from tests.support.frames import INFER, PREFACE, SERVICE, STREAM_INFER
from tests.support.jsonrequests import read_by_python

NUMBERS = re.compile(r"\d+|'[^']*'")


class Finding(AssertionError):
    """The target misbehaved."""


def demand(condition: object, what: str) -> None:
    if not condition:
        raise Finding(what)


# --- codec ----------------------------------------


def codec_parse(stuff: bytes) -> str:
    """parse beside protobuf's own parser; the differences are those of tests/native/test_codec_reading.py."""
    try:
        found: dict[str, Any] | None = codec.parse(stuff)
        verdict = ""
    except Refusal as refusal:
        found, verdict = None, NUMBERS.sub("#", refusal.text)
    try:
        message = pb.inference.ModelInferRequest.FromString(stuff)
    except DecodeError:
        has_overlong_tag = any(all(byte >= 0x80 for byte in stuff[at : at + 5]) for at in range(len(stuff) - 5))
        is_deep = stuff.count(b"\x4b") + stuff.count(b"\x0b") + stuff.count(b"\x13") > 80
        demand(found is None or has_overlong_tag or is_deep, "protobuf refuses it and the codec does not")
        return "refused " + verdict
    if found is None:
        demand("more than" in verdict, f"protobuf reads it and the codec does not: {verdict}")
        return verdict
    if any(unknown.field_number == 4 for part in (message, *message.inputs) for unknown in UnknownFieldSet(part)):
        return "entry aside"
    demand(found["model_name"] == message.model_name, "model_name")
    demand(found["model_version"] == message.model_version, "model_version")
    demand(found["id"] == message.id, "id")
    demand(found["raw_input_contents"] == list(message.raw_input_contents), "raw_input_contents")
    demand(found["outputs"] == [output.name for output in message.outputs], "outputs")
    demand(len(found["inputs"]) == len(message.inputs), "inputs")
    for one, tensor in zip(found["inputs"], message.inputs, strict=True):
        demand(one["name"] == tensor.name, "name")
        demand(one["datatype"] == tensor.datatype, "datatype")
        demand(one["shape"] == list(tensor.shape), "shape")
        demand(one["has_contents"] == tensor.HasField("contents"), "has_contents")
        demand(one["in_shared_memory"] == ("shared_memory_region" in tensor.parameters), "in_shared_memory")
    kinds = [len(getattr(message, name)) for name in ("inputs", "outputs", "raw_input_contents", "parameters")]
    fields = {field.name for tensor in message.inputs for field, _ in tensor.contents.ListFields()}
    return f"read {[min(n, 2) for n in kinds]} {sorted(fields)} {bool(found['priority'])} {bool(found['timeout_us'])}"


# --- session ----------------------------------------


class Echo:
    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def on_message(self, message: bytes) -> None:
        self.stream.send(message)

    def on_half_close(self) -> None:
        self.stream.finish()

    def on_cancel(self) -> None:
        pass


LIMITS = SessionLimits(
    max_message_bytes=1 << 20,
    max_header_list_bytes=4096,
    max_concurrent_streams=20,
    stream_window_bytes=65_535,
    connection_window_bytes=1 << 20,
    max_stream_pending=3,
)
INPUTS = [("x", "FP32", (-1, -1)), ("s", "BYTES", (-1, 1)), ("i", "INT8", (-1, 2))]


def session_receive(stuff: bytes) -> str:
    """Frames after a valid preface. The first byte says in how many pieces they arrive; then everything must be given
    back.
    """
    faults: list[BaseException] = []
    batches: list[Batch] = []
    unary = {SERVICE + "ServerLive": lambda message: message}
    plane = DataPlane(LIMITS, 1 << 21, unary, {"/t/Echo": Echo}, faults.append)
    lanes = {
        "m": Lane(
            Signature("m", "1", INPUTS[:1], [("y", *INPUTS[0][1:])], True),
            lambda arrays: arrays,
            batches.append, faults.append, plane.timers, plane.pending, max_batch_size=4, max_delay_us=500,
        ),
        "t": Lane(
            Signature("t", "1", INPUTS, INPUTS, True),
            lambda arrays: arrays,
            batches.append, faults.append, plane.timers, plane.pending, max_batch_size=2,
        ),
    }  # fmt: skip
    plane.routes = RouteTable({name: {"": lane, "1": lane} for name, lane in lanes.items()})
    session = Session(plane.limits, plane.budget, plane.inbox, plane.dirty)
    n_pieces, stuff = (stuff[0] % 8 + 1, stuff[1:]) if stuff else (1, b"")
    size = max(1, -(-len(stuff) // n_pieces))
    now_us, n_out, kinds, verdict = 1000, 0, set(), "ok"
    for piece in (PREFACE, *(stuff[at : at + size] for at in range(0, len(stuff), size))):
        now_us += 300
        verdict = session.receive(piece, now_us)
        plane.turn(now_us)
        while batches:
            batch = batches.pop()
            batch.execute(lanes[batch.signature.model].runner)
            plane.settle(batch, now_us)
            plane.turn(now_us)
        out = session.to_send()
        n_out += len(out)
        while out:
            kinds.add((out[3], out[4]))
            out = out[9 + int.from_bytes(out[:3]) :]
        if verdict != "ok" or session.finished:
            break
    demand(n_out < 1 << 24, f"{n_out} bytes of output for {len(stuff)} of input")
    n_open = session.n_open
    codes = {code for lane in lanes.values() for code in lane.statistics()["requests"]}
    session.shut()
    plane.turn(now_us)
    plane.turn(now_us + 10**9)
    while batches:
        batch = batches.pop()
        batch.execute(lanes[batch.signature.model].runner)
        plane.settle(batch, now_us)
    batch = None  # type: ignore[assignment]
    plane.turn(now_us + 2 * 10**9)
    demand(not faults, f"reported: {faults}")
    demand(session.n_open == 0, "calls stayed open")
    demand(plane.inbox == [] and plane.pending == [], "events were left")
    if plane.budget.used:
        gc.collect()
    demand(plane.budget.used == 0, f"{plane.budget.used} bytes stayed in flight")
    for lane in lanes.values():
        demand(lane.is_idle, "a lane is not idle")
        lane.close()
        lane.release()
    demand(len(plane.timers) == 0, "timers stayed")
    alive = counters.live()
    if alive:
        demand(not (alive["call"] or alive["request"]), f"native objects stayed: {alive}")
    counts = [min(n, 3) for n in (n_open, plane.n_requests, plane.n_refused)]
    return f"{verdict} {sorted(kinds)} {counts} {sorted(codes)}"


# --- REST ----------------------------------------


def json_request(stuff: bytes) -> str:
    """The native reader beside the Python one: it leaves a request to that, or reads the same."""
    found = request_from_json(stuff, "m", "")
    if found is None:
        return "left " + NUMBERS.sub("#", str(type(read_by_python(stuff, "m", ""))))
    demand((bytes(found[0]), found[1]) == read_by_python(stuff, "m", ""), "the two readers differ")
    return json_behaviour(found[0], found[1])


def json_behaviour(body: Any, name: str) -> str:
    message = codec.parse(body)
    tensors = [(one["datatype"], min(len(one["shape"]), 3), 0 in one["shape"]) for one in message["inputs"]]
    more = [min(len(message["outputs"]), 2), bool(message["priority"]), bool(message["timeout_us"]), bool(name)]
    return f"read {tensors[:2]} {more}"


TARGETS = {"codec": codec_parse, "session": session_receive, "json": json_request}
PATHS = [INFER, INFER, STREAM_INFER, SERVICE + "ServerLive", "/t/Echo", "/no/Method"]
