"""The mutation loop.

Inputs that behaved in a new way are kept and mutated on. Deterministic for a seed and a corpus.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import hpack

from gateway import pb
from tests.fuzz.targets import PATHS, TARGETS
from tests.support import frames
from tests.support.jsonrequests import some_text
from tests.support.protowire import OddEncoder, mutated

CORPUS = Path(__file__).parent / "corpus"


def kept(target: str) -> list[bytes]:
    """The corpus on disk, in the order of names."""
    return [file.read_bytes() for file in sorted((CORPUS / target).iterdir())]


# --- making ----------------------------------------


def some_request(dice: random.Random) -> bytes:
    """A request that is mostly right for the models of targets.session_receive."""
    message = pb.inference.ModelInferRequest(
        model_name=dice.choice(["m", "m", "t", "", "?"]), id=dice.choice(["", "7"])
    )
    rows = dice.choice([0, 1, 1, 2, 3, 5])
    for name, datatype, columns, raw in (
        ("x", "FP32", 2, b"\0\0\x80\x3f" * 2 * rows),
        ("s", "BYTES", 1, b"\2\0\0\0ab" * rows),
        ("i", "INT8", 2, b"\1\xff" * rows),
    )[: 3 if message.model_name == "t" else 1]:
        tensor = message.inputs.add(name=name, datatype=datatype, shape=[rows, columns])
        if dice.random() < 0.5:
            message.raw_input_contents.append(raw)
        elif datatype == "FP32":
            tensor.contents.fp32_contents.extend([1.0] * columns * rows)
        elif datatype == "BYTES":
            tensor.contents.bytes_contents.extend([b"ab"] * rows)
        else:
            tensor.contents.int_contents.extend([1, -1] * rows)
    if dice.random() < 0.3:
        message.parameters[dice.choice(["priority", "timeout"])].int64_param = dice.choice([0, 1, 100, -1, 2**63 - 1])
    if dice.random() < 0.3:
        message.outputs.add(name=dice.choice(["y", "s", "?"]))
    return OddEncoder(dice, dice.choice([0, 0.3])).encode(message)


def some_frames(dice: random.Random) -> bytes:
    """A client's frames, cut into pieces as the first byte says."""
    encoder, said, opened = hpack.Encoder(), [frames.settings((4, dice.choice([0, 1, 65_535, 2**31 - 1])))], []
    for _ in range(dice.randrange(1, 9)):
        kind = dice.randrange(12)
        stream = dice.choice(opened) if opened else 1
        if kind < 5:
            stream = opened[-1] + 2 if opened else 1
            opened.append(stream)
            fields = frames.request_fields(dice.choice(PATHS))
            if dice.random() < 0.3:
                fields += [
                    dice.choice(
                        [
                            ("grpc-timeout", "1m"),
                            ("grpc-encoding", "gzip"),
                            ("grpc-encoding", "deflate"),
                            ("x", "y" * 999),
                        ]
                    )
                ]
            said.append(frames.frame(frames.HEADERS, 4, stream, encoder.encode(fields)))
            if dice.random() < 0.8:
                message = some_request(dice)
                packed = dice.choice(
                    [frames.grpc_message(message), frames.grpc_message(message) * 2, frames.compressed(message, "gzip")]
                )
                at = dice.randrange(len(packed) + 1)
                said += [
                    frames.data(stream, packed[:at], padding=dice.choice([None, 3])),
                    frames.data(stream, packed[at:], dice.random() < 0.8),
                ]
        elif kind == 5:
            said.append(frames.rst_stream(stream, dice.choice([0, 8, 99])))
        elif kind == 6:
            said.append(frames.window_update(dice.choice([0, stream]), dice.choice([0, 1, 1000, 2**31 - 1])))
        elif kind == 7:
            said.append(frames.settings(dice.choice([(1, 0), (3, 0), (4, 0), (4, 2**31 - 1), (5, 16_384), (6, 10)])))
        elif kind == 8:
            said.append(frames.ping(ack=dice.random() < 0.5))
        elif kind == 9:
            said.append(
                dice.choice(
                    [frames.priority(stream, 1), frames.goaway(), frames.frame(dice.randrange(256), 0, stream, b"abc")]
                )
            )
        elif kind == 10:
            said.append(frames.frame(frames.HEADERS, dice.choice([4, 5, 0, 1]), stream, encoder.encode([("a", "b")])))
        else:
            said.append(frames.data(stream, dice.randbytes(dice.randrange(9)), dice.random() < 0.5))
    if dice.random() < 0.2:
        dice.shuffle(said)
    return bytes((dice.randrange(256),)) + b"".join(said)


