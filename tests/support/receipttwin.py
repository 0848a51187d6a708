"""Tokens of answers, written in plain Python by the layout in receipt.pxd: the native ones must be the same, bit for
bit; and tokens for tests that need many without a gateway.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.support.routetwin import sip_hash

KEY = bytes(range(16))
Prediction = tuple[int | str | None, float] | None


@dataclass(frozen=True)
class Token:
    id: bytes
    arrived_s: float
    model: str = "m"
    version: str = "1"
    arm: str = "stable"
    stage: int = 1
    weight: int = 10_000
    answered: str = ""
    unit: bytes | None = None
    n_rows: int = 1
    predictions: Sequence[Prediction] = ()

    def raw(self) -> bytes:
        """Without the tag; id has 8 bytes."""
        out = bytes([1 | (0x10 if self.unit else 0), 0]) + self.id + round(self.arrived_s * 1000).to_bytes(6, "little")
        out += (self.unit or b"") + named(self.model) + named(self.version) + named(self.arm)
        out += varint(self.stage) + varint(self.weight) + named(self.answered)
        out += varint(self.n_rows) + bytes([len(self.predictions)])
        return out + b"".join(map(told, self.predictions))

    def signed(self, key: bytes = KEY) -> str:
        raw = bytearray(self.raw())
        raw[1] = hashlib.sha256(key).digest()[0]
        halves = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
        tag = sip_hash(*halves, bytes(raw)).to_bytes(8, "little")
        return base64.urlsafe_b64encode(bytes(raw) + tag).decode().rstrip("=")


def token(number: int = 1, key: bytes = KEY, at: float | None = None, **fields: object) -> str:
    """Signed; `number` tells it from others."""
    found = Token(number.to_bytes(8, "little"), time.time() if at is None else at, **fields)  # type: ignore[arg-type]
    return found.signed(key)


def named(text: str) -> bytes:
    raw = text.encode()[:255]
    return bytes([len(raw)]) + raw


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def told(prediction: Prediction) -> bytes:
    if prediction is None:
        return b"\0"
    label, score = prediction
    number = struct.pack("<f", score)
    if label is None:
        return b"\2" + number
    if isinstance(label, str):
        return b"\3" + named(label) + number
    return b"\1" + varint((label << 1) ^ (label >> 63) if label >= 0 else (-label << 1) - 1) + number


def predicted(scores: np.ndarray, *, is_value: bool = False, threshold: float = 0.5) -> Prediction:
    """Of one row of scores, as receipt.pyx has it."""
    row = [float(value) for value in scores.ravel()]
    if is_value:
        return None, row[0]
    if len(row) == 1:
        if math.isnan(row[0]):
            return None
        label = int(row[0] >= threshold)
        sure = row[0] if label else 1.0 - row[0]
        return label, sure if 0.0 <= row[0] <= 1.0 else math.nan
    if math.isnan(sum(row)):
        return None
    best = max(row)
    is_probability = abs(sum(row) - 1.0) <= 0.01 and 0.0 <= best <= 1.0
    return row.index(best), best if is_probability else math.nan
