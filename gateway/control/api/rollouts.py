"""/v1/rollouts: attempts to replace a model's stable version by a candidate: start, look, steer, explain, replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.control import rolloutorders
from gateway.control.api.common import Actor, Shared, refusals
from gateway.control.problems import Problem
from gateway.control.rolloutanswers import (
    Block,
    Blocks,
    Decided,
    Decisions,
    Explained,
    Planned,
    Point,
    Replayed,
    Rollout,
    Rollouts,
    Timeline,
    answer,
    decided,
)
from gateway.control.rolloutstart import RolloutStarts
from gateway.rollout import explain, replay
from gateway.rollout.plan import Plan, parse

if TYPE_CHECKING:
    from gateway.control.plane import Plane
    from gateway.store.rolloutrecords import RolloutRecord

router = APIRouter(prefix="/v1", tags=["rollouts"])

Reason = Annotated[str, Field(max_length=4000, description="Why; it goes into the audit log.")]
TOLERANCE = 1e-9
"""Of numbers that are not whole, in a replay: another machine may differ in the last digit."""


class Start(BaseModel):
    model_config = ConfigDict(extra="forbid")

    plan: dict[str, Any] = Field(description="See /v1/schema/plan; model, candidate and strategy are enough.")
    reason: Reason = ""
    override: bool = Field(False, description="Try files that were taken back once; needs a reason.")
    supersede: bool = Field(False, description="Take the live rollout of this model back first.")


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Reason = ""


class Promote(Order):
    to_end: bool = Field(False, description="Past all steps that remain; from baking, to the promotion.")


class Gate(Order):
    gate: str = Field(description="traffic, bake, promote, or step-N.")


@router.post(
    "/rollouts",
    status_code=201,
    summary="Start one; with dry_run only say what it would do",
    responses=refusals(404, 409, 422),
)
def start(
    plane: Shared,
    actor: Actor,
    wish: Start,
    dry_run: Annotated[bool, Query(description="Check the plan, forecast it, start nothing.")] = False,
) -> Rollout | Planned:
    starts = RolloutStarts(plane)
    if dry_run:
        checked = starts.check(wish.plan)
        return Planned(
            model=checked.plan.model, stable=checked.stable.version, candidate=checked.plan.candidate,
            plan=checked.plan.document(), description=starts.describe(checked), blocked=checked.blocked,
            live=checked.live,
        )  # fmt: skip
    with plane.commit:
        return answer(starts.start(wish.plan, actor, wish.reason, override=wish.override, supersede=wish.supersede))


@router.get("/rollouts", summary="The newest first", responses=refusals())
def list_rollouts(
    plane: Shared,
    model: Annotated[str | None, Query(description="Only of this model.")] = None,
    live: Annotated[bool, Query(description="Only those that are not over.")] = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Rollouts:
    return Rollouts(rollouts=[answer(each) for each in plane.store.rollouts(model, live=live, limit=limit)])


@router.get("/rollouts/{rollout}", summary="Where it stands; a model's name is its newest", responses=refusals(404))
def show(plane: Shared, rollout: str) -> Rollout:
    return answer(plane.store.rollout(rollout))


@router.get("/rollouts/{rollout}/decisions", summary="What was decided, with all its numbers", responses=refusals(404))
def decisions(
    plane: Shared,
    rollout: str,
    after: Annotated[int, Query(ge=0, description="Only those after this one.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    snapshots: Annotated[bool, Query(description="With what each was made of.")] = False,
) -> Decisions:
    record = plane.store.rollout(rollout)
    found = plane.store.rollout_decisions(record.id, after, limit)
    return Decisions(rollout=record.id, decisions=[decided(each, with_snapshot=snapshots) for each in found])


@router.get(
    "/rollouts/{rollout}/explain", summary="A decision in words and numbers, or all of them", responses=refusals(404)
)
def explained(
    plane: Shared,
    rollout: str,
    seq: Annotated[int | None, Query(ge=1, description="Of the decision. Default: all that moved it.")] = None,
) -> Explained:
    record = plane.store.rollout(rollout)
    found = plane.store.rollout_decisions(record.id, 0 if seq is None else seq - 1, 1000 if seq is None else 1)
    if seq is not None and (not found or found[0].seq != seq):
        raise Problem(404, f"rollout {record.id}: no decision {seq}; it has 1 to {record.seq}")
    chosen = found if seq is not None else [each for each in found if each.event] or found
    return Explained(
        rollout=record.id,
        decisions=[
            Decided(
                **decided(each).model_dump(exclude={"text", "rows"}),
                text=explain.explain(each.decision),
                rows=explain.rows(each.decision),
            )
            for each in chosen
        ],
    )


@router.get("/rollouts/{rollout}/timeline", summary="Points for a plot, and the decisions", responses=refusals(404))
def timeline(
    plane: Shared, rollout: str, after: Annotated[float, Query(description="Only later ones.")] = 0.0
) -> Timeline:
    record = plane.store.rollout(rollout)
    points = [Point(at=at, **body) for at, body in plane.store.rollout_samples(record.id, after)]
    found = [each for each in plane.store.rollout_decisions(record.id) if each.at > after]
    return Timeline(rollout=record.id, points=points, decisions=[decided(each) for each in found])


@router.get(
    "/rollouts/{rollout}/replay",
    summary="Take every kept decision again from what was stored with it: they must come out the same",
    responses=refusals(404),
)
def replayed(plane: Shared, rollout: str) -> Replayed:
    record = plane.store.rollout(rollout)
    found = plane.store.rollout_decisions(record.id, 0, 100_000)
    records = [(each.snapshot, each.decision) for each in found if each.snapshot is not None]
    differences = replay.replay(parse(record.plan), records, tolerance=TOLERANCE)
    return Replayed(
        rollout=record.id, decisions=len(records), same=not differences, differences=[str(each) for each in differences]
    )


@router.post(
    "/rollouts/{rollout}/pause", summary="It goes no further; it still goes back", responses=refusals(404, 409)
)
def pause(plane: Shared, actor: Actor, rollout: str, wish: Order) -> Rollout:
    return _order(plane, rollout, rolloutorders.pause, actor, "pause", wish.reason)


@router.post("/rollouts/{rollout}/resume", summary="It goes on", responses=refusals(404, 409))
def resume(plane: Shared, actor: Actor, rollout: str, wish: Order) -> Rollout:
    return _order(plane, rollout, rolloutorders.resume, actor, "resume", wish.reason)


@router.post("/rollouts/{rollout}/abort", summary="Take it back", responses=refusals(404, 409))
def abort(plane: Shared, actor: Actor, rollout: str, wish: Order) -> Rollout:
    by = f"{actor}: {wish.reason}" if wish.reason.strip() else actor
    return _order(plane, rollout, lambda record: rolloutorders.abort(record, by), actor, "abort", wish.reason)


@router.post("/rollouts/{rollout}/retry", summary="Try again a rollback that got stuck", responses=refusals(404, 409))
def retry(plane: Shared, actor: Actor, rollout: str, wish: Order) -> Rollout:
    return _order(plane, rollout, rolloutorders.retry, actor, "retry", wish.reason)


@router.post(
    "/rollouts/{rollout}/promote",
    summary="On to its next stage by an operator's word; past what is undecided only with a reason",
    responses=refusals(404, 409, 422),
)
def promote(plane: Shared, actor: Actor, rollout: str, wish: Promote) -> Rollout:
    def change(record: RolloutRecord) -> dict[str, Any]:
        return rolloutorders.promote(record, wish.reason and f"{actor}: {wish.reason}", to_end=wish.to_end)

    return _order(plane, rollout, change, actor, "advance", wish.reason)


@router.post("/rollouts/{rollout}/gate", summary="Open a gate of its plan", responses=refusals(404, 409, 422))
def gate(plane: Shared, actor: Actor, rollout: str, wish: Gate) -> Rollout:
    reason = f"{wish.gate}: {wish.reason}" if wish.reason else wish.gate
    return _order(plane, rollout, lambda record: rolloutorders.gate(record, wish.gate), actor, "open_gate", reason)


@router.get("/blocked", summary="Files that were taken back", responses=refusals())
def blocked(plane: Shared, model: str | None = None) -> Blocks:
    found = plane.store.blocked(model)
    return Blocks(
        blocked=[
            Block(model=b.model, version=b.version, digest=b.digest, rollout=b.rollout, reason=b.reason, at=b.at)
            for b in found
        ]
    )


@router.get("/schema/plan", summary="What a plan may hold, as JSON Schema")
def plan_schema() -> dict[str, Any]:
    return Plan.model_json_schema(by_alias=True)


def _order(
    plane: Plane,
    rollout: str,
    change: Callable[[RolloutRecord], dict[str, Any]],
    actor: str,
    action: str,
    reason: str,
) -> Rollout:
    return answer(plane.store.order_rollout(rollout, change, actor, f"rollout.{action}", reason))