def mutated_frames(stuff: bytes, dice: random.Random, n: int) -> bytes:
    """Accidents to whole frames, and inside payloads with the lengths kept right, so that they are not all refused as
    framing errors.
    """
    parts, at = [], 1
    while len(stuff) - at >= 9 and len(stuff) - at - 9 >= (size := int.from_bytes(stuff[at : at + 3])):
        parts.append(
            [stuff[at + 3], stuff[at + 4], int.from_bytes(stuff[at + 5 : at + 9]), stuff[at + 9 : at + 9 + size]]
        )
        at += 9 + size
    for _ in range(n):
        if not parts:
            break
        part = dice.choice(parts)
        match dice.randrange(8):
            case 0:
                part[0] = dice.randrange(11)
            case 1:
                part[1] ^= 1 << dice.randrange(8)
            case 2:
                part[2] = dice.choice([0, 1, 2, 3, 5, 2**31 - 1, part[2] + 2])
            case 3:
                parts.remove(part)
            case 4:
                parts.insert(dice.randrange(len(parts) + 1), list(part))
            case 5:
                end = dice.randrange(len(part[3]) + 1)
                parts.insert(parts.index(part) + 1, [part[0], part[1], part[2], part[3][end:]])
                part[3] = part[3][:end]
            case _:
                part[3] = mutated(part[3], dice)
    said = (
        b"".join(frames.frame(kind, flags, stream % 2**32, payload) for kind, flags, stream, payload in parts)
        + stuff[at:]
    )
    return stuff[:1] + (mutated(said, dice) if dice.random() < 0.1 else said)


def mutated_text(stuff: bytes, dice: random.Random, n: int) -> bytes:
    """Accidents to single characters, mostly ones that JSON knows."""
    text = bytearray(stuff)
    for _ in range(n):
        at = dice.randrange(len(text) + 1)
        text[at : at + dice.choice([0, 0, 1, 1, 5])] = dice.choice(
            [
                b"",
                b"0",
                b"1",
                b"-",
                b".",
                b"e",
                b",",
                b":",
                b"[",
                b"]",
                b"{",
                b"}",
                b'"',
                b" ",
                b"\\",
                b"\0",
                b"\xc3\xa9",
            ]
        )
    return bytes(text)


MAKERS: dict[str, Callable[[random.Random], bytes]] = {
    "codec": some_request,
    "session": some_frames,
    "json": some_text,
}
MUTATORS: dict[str, Callable[[bytes, random.Random, int], bytes]] = {
    "codec": mutated,
    "session": mutated_frames,
    "json": mutated_text,
}


# --- the loop ----------------------------------------


@dataclass
class Run:
    target: str
    n_runs: int = 0
    behaviours: dict[str, bytes] = field(default_factory=dict)
    """What was seen -> the shortest input that showed it."""
    findings: list[tuple[bytes, BaseException]] = field(default_factory=list)

    def feed(self, stuff: bytes) -> bool:
        """Whether it behaved in a new way."""
        self.n_runs += 1
        try:
            behaviour = TARGETS[self.target](stuff)
        except Exception as error:
            self.findings.append((stuff, error))
            return False
        known = self.behaviours.get(behaviour)
        if known is None or len(stuff) < len(known):
            self.behaviours[behaviour] = stuff
        return known is None


def fuzz(target: str, seed: int, *, n: int | None = None, seconds: float | None = None, max_findings: int = 5) -> Run:
    """From the corpus on disk, `n` more inputs or for so many seconds."""
    run, dice = Run(target), random.Random(seed)
    for stuff in kept(target):
        run.feed(stuff)
    pool = list(run.behaviours.values())
    deadline_s = None if seconds is None else time.monotonic() + seconds
    while (n is None or run.n_runs < n) and (deadline_s is None or time.monotonic() < deadline_s):
        if not pool or dice.random() < 0.2:
            stuff = MAKERS[target](dice)
        else:
            stuff = MUTATORS[target](dice.choice(pool), dice, dice.choice([1, 1, 2, 4, 8]))
        if run.feed(stuff[: 1 << 16]):
            pool.append(stuff)
        if len(run.findings) >= max_findings:
            break
    return run
