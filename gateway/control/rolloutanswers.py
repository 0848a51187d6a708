"""What /v1/rollouts answers, as programs read it. Times are seconds since 1970."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from gateway.rollout.plan import Plan, PlanError, parse

if TYPE_CHECKING:
    from gateway.store.rolloutrecords import DecisionRecord, RolloutRecord


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class PublishedStage(_Answer):
    generation: int
    epoch: int
    weight_percent: float
    shadow_percent: float
    at: float


class Rollout(_Answer):
    id: str
    model: str
    stable: str
    candidate: str
    stable_digest: str
    candidate_digest: str
    mode: str
    stage: str
    step: int
    """From 1; 0 before the first."""
    n_steps: int
    epoch: int
    weight_percent: float
    """Of the candidate, as it is wanted."""
    shadow_percent: float
    is_live: bool
    outcome: str
    """promoted, rolled_back, refused, superseded; empty while it is under way."""
    cause: str
    reason: str
    """Why it went back."""
    holds: list[str]
    orders: dict[str, Any]
    stages: list[PublishedStage]
    status: dict[str, Any]
    """What the last look found."""
    harmed_requests: int
    """Failed or broken answers of the candidate, as far as they are counted."""
    decisions: int
    waits_for: str
    created_at: float
    created_by: str
    started_because: str
    finished_at: float | None
    plan: dict[str, Any]


class Rollouts(_Answer):
    rollouts: list[Rollout]


class Planned(_Answer):
    """Nothing was started."""

    model: str
    stable: str
    candidate: str
    plan: dict[str, Any]
    """With all that is in force by default."""
    description: str
    blocked: str
    live: str


class Decided(_Answer):
    seq: int
    at: float
    event: str
    stage: str
    epoch: int
    generation: int | None
    headline: str
    snapshot_digest: str
    term: int
    decision: dict[str, Any]
    snapshot: dict[str, Any] | None = None
    text: str = ""
    rows: list[dict[str, Any]] = []


class Decisions(_Answer):
    rollout: str
    decisions: list[Decided]


class Explained(Decisions):
    """Each with its text and rows."""


class Point(_Answer):
    at: float
    stage: str
    units: int
    shadow_units: int
    health: str
    answered: list[int]
    failed: list[int]
    broken: list[int]
    guardrails: dict[str, dict[str, Any]]


class Timeline(_Answer):
    rollout: str
    points: list[Point]
    decisions: list[Decided]


class Replayed(_Answer):
    rollout: str
    decisions: int
    same: bool
    differences: list[str]


class Block(_Answer):
    model: str
    version: str
    digest: str
    rollout: str
    reason: str
    at: float


class Blocks(_Answer):
    blocked: list[Block]


def answer(record: RolloutRecord) -> Rollout:
    cursor, plan = record.cursor, _parsed(record.plan)
    return Rollout(
        id=record.id,
        model=record.model,
        stable=record.stable,
        candidate=record.candidate,
        stable_digest=record.stable_digest,
        candidate_digest=record.candidate_digest,
        mode=str(record.plan.get("mode", "act")),
        stage=record.stage,
        step=cursor["step"] + 1,
        n_steps=len(plan.steps) if plan and plan.does("canary") else 0,
        epoch=cursor["epoch"],
        weight_percent=cursor["units"] / 100,
        shadow_percent=cursor["shadow_units"] / 100,
        is_live=record.is_live,
        outcome=record.outcome,
        cause=cursor["cause"],
        reason=cursor["reason"],
        holds=[hold for hold, _ in cursor["holds"]],
        orders=record.orders,
        stages=[
            PublishedStage(
                generation=stage.generation,
                epoch=stage.epoch,
                weight_percent=stage.units / 100,
                shadow_percent=stage.shadow_units / 100,
                at=stage.at,
            )
            for stage in record.stages
        ],
        status=record.status,
        harmed_requests=int(record.status.get("harmed", 0)),
        decisions=record.seq,
        waits_for=record.waits_for,
        created_at=record.created_at,
        created_by=record.created_by,
        started_because=record.reason,
        finished_at=record.finished_at,
        plan=record.plan,
    )


def decided(record: DecisionRecord, *, with_snapshot: bool = False) -> Decided:
    return Decided(
        seq=record.seq,
        at=record.at,
        event=record.event,
        stage=record.stage,
        epoch=record.epoch,
        generation=record.generation,
        headline=record.headline,
        snapshot_digest=record.digest,
        term=record.term,
        decision=record.decision,
        snapshot=record.snapshot if with_snapshot else None,
    )


def _parsed(document: dict[str, Any]) -> Plan | None:
    """None: a newer gateway wrote it."""
    try:
        return parse(document)
    except PlanError:
        return None
