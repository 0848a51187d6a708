"""How much of a model's requests a candidate can carry: what its executors get through at full batches, beside what is
asked for. Pure.

At full batches, since that is what a queue makes of requests that come too fast: at a small weight each of them may
cost ten times as much as it will, and a rollout that was held for that would be held for ever. So this holds only what
cannot be carried; what becomes slower before that is the latency guardrail's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.evidence import sentence
from gateway.evidence.latency import duration
from gateway.rollout.room import Room
from gateway.routing.route import SHARE_UNIT


@dataclass(frozen=True, slots=True)
class Capacity:
    units: int
    """The largest weight, of SHARE_UNIT."""
    seen: str
    """For a person: what it was reckoned from."""


def most(candidate: Sequence[Room], stable: Sequence[Room], requests_per_s: float, busy: float) -> Capacity | None:
    """`candidate`: of every live worker; `stable`: tells how many rows a request has; `busy`: the share of their time
    that executors may be busy. None: something of it is not known.
    """
    if not candidate or not requests_per_s or any(room.run_us <= 0.0 for room in candidate):
        return None
    known = [*stable, *candidate]
    n_requests, n_rows = sum(room.n_requests for room in known), sum(room.n_rows for room in known)
    asked = requests_per_s * max(n_rows / n_requests if n_requests else 1.0, 1.0)
    can = sum(room.rows_per_s for room in candidate)
    slowest = max(candidate, key=lambda room: room.run_us / room.rows)
    rows = f"{slowest.rows} rows" if slowest.rows > 1 else "a row"
    executors = sum(room.executors for room in candidate)
    return Capacity(
        min(int(busy * can / asked * SHARE_UNIT), SHARE_UNIT),
        f"{rows} take it {duration(slowest.run_us)}, executors: {executors}, so {sentence.number(can)} rows a second;"
        f" asked of the model: {sentence.number(asked)}",
    )
