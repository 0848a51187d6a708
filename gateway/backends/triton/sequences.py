"""Which endpoint holds a sequence: all its requests go there, because the model's state is there and nowhere else.

A new sequence goes where its id hashes to among those that are ready or on probation, so that every worker of a gateway
sends it to the same endpoint without asking the others. When its endpoint dies the state is gone: who goes on with it
is told so, and begins again. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

from gateway.backends.triton.endpoint import Endpoint, State
from gateway.backends.triton.fleet import Fleet
from gateway.backends.triton.steps import Key

MAX_SEQUENCES = 65_536
IDLE_S = 600.0
"""Triton forgets an idle sequence after a minute or so, and then refuses to go on with it; we may remember longer."""


class SequenceLost(Exception):
    """Its endpoint is gone, and its state with it; the text says which and why."""


@dataclass(slots=True)
class _Held:
    endpoint: Endpoint
    used_s: float
    lost: str = ""


class Sequences:
    def __init__(self, fleet: Fleet, most: int = MAX_SEQUENCES) -> None:
        self._fleet, self._most = fleet, most
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        """By last use."""

    def __len__(self) -> int:
        return len(self._held)

    def endpoint_of(self, key: Key, now_s: float, *, start: bool, end: bool) -> Endpoint | None:
        """Where this request goes; None: nobody is ready. SequenceLost."""
        self._forget(now_s)
        held = None if start else self._held.get(key)
        if held is None:
            endpoint = self._by_hash(key, now_s)
            if endpoint is None:
                return None
            held = self._held[key] = _Held(endpoint, now_s)
        if not held.lost and held.endpoint.state in (State.DOWN, State.GONE):
            held.lost = _lost(held.endpoint)
        if held.lost:
            del self._held[key]
            raise SequenceLost(f"sequence {key}: {held.lost}")
        held.used_s = now_s
        self._held.move_to_end(key)
        if end:
            del self._held[key]
        return held.endpoint

    def drop(self, endpoint: Endpoint) -> None:
        """It went down: even if it comes back, what it held is gone."""
        for held in self._held.values():
            if held.endpoint is endpoint and not held.lost:
                held.lost = _lost(endpoint)

    def _by_hash(self, key: Key, now_s: float) -> Endpoint | None:
        """The highest score, by weight."""
        return max(self._fleet.lasting(now_s), key=lambda each: _score(key, each), default=None)

    def _forget(self, now_s: float) -> None:
        while self._held:
            key, oldest = next(iter(self._held.items()))
            if len(self._held) < self._most and now_s - oldest.used_s < IDLE_S:
                return
            del self._held[key]


def _score(key: Key, endpoint: Endpoint) -> float:
    """Weighted rendezvous: u^(1/weight), u uniform by the hash of both names."""
    digest = blake2b(f"{key}\0{endpoint.address}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "little") + 1) / 2.0**64
    return float(uniform ** (1.0 / endpoint.weight))


def _lost(endpoint: Endpoint) -> str:
    return (
        f"Triton at {endpoint.address}, which held its state, is gone ({endpoint.reason}); "
        f"begin it again with sequence_start"
    )
