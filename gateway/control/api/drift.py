"""/v1/drift and /v1/alarms: how far today's traffic is from the profile, who is told, and what became of it."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.control import drift
from gateway.control.api.common import Actor, Shared, models_here, refusals
from gateway.control.plane import Plane
from gateway.control.problems import Problem
from gateway.monitoring import alarms
from gateway.monitoring.alarms import Alarm, Event
from gateway.monitoring.driftreport import DriftReport

MAX_LISTED = 1000

router = APIRouter(prefix="/v1", tags=["drift"])


class Drift(BaseModel):
    """One version's last report, with its alarms that are not closed."""

    report: DriftReport
    alarms: list[Alarm]


class Drifts(BaseModel):
    versions: list[Drift]


class Alarms(BaseModel):
    alarms: list[Alarm]


class DeliveryAnswer(BaseModel):
    event: str
    endpoint: str
    state: str
    attempts: int
    next_at: float
    created_at: float
    error: str


class Deliveries(BaseModel):
    deliveries: list[DeliveryAnswer]


class Move(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: str = Field("", max_length=4000)


@router.get("/drift", summary="All versions that have a profile", responses=refusals())
def list_drift(plane: Shared) -> Drifts:
    return Drifts(versions=_drifts(plane))


@router.get("/drift/{model}", summary="The versions of a model that have a profile", responses=refusals(404))
def show_model_drift(plane: Shared, model: str) -> Drifts:
    if found := _drifts(plane, model):
        return Drifts(versions=found)
    raise Problem(404, _nothing(plane, model, None))


@router.get("/drift/{model}/{version}", summary="One version", responses=refusals(404))
def show_version_drift(plane: Shared, model: str, version: str) -> Drift:
    for found in _drifts(plane, model, version):
        return found
    raise Problem(404, _nothing(plane, model, version))


@router.get("/alarms", summary="Alarms, newest first", responses=refusals(422))
def list_alarms(
    plane: Shared,
    model: str | None = None,
    version: str | None = None,
    state: Annotated[list[alarms.State] | None, Query(description="Only in these states.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100,
) -> Alarms:
    records = plane.store.alarms(model, version, state, limit=limit)
    return Alarms(alarms=[drift.alarm_of(record) for record in records])


@router.get("/alarms/{alarm}", summary="One alarm", responses=refusals(404))
def show_alarm(plane: Shared, alarm: str) -> Alarm:
    record = plane.store.alarm(alarm)
    if record is None:
        raise Problem(404, f"alarm {alarm!r}: there is none; GET /v1/alarms lists them")
    return drift.alarm_of(record)


@router.post("/alarms/{alarm}/acknowledge", summary="Somebody looks after it", responses=refusals(404, 409))
def acknowledge_alarm(plane: Shared, actor: Actor, alarm: str, move: Move | None = None) -> Alarm:
    return _move(plane, actor, alarm, "acknowledge", move)


@router.post(
    "/alarms/{alarm}/close",
    summary="What is seen is normal: it is tolerated until the version has another profile",
    responses=refusals(404, 409),
)
def close_alarm(plane: Shared, actor: Actor, alarm: str, move: Move | None = None) -> Alarm:
    return _move(plane, actor, alarm, "close", move)


@router.get("/deliveries", summary="What was sent to webhooks, newest first", responses=refusals(422))
def list_deliveries(
    plane: Shared,
    state: Annotated[Literal["waiting", "delivered", "dead"] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100,
) -> Deliveries:
    found = plane.store.deliveries(state, limit)
    names = DeliveryAnswer.model_fields
    return Deliveries(deliveries=[DeliveryAnswer(**{name: getattr(each, name) for name in names}) for each in found])


def _drifts(plane: Plane, model: str | None = None, version: str | None = None) -> list[Drift]:
    live: dict[tuple[str, str], list[Alarm]] = {}
    for record in plane.store.alarms(model, version, drift.LIVE):
        live.setdefault((record.model, record.version), []).append(drift.alarm_of(record))
    return [
        Drift(report=report, alarms=live.get((report.model, report.version), []))
        for report in drift.reports(plane.store, model, version)
    ]


def _nothing(plane: Plane, model: str, version: str | None) -> str:
    known = [each.version for each in plane.store.versions(model)]
    what = f"model {model!r}" if version is None else f"model {model!r} version {version}"
    if not known:
        return f"{what}: there is none; models here: {models_here(plane)}"
    if version is not None and version not in known:
        return f"{what}: there is none; versions here: {', '.join(known)}"
    cure = f"gateway profile build --model {model} --version {version or known[-1]} DATA"
    return f"{what}: no drift report, since it has no profile or nothing was counted yet; {cure}"


def _move(plane: Plane, actor: str, name: str, wish: str, move: Move | None) -> Alarm:
    before = show_alarm(plane, name)
    reason = move.reason if move else ""
    event: Event = (alarms.acknowledge if wish == "acknowledge" else alarms.close)(before, time.time(), actor, reason)
    if not drift.record_event(plane.store, event, before.state, actor, reason, plane.webhooks):
        now = show_alarm(plane, name).state
        raise Problem(409, f"alarm {name}: is {now} by now, was {before.state}; look again")
    return event.alarm
