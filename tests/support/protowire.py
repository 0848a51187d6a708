"""Protobuf's wire format as nobody writes it but everybody must read it: a second encoder.

It takes every liberty that is legal.

Fields in any order, repeated numbers packed, unpacked or in several packs, singular fields said twice (the last one
counts), submessages in pieces that merge, map entries with the value first, keys said twice, unknown fields and whole
groups in between, varints with idle bytes.
"""

from __future__ import annotations

import random
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
_VARINTS = {Field.TYPE_BOOL, Field.TYPE_INT32, Field.TYPE_INT64, Field.TYPE_UINT32, Field.TYPE_UINT64}


def varint(value: int, idle: int = 0) -> bytes:
    """`idle` bytes more than needed."""
    value &= 2**64 - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(min(idle, 10 - len(out))):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def delimited(number: int, payload: bytes) -> bytes:
    return tag(number, BYTES) + varint(len(payload)) + payload


class OddEncoder:
    def __init__(self, dice: random.Random, oddity: float = 0.4) -> None:
        self.dice, self.oddity = dice, oddity

    def encode(self, message: Any) -> bytes:
        return b"".join(self.pieces(message))

    def pieces(self, message: Any) -> list[bytes]:
        """Fields in an order that means the same."""
        queues = [self._field(field, value) for field, value in message.ListFields()]
        for _ in range(3):
            if self._odd():
                queues.append([self._unknown()])
        queues = [queue for queue in queues if queue]
        merged = []
        while queues:
            queue = self.dice.choice(queues) if self._odd() else queues[0]
            merged.append(queue.pop(0))
            queues = [queue for queue in queues if queue]
        return merged

    def _odd(self) -> bool:
        return self.dice.random() < self.oddity

    def _varint(self, value: int, limit: int = 10) -> bytes:
        plain = varint(value)
        return varint(value, self.dice.randrange(limit - len(plain) + 1)) if self._odd() else plain

    def _delimited(self, number: int, payload: bytes) -> bytes:
        return tag(number, BYTES) + self._varint(len(payload), limit=5) + payload

    def _field(self, field: Any, value: Any) -> list[bytes]:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return [part for key in value for part in self._entries(field, key, value[key])]
        if field.is_repeated:
            if field.message_type is not None:
                return [self._delimited(field.number, self.encode(one)) for one in value]
            if field.type in (Field.TYPE_STRING, Field.TYPE_BYTES):
                return [self._scalar(field, one) for one in value]
            return self._numbers(field, list(value))
        if field.message_type is not None:
            return self._message(field.number, self.pieces(value))
        said = [self._scalar(field, value)]
        if self._odd():  # said before, and overruled
            said.insert(0, self._scalar(field, self._decoy(field)))
        if field.containing_oneof is not None and self._odd():
            other = self.dice.choice(field.containing_oneof.fields)
            said.insert(0, self._scalar(other, self._decoy(other)))
        return said

    def _message(self, number: int, parts: list[bytes]) -> list[bytes]:
        if not self._odd():
            return [self._delimited(number, b"".join(parts))]
        at = self.dice.randrange(len(parts) + 1)
        return [self._delimited(number, b"".join(half)) for half in (parts[:at], parts[at:])]

    def _entries(self, field: Any, key: str, value: Any) -> list[bytes]:
        said = []
        if self._odd():
            said.append(
                self._delimited(field.number, delimited(1, key.encode()) + delimited(2, tag(1, VARINT) + b"\1"))
            )
        parts = [self._delimited(1, key.encode()), *self._message(2, self.pieces(value))]
        if self._odd():
            parts.append(parts.pop(0))  # value before key
        return [*said, self._delimited(field.number, b"".join(parts))]

    def _numbers(self, field: Any, values: list[Any]) -> list[bytes]:
        if not self._odd():
            return [self._delimited(field.number, b"".join(self._bare(field, value) for value in values))]
        said = []
        while values:
            take = self.dice.randrange(len(values) + 1)
            run, values = values[:take], values[take:]
            if self._odd():
                said += [self._scalar(field, value) for value in run]
            else:
                said.append(self._delimited(field.number, b"".join(self._bare(field, value) for value in run)))
        return said

    def _scalar(self, field: Any, value: Any) -> bytes:
        if field.type == Field.TYPE_STRING:
            return self._delimited(field.number, value.encode())
        if field.type == Field.TYPE_BYTES:
            return self._delimited(field.number, value)
        kind = {Field.TYPE_FLOAT: FIXED32, Field.TYPE_DOUBLE: FIXED64}.get(field.type, VARINT)
        return tag(field.number, kind) + self._bare(field, value)

    def _bare(self, field: Any, value: Any) -> bytes:
        if field.type == Field.TYPE_FLOAT:
            return struct.pack("<f", value)
        if field.type == Field.TYPE_DOUBLE:
            return struct.pack("<d", value)
        assert field.type in _VARINTS
        return self._varint(int(value))

    def _decoy(self, field: Any) -> Any:
        return {Field.TYPE_STRING: "decoy", Field.TYPE_BYTES: b"\xff", Field.TYPE_BOOL: True}.get(field.type, 77)

    def _unknown(self, depth: int = 0) -> bytes:
        number = self.dice.choice([1000, 99, 2**29 - 1, 16, 15])
        kind = self.dice.randrange(5 if depth < 4 else 4)
        if kind == 0:
            return tag(number, VARINT) + self._varint(self.dice.getrandbits(64))
        if kind == 1:
            return tag(number, FIXED64) + self.dice.randbytes(8)
        if kind == 2:
            return self._delimited(number, self.dice.randbytes(self.dice.randrange(9)))
        if kind == 3:
            return tag(number, FIXED32) + self.dice.randbytes(4)
        inside = b"".join(self._unknown(depth + 1) for _ in range(self.dice.randrange(3)))
        return tag(number, GROUP) + inside + tag(number, END_GROUP)


def mutated(stuff: bytes, dice: random.Random, n: int = 1) -> bytes:
    """`n` small accidents: a flipped bit, a byte lost, doubled, replaced or moved, a cut, a piece said twice."""
    out = bytearray(stuff)
    for _ in range(n):
        at = dice.randrange(len(out) + 1)
        match dice.randrange(8):
            case 0 if out:
                out[at % len(out)] ^= 1 << dice.randrange(8)
            case 1 if out:
                out[at % len(out)] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            case 2:
                del out[at : at + dice.randrange(1, 5)]
            case 3:
                out[at:at] = dice.randbytes(dice.randrange(1, 4))
            case 4:
                del out[at:]
            case 5:
                end = min(len(out), at + dice.randrange(1, 20))
                out[at:at] = out[at:end]
            case 6 if out:
                out[at % len(out)] = (out[at % len(out)] + dice.choice((1, -1))) % 256
            case 7:
                out[at:at] = dice.choice((b"\x80" * 10, b"\xff" * 9 + b"\1", b"\x0b", b"\x0c", b"\xed\xa0\x80"))
    return bytes(out)
