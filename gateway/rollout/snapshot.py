"""All that one decision reads, and nothing else: with the plan beside it, the same snapshot gives the same decision.

It is stored as JSON with each decision that changed something, so that anybody can check it later.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from gateway.rollout.baseline import Baseline, LatencyBaseline
from gateway.rollout.cursor import Cursor
from gateway.rollout.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Now:
    wall_s: float
    passed_s: float | None = None  # monotonic, since this process's last look; None at its first


@dataclass(frozen=True, slots=True)
class Worker:
    """A live one, as it last reported."""

    incarnation: str
    epoch: int  # of the newest traffic that it has in force
    units: int  # the candidate's weight that it has in force
    candidate_ready: bool
    stable_ready: bool
    lowered: str = ""  # why it took weight from the candidate by itself


@dataclass(frozen=True, slots=True)
class Facts:
    """Counted as they happen, not behind a watermark, since the start of the rollout: what may not wait."""

    n_stable: int = 0  # answers, failures included
    n_candidate: int = 0
    failed_stable: int = 0
    failed_candidate: int = 0
    run_stable: int = 0  # failures in a row up to now, the most of any worker
    run_candidate: int = 0
    broken_stable: int = 0  # answers with NaN or infinity where the input has none, or of a wrong shape
    broken_candidate: int = 0
    broken_pairs: int = 0  # shadow pairs whose candidate alone is broken
    constant_stable: int = 0  # answers in a row that are the same to the last bit although the inputs differ
    constant_candidate: int = 0
    crashes: int = 0  # workers that died while the candidate was with them


@dataclass(frozen=True, slots=True)
class Trial:
    """Acceptance before traffic."""

    passed: bool | None = None  # None: still at it
    fault: str = ""  # what failed, for a person: the example, expected, got
    seen: str = ""  # what was tried and was good; while it is at it: what it waits for, if that is not the trial


@dataclass(frozen=True, slots=True)
class Advance:
    """An operator's word to go on from an epoch, whatever is undecided; only for that epoch, so it works once."""

    epoch: int
    reason: str
    to_end: bool = False  # skip the steps that remain, and from baking the promotion

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("reason: got none, expected why to go on without the evidence; it is kept")


@dataclass(frozen=True, slots=True)
class Orders:
    """What operators want, as it stands."""

    is_paused: bool = False
    abort: str = ""  # the reason
    superseded_by: str = ""  # the other attempt
    retry: bool = False  # of a rollback that got stuck
    opened: tuple[str, ...] = ()  # gates: traffic, bake, promote, step-3
    advance: Advance | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    cursor: Cursor
    now: Now
    workers: tuple[Worker, ...] = ()
    evidence: Evidence = field(default_factory=Evidence)
    evidence_age_s: float | None = 0.0  # of the oldest live worker's last report; None: there is none at all
    evidence_fault: str = ""  # why the evidence cannot be read, or has a hole
    facts: Facts = Facts()
    baseline: Baseline = field(default_factory=Baseline)
    latency: LatencyBaseline | None = None  # stable's since this epoch's traffic is in force; None: too few answers
    trial: Trial = Trial()
    load_fault: str = ""
    orders: Orders = Orders()
    capacity_units: int | None = None  # the largest weight that the candidate can carry; None: not known
    capacity_seen: str = ""  # what that was reckoned from, for a person
    in_flight: int | None = None  # requests that the candidate has still to answer; None: nobody counts
    route_fault: str = ""  # what the route in force says that this rollout did not, if anything

    def as_dict(self) -> dict[str, Any]:
        document: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return document

    @classmethod
    def from_dict(cls, document: Any) -> Snapshot:
        """Of `as_dict`, also after a way through JSON. pydantic.ValidationError (a ValueError) names what is wrong."""
        return _ADAPTER.validate_python(document)

    def digest(self) -> str:
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


_ADAPTER = TypeAdapter(Snapshot)
