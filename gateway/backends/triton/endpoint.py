"""One tritonserver as the fleet knows it: what is on its way there, whether it may be asked, and why not.

                 probe: ready                      failures, slow
    STARTING ──────────────────▶ READY ──────────────────────────▶ EJECTED
        │                          ▲  enough right answers            │ its time is over
        │ probe: not ready         └───────────── PROBATION ◀─────────┤
        ▼                                          │  ▲ │ a failure   │
      DOWN ◀───────────────────────────────────────┘  │ └────────────▶┘ (for longer)
        └────────── probe: ready ─────────────────────┘

From every state a probe that finds it not ready leads to DOWN, and out of the list of endpoints to GONE.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Outcome(enum.Enum):
    """How an attempt ended, by what it says about the endpoint."""

    OK = "ok"
    REFUSED = "refused"
    """It answered, and blames the request: the endpoint is well, and another would say the same."""
    STREAMED = "streamed"
    """It answered in a stream, in the model's own time: which says nothing of how quick it is."""
    FAILED = "failed"
    """It answered that it cannot: the model raised, is not there, its queue is full."""
    LOST = "lost"
    """The connection could not be made, or broke before the answer was whole."""
    LATE = "late"
    """No answer in the attempt's share of the time."""
    CANCELLED = "cancelled"
    """Nobody waits for it any more: the caller left, or another attempt won. Says nothing about the endpoint."""


FAILURES = frozenset({Outcome.FAILED, Outcome.LOST, Outcome.LATE})


class Sign(enum.Enum):
    """What a probe found."""

    READY = "ready"
    NOT_READY = "not ready"
    """The server said so, of itself or of the model."""
    UNREACHABLE = "unreachable"
    """Nobody listens there."""
    SILENT = "silent"
    """No answer in time."""


class State(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    EJECTED = "ejected"
    PROBATION = "probation"
    DOWN = "down"
    GONE = "gone"


MOVES: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.READY, State.DOWN, State.GONE}),
    State.READY: frozenset({State.EJECTED, State.DOWN, State.GONE}),
    State.EJECTED: frozenset({State.PROBATION, State.DOWN, State.GONE}),
    State.PROBATION: frozenset({State.READY, State.EJECTED, State.DOWN, State.GONE}),
    State.DOWN: frozenset({State.PROBATION, State.GONE}),
    State.GONE: frozenset(),
}


@dataclass(slots=True)
class Counts:
    """Since the start. First attempts apart: retries hide from callers what an endpoint does wrong, not from here."""

    first: int = 0
    first_failed: int = 0
    again: int = 0
    again_failed: int = 0
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    ejections: int = 0
    ways: dict[str, int] = field(default_factory=dict)
    """Attempts by the way that their tensors took there."""


@dataclass(slots=True, eq=False)
class Endpoint:
    """Only the fleet changes it. Equal only to itself."""

    address: str
    """host:port"""
    weight: float = 1.0
    state: State = State.STARTING
    reason: str = "not asked yet"
    """Why it is not READY."""
    since_s: float = 0.0
    """When it came into `state`."""
    outstanding: int = 0
    """Attempts on their way."""
    outstanding_rows: int = 0
    failures: int = 0
    """In a row."""
    successes: int = 0
    """In a row."""
    failing: float = 0.0
    """Share of failures, of late."""
    latency_s: float = 0.0
    """Of right answers, of late; 0: none yet."""
    latency_samples: int = 0
    answered_s: float = float("-inf")
    """When it last answered anything."""
    ejected_until_s: float = 0.0
    ejected_in_a_row: int = 0
    ramp_from_s: float = float("-inf")
    """When its slow start began."""
    silent: int = 0
    """Probes without an answer, in a row."""
    asked_s: float = float("-inf")
    """When it was last probed."""
    counts: Counts = field(default_factory=Counts)

    def move(self, state: State, reason: str, now_s: float) -> None:
        if state not in MOVES[self.state]:
            raise AssertionError(f"{self.address}: no way from {self.state.name} to {state.name}")
        self.state, self.reason, self.since_s = state, reason, now_s

    def __repr__(self) -> str:
        return (
            f"<Endpoint {self.address} {self.state.value}, {self.outstanding} attempts, {self.outstanding_rows} rows>"
        )
