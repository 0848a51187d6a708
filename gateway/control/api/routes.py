"""/v1/routes: what is in force, what was, and changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.control import answers, fleet
from gateway.control.api.common import Actor, Shared, refusals
from gateway.control.diff import diff
from gateway.control.plane import Plane
from gateway.control.problems import Problem
from gateway.control.routechange import RouteChanges
from gateway.routing.route import Route

if TYPE_CHECKING:
    from gateway.store import RouteRecord

MAX_HISTORY = 500

router = APIRouter(prefix="/v1", tags=["routes"])

Reason = Annotated[str, Field(max_length=4000, description="Why; it goes into the audit log.")]
Expected = Annotated[
    int | None,
    Field(ge=0, description="The generation that was looked at (0: none). Another one in force refuses the change."),
]
Supersede = Annotated[
    bool, Field(description="Also while a rollout has the route in hand: the rollout ends, this route stays.")
]


class RoutePut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    route: dict[str, Any] = Field(description="See /v1/schema/route.")
    expected_generation: Expected = None
    reason: Reason = ""
    supersede: Supersede = False


class RollBack(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: int | None = Field(None, ge=1, description="A generation; none: the one before the one in force.")
    expected_generation: Expected = None
    reason: Reason = ""
    supersede: Supersede = False


@router.get("/routes", summary="All models' routes", responses=refusals())
def list_routes(plane: Shared) -> answers.Routes:
    return answers.Routes(routes=[_answer(record) for record in plane.store.routes().values()])


@router.get("/routes/{model}", summary="One model's route, and who has it in force", responses=refusals(404))
def show_route(plane: Shared, model: str) -> answers.RouteInForce:
    record = _current(plane, model)
    live = plane.live()
    missing = fleet.behind(live, plane.expected, model, record.generation)
    late = {each.worker for each in missing}
    return answers.RouteInForce(
        **_answer(record).model_dump(),
        acknowledged=[name for each in live if (name := fleet.name(each)) not in late],
        missing=[answers.Silent(worker=each.worker, reason=each.reason) for each in missing],
        faults={fleet.name(each): str(each.faults[model]) for each in live if model in each.faults},
    )


@router.put(
    "/routes/{model}",
    summary="Replace a model's route; answers when every live worker has it in force, or says who has not",
    responses=refusals(404, 409, 422),
)
def put_route(
    plane: Shared,
    actor: Actor,
    model: str,
    wish: RoutePut,
    dry_run: Annotated[bool, Query(description="Check it, change nothing.")] = False,
) -> answers.RouteApplied:
    return RouteChanges(plane).put(
        model, wish.route, wish.expected_generation, actor, wish.reason, is_dry=dry_run, supersede=wish.supersede
    )


@router.get("/routes/{model}/history", summary="Its generations, newest first", responses=refusals(404))
def route_history(plane: Shared, model: str, limit: Annotated[int, Query(ge=1, le=MAX_HISTORY)] = 50) -> answers.Routes:
    history = plane.store.route_history(model, limit)
    if not history:
        raise _no_route(plane, model)
    return answers.Routes(routes=[_answer(record) for record in history])


@router.get("/routes/{model}/diff", summary="What differs between two generations", responses=refusals(404))
def route_diff(
    plane: Shared,
    model: str,
    from_: Annotated[int | None, Query(alias="from", ge=1, description="Default: the one before `to`.")] = None,
    to: Annotated[int | None, Query(ge=1, description="Default: the one in force.")] = None,
) -> answers.RouteDiff:
    after = _current(plane, model) if to is None else plane.store.route_at(model, to)
    before = plane.store.route_at(model, max(1, after.generation - 1) if from_ is None else from_)
    changes = [answers.Difference(**each) for each in diff(before.document, after.document)]
    return answers.RouteDiff(model=model, before=_answer(before), after=_answer(after), diff=changes)


@router.post(
    "/routes/{model}/rollback",
    summary="Make an earlier generation's route the newest one; answers as a replacement does",
    responses=refusals(404, 409, 422),
)
def roll_back(plane: Shared, actor: Actor, model: str, wish: RollBack) -> answers.RouteApplied:
    current = _current(plane, model)
    to = current.generation - 1 if wish.to is None else wish.to
    if to < 1:
        raise Problem(409, f"route of model {model!r}: generation 1 is in force, there is none before it")
    earlier = plane.store.route_at(model, to)
    expected = current.generation if wish.expected_generation is None else wish.expected_generation
    reason = f"back to generation {to}" + (f": {wish.reason}" if wish.reason else "")
    return RouteChanges(plane).put(model, earlier.document, expected, actor, reason, supersede=wish.supersede)


@router.get("/schema/route", summary="What a route may hold, as JSON Schema")
def route_schema() -> dict[str, Any]:
    return Route.json_schema()


def _current(plane: Plane, model: str) -> RouteRecord:
    record = plane.store.routes().get(model)
    if record is None:
        raise _no_route(plane, model)
    return record


def _no_route(plane: Plane, model: str) -> Problem:
    here = ", ".join(plane.store.routes()) or "none yet"
    return Problem(404, f"model {model!r} has no route; models with one: {here}")


def _answer(record: RouteRecord) -> answers.Route:
    return answers.Route(
        model=record.model,
        generation=record.generation,
        route=record.document,
        automatic=record.automatic,
        actor=record.actor,
        reason=record.reason,
        at=record.at,
    )
