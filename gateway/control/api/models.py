"""/v1/models: what is registered and what workers have of it; versions come and go here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.control import answers, fleet
from gateway.control.api.common import Actor, Shared, refusals
from gateway.control.plane import Plane
from gateway.control.problems import Problem
from gateway.control.versionchange import VersionChanges
from gateway.routing.route import RouteError, parse

if TYPE_CHECKING:
    from gateway.store import RouteRecord, VersionRecord, WorkerRecord

router = APIRouter(prefix="/v1/models", tags=["models"])


class AddVersion(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: str | None = Field(None, description="A folder of the repository; none: all that are not registered yet.")
    reason: str = Field("", max_length=4000)


class Reason(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: str = Field("", max_length=4000)


@router.get("", summary="All models with their versions", responses=refusals())
def list_models(plane: Shared) -> answers.Models:
    return answers.Models(models=_models(plane))


@router.get("/{model}", summary="One model with its versions", responses=refusals(404))
def show_model(plane: Shared, model: str) -> answers.Model:
    for found in _models(plane, model):
        return found
    here = ", ".join(each.name for each in _models(plane)) or "none"
    raise Problem(404, f"model {model!r}: there is none; models here: {here}")


@router.get("/{model}/versions/{version}", summary="One version: digest, signature, lineage", responses=refusals(404))
def show_version(plane: Shared, model: str, version: str) -> answers.Version:
    versions = show_model(plane, model).versions
    for found in versions:
        if found.version == version:
            return found
    here = ", ".join(each.version for each in versions)
    raise Problem(404, f"model {model!r} has no version {version}; versions here: {here}")


@router.post(
    "/{model}/versions",
    summary="Register what lies in the repository, and load it in every worker; it gets no traffic until it is routed",
    responses=refusals(404, 409, 422),
)
def add_version(plane: Shared, actor: Actor, model: str, wish: AddVersion) -> answers.VersionsAdded:
    return answers.VersionsAdded(versions=VersionChanges(plane).add(model, wish.version, actor, wish.reason))


@router.post(
    "/{model}/versions/{version}/retire",
    summary="Unload it everywhere, for good; refused while a route names it",
    responses=refusals(404, 409),
)
def retire_version(
    plane: Shared, actor: Actor, model: str, version: str, wish: Reason | None = None
) -> answers.VersionRetired:
    return VersionChanges(plane).retire(model, version, actor, wish.reason if wish else "")


def _models(plane: Plane, only: str | None = None) -> list[answers.Model]:
    store, live = plane.store, plane.live()
    routes = store.routes()
    records = {(record.model, record.version): record for record in store.versions(only)}
    states = fleet.reported(live, only)
    keys = sorted({*records, *states}, key=lambda key: (key[0], int(key[1]) if key[1].isdigit() else 0, key[1]))
    models: dict[str, answers.Model] = {}
    for model, version in keys:
        route = routes.get(model)
        entry = models.setdefault(
            model,
            answers.Model(
                name=model,
                versions=[],
                generation=route.generation if route else None,
                route=route.document if route else None,
            ),
        )
        record = records.get((model, version))
        found = _version(model, version, record, live, states.get((model, version), {}), route)
        entry.versions.append(found.model_copy(update={"fault": plane.registrar.faults.get((model, version), "")}))
    return list(models.values())


def _version(
    model: str,
    version: str,
    record: VersionRecord | None,
    live: list[WorkerRecord],
    states: dict[str, int],
    route: RouteRecord | None,
) -> answers.Version:
    state, reason = "retired" if record and record.is_retired else "not loaded", ""
    for worker in live:
        word, why = fleet.state(worker, model, version)
        if word and not (record and record.is_retired):
            state = word
            if word != fleet.READY:
                state, reason = word, f"worker {fleet.name(worker)}: {why}" if why else ""
                break
    try:
        is_routed = route is not None and version in parse(route.document).versions_used()
    except RouteError:
        is_routed = False
    found = answers.Version(
        model=model,
        version=version,
        state=state,
        reason=reason,
        states=states,
        is_registered=record is not None,
        is_routed=is_routed,
    )
    if record:
        names = ("is_retired", "digest", "path", "signature", "lineage", "card", "registered_at", "registered_by")
        found = found.model_copy(update={name: getattr(record, name) for name in names})
    return found
