"""The audit log as a chain: each entry's hash covers the entry and the hash before it.

With a key the hash is an HMAC: who can write the table but has not the key can make no entry that holds. A head
(count and hash) noted outside of the table finds what a chain alone cannot: a tail that was cut off. Pure; no I/O.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidArgument

PLAIN = "sha256"
KEYED = "hmac-sha256"


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as it lies in the table."""

    seq: int
    at_us: int
    actor: str
    action: str
    subject: str
    reason: str
    before: str
    after: str
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The chain up to here: how many entries, and the last one's hash ("" when there is none)."""

    count: int
    hash: str

    def __str__(self) -> str:
        return f"{self.count}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Of "17:sha256:ab...", as it is printed, logged and noted. InvalidArgument for anything else."""
        count, colon, digest = text.strip().partition(":")
        is_number = count.isascii() and count.isdigit() and len(count) < 19
        if not (colon and is_number and bool(int(count)) == bool(digest)):
            raise InvalidArgument(
                f"head: got {text.strip()[:100]!r}, expected COUNT:HASH as `gateway audit verify` prints"
            )
        return cls(int(count), digest)


EMPTY = Head(0, "")


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """`n` entries were read; `fault` says what is wrong, at the first place where something is; `head` is COUNT:HASH
    of what lies in the table, to be noted elsewhere.
    """

    ok: bool
    n: int
    fault: str | None
    head: str


def canonical(value: Any) -> str:
    """JSON with one spelling for equal values, in ASCII. InvalidArgument for what JSON cannot say."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"document: not JSON: {error}") from None


def digest(row: Row, previous: str, key: bytes | None) -> str:
    """The hash of `row` behind `previous`, with its method and, for a keyed one, which key it was."""
    fields = [row.seq, row.at_us, row.actor, row.action, row.subject, row.reason, row.before, row.after, previous]
    text = canonical(fields).encode()
    if key is None:
        return f"{PLAIN}:{hashlib.sha256(text).hexdigest()}"
    return f"{KEYED}:{key_id(key)}:{hmac.digest(key, text, 'sha256').hex()}"


@functools.cache
def key_id(key: bytes) -> str:
    """Tells keys apart without telling them."""
    return hashlib.sha256(b"gateway audit key\0" + key).hexdigest()[:8]


class Verifier:
    """Takes the rows in order of seq, then says what is wrong. `noted` are heads known from elsewhere, by the name of
    the place.
    """

    def __init__(self, key: bytes | None, noted: Mapping[str, Head]) -> None:
        self._key = key
        self._noted = noted
        self._head = EMPTY
        self._fault: str | None = None
        self._is_keyed = False

    @property
    def head(self) -> Head:
        return self._head

    def add(self, row: Row) -> bool:
        """Whether all is well up to here."""
        if self._fault is None:
            self._fault = self._wrong_with(row)
        self._head = Head(self._head.count + 1, row.hash)
        if self._fault is None:
            self._fault = self._against_noted()
        return self._fault is None

    def verdict(self, counted: Head | None) -> AuditVerdict:
        """`counted` is what the store's own counter says."""
        n = self._head.count
        fault = self._fault
        for place, head in self._noted.items():
            if fault is None and head.count > n:
                fault = f"the tail is cut off: {n} entries, but {place} knows of {head.count}"
        if fault is None and counted != self._head:
            fault = self._against_count(counted)
        if fault is None and self._key is not None and n and not self._is_keyed:
            fault = f"entry {n}: written without the key, though there is one"
        return AuditVerdict(fault is None, n, fault, str(self._head))

    def _against_count(self, counted: Head | None) -> str:
        n = self._head.count
        if counted is None:
            return "the store's own count of the entries is missing"
        if counted.count > n:
            return f"the tail is cut off: {n} entries, but the store counted {counted.count}"
        if counted.count < n:
            return f"after entry {counted.count}: {n - counted.count} more than the store counted"
        return f"entry {n}: its hash is not the one the store noted when it was written"

    def _wrong_with(self, row: Row) -> str | None:
        expected = self._head.count + 1
        if not _is_sound(row):
            return f"entry {expected}: holds what the gateway never writes"
        if row.seq != expected:
            if row.seq < expected:
                return f"entry {row.seq}: stands where entry {expected} should"
            return f"entry {expected}: missing; entry {row.seq} comes next"
        method, _, rest = row.hash.partition(":")
        if method not in (PLAIN, KEYED):
            return f"entry {row.seq}: its hash names no method that is known"
        if method == KEYED:
            self._is_keyed = True
            signed_with = rest.partition(":")[0]
            if self._key is None:
                return f"entry {row.seq}: needs the key {signed_with} to be verified, which is not here"
            if signed_with != key_id(self._key):
                return f"entry {row.seq}: made with the key {signed_with}, but the one here is {key_id(self._key)}"
        elif self._is_keyed:
            return f"entry {row.seq}: written without the key, after entries that have it"
        if row.hash != digest(row, self._head.hash, self._key if method == KEYED else None):
            return f"entry {row.seq}: changed, or the entry before it was: its hash does not fit"
        return None

    def _against_noted(self) -> str | None:
        for place, head in self._noted.items():
            if head.count == self._head.count and head.hash != self._head.hash:
                return f"entry {head.count}: rewritten: its hash is not the one in {place}"
        return None


def _is_sound(row: Row) -> bool:
    """SQLite holds numbers where texts belong, if somebody puts them there."""
    texts = (row.actor, row.action, row.subject, row.reason, row.before, row.after, row.hash)
    return type(row.seq) is int and type(row.at_us) is int and all(type(text) is str for text in texts)
