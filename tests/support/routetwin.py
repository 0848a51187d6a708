"""How a request is routed, slowly: the twin of gateway.native.plan, sticky and dice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway import pb

M64 = 2**64 - 1


def mix(x: int) -> int:
    """splitmix64's finalizer."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M64
    return x ^ (x >> 31)


class Dice:
    """The sequence after gateway.native.dice.seed(seed)."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def roll(self, below: int) -> int:
        while True:
            self._state = (self._state + 0x9E3779B97F4A7C15) & M64
            product = mix(self._state) * below
            if product & M64 >= 2**64 % below:
                return product >> 64


def sip_hash(k0: int, k1: int, text: bytes) -> int:
    """SipHash-2-4, as its authors wrote it down."""
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turned(x: int, by: int) -> int:
        return ((x << by) | (x >> (64 - by))) & M64

    def rounds(n: int) -> None:
        for _ in range(n):
            v[0] = (v[0] + v[1]) & M64
            v[1] = turned(v[1], 13) ^ v[0]
            v[0] = turned(v[0], 32)
            v[2] = (v[2] + v[3]) & M64
            v[3] = turned(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & M64
            v[3] = turned(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & M64
            v[1] = turned(v[1], 17) ^ v[2]
            v[2] = turned(v[2], 32)

    end = len(text) % 256 << 56
    padded = text + bytes(-len(text) % 8) if len(text) % 8 else text + bytes(8)
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        if at + 8 == len(padded):
            word |= end
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def key_of(salt: bytes, key: bytes) -> int:
    return sip_hash(sip_hash(0, 0, salt), sip_hash(0, 1, salt), key)


@dataclass
class Side:
    version: str
    share: int


Split = Sequence[Side]


@dataclass
class TwinRule:
    is_parameter: bool
    name: str
    is_prefix: bool
    values: Sequence[str]
    split: Split


@dataclass
class Twin:
    """One model's plan; `choose` gives the index of a rule (-1: the default) and of the side in its split."""

    split: Split
    rules: Sequence[TwinRule] = ()
    sticky: tuple[bool, str] | None = None
    salt: bytes = b""
    unkeyed: int = field(default=0, init=False)

    def choose(self, headers: Mapping[bytes, bytes], message: Any, dice: Dice) -> tuple[int, int]:
        index, split = -1, self.split
        for at, rule in enumerate(self.rules):
            value = value_of(rule.is_parameter, rule.name, headers, message)
            if value is None:
                continue
            texts = [text.encode() for text in rule.values]
            if any(value.startswith(text) for text in texts) if rule.is_prefix else value in texts:
                index, split = at, rule.split
                break
        if len(split) == 1:
            return index, 0
        key = value_of(*self.sticky, headers, message) if self.sticky else None
        if self.sticky and not key:
            self.unkeyed += 1
        return index, self.by_key(split, key) if key else self.at_random(split, dice)

    def by_key(self, split: Split, key: bytes) -> int:
        hashed = key_of(self.salt, key)
        scores, seen = {}, {}
        for at, side in enumerate(split):
            nth = seen[side.version] = seen.get(side.version, -1) + 1
            own = sip_hash(
                sip_hash(0, 0, self.salt), sip_hash(0, 1, self.salt), side.version.encode() + b"\0" + str(nth).encode()
            )
            if side.share:
                u = ((mix(hashed ^ own) >> 12) + 0.5) / 2**52
                scores[at] = -math.log(u) / side.share
        return min(scores, key=lambda at: (scores[at], at))

    @staticmethod
    def at_random(split: Split, dice: Dice) -> int:
        at = dice.roll(10_000)
        for index, side in enumerate(split):
            if at < side.share:
                return index
            at -= side.share
        raise AssertionError("the shares do not add up")


def value_of(is_parameter: bool, name: str, headers: Mapping[bytes, bytes], message: Any) -> bytes | None:
    if not is_parameter:
        return headers.get(name.encode())
    if name not in message.parameters:
        return None
    parameter = message.parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    if kind in (None, "double_param"):
        return None
    value = getattr(parameter, kind)
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode()


def request(model: str = "m", **parameters: Any) -> Any:
    """A ModelInferRequest with parameters of the types of their values."""
    message = pb.inference.ModelInferRequest(model_name=model)
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
        setattr(message.parameters[name], kind, value)
    return message
