"""What of rollouts goes into the store and comes out of it. Documents are those of gateway.rollout (`as_dict`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.errors import Code, GatewayError
from gateway.store.records import Delivery


class Fenced(GatewayError):
    """Another control process leads by now: nothing was written."""

    code = Code.ABORTED


class RolloutConflict(GatewayError):
    """A rollout, or the route that it changes, is not as it was read: nothing was written."""

    code = Code.FAILED_PRECONDITION


@dataclass(frozen=True, slots=True)
class StageRecord:
    """Traffic that a rollout published: the route's generation is how workers name it, the epoch how the judge does."""

    generation: int
    epoch: int
    units: int  # the candidate's weight, of 10,000
    shadow_units: int
    at: float


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """One attempt. `orders`, `baseline`, `cursor` and `plan` are documents of gateway.rollout."""

    id: str
    number: int
    model: str
    stable: str
    stable_digest: str
    candidate: str
    candidate_digest: str
    plan: dict[str, Any]
    cursor: dict[str, Any]
    stage: str
    is_live: bool  # somebody has still to look at it
    orders: dict[str, Any]
    stages: tuple[StageRecord, ...]
    baseline: dict[str, Any] | None
    base: dict[str, Any]  # the route before: generation, route
    loads: tuple[str, ...]  # versions that it asked the workers to load, and lets go of
    status: dict[str, Any]  # what the last look found, for people
    seq: int  # decisions that are kept
    revision: int  # of the store, when it began: what workers said before is old
    waits_for: str  # the attempt that must be out of the way first
    term: int  # of the leader that wrote last
    created_at: float
    created_by: str
    reason: str
    finished_at: float | None
    outcome: str  # of the finished: promoted, rolled_back, refused, superseded

    @property
    def needs(self) -> tuple[str, ...]:
        """Versions that must stay loaded for it. After the promotion stable's time is the plan's `keep`."""
        return (self.candidate,) if self.stage == "promoted" else (self.stable, self.candidate)


@dataclass(frozen=True, slots=True)
class NewRollout:
    """An attempt to begin. It waits while another of its model is live, when `supersede` says that one must go."""

    model: str
    stable: str
    stable_digest: str
    candidate: str
    candidate_digest: str
    plan: dict[str, Any]
    cursor: dict[str, Any]
    base: dict[str, Any]
    loads: tuple[str, ...] = ()
    override: bool = False  # of a blocked digest
    supersede: bool = False


@dataclass(frozen=True, slots=True)
class Good:
    """The version that was shown good last."""

    model: str
    version: str
    digest: str
    rollout: str
    previous: str
    previous_digest: str
    retain_until: float
    at: float


@dataclass(frozen=True, slots=True)
class Blocked:
    """Files that were taken back: they get no traffic again without somebody's word."""

    model: str
    digest: str
    version: str
    rollout: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision that changed something, with all that it was made of."""

    rollout: str
    seq: int
    at: float
    event: str  # empty: it stayed in its stage
    stage: str
    epoch: int
    generation: int | None  # of the route that it published
    headline: str
    digest: str  # of the snapshot
    term: int
    snapshot: dict[str, Any] | None
    decision: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """All that one decision does, in one transaction: whoever crashes leaves all of it or nothing."""

    id: str
    seq: int  # decisions that were kept when the rollout was read: it must still be so
    at: float
    snapshot: dict[str, Any]
    snapshot_digest: str
    decision: dict[str, Any]
    headline: str
    status: dict[str, Any]
    actor: str
    route: dict[str, Any] | None = None  # to publish; None with `adopts`: what is in force is right already
    adopts: bool = False
    route_generation: int | None = None  # in force when it was read: it must still be so
    baseline: dict[str, Any] | None = None
    base: dict[str, Any] | None = None
    want: frozenset[str] = frozenset()
    unwant: frozenset[str] = frozenset()
    blocks: str = ""  # why the candidate's digest is blocked
    good: Good | None = None
    clears_retry: bool = False
    is_live: bool = True
    outcome: str = ""
    deliveries: tuple[Delivery, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Touch:
    """A look that changed nothing: only that it was."""

    id: str
    seq: int
    cursor: dict[str, Any]
    status: dict[str, Any]
    sample: dict[str, Any] | None = None  # a point of its timeline
    at: float = 0.0
