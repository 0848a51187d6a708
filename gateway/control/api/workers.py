"""/v1/workers and /v1/status: who is there, and whether all is well. Status answers also while the store does not."""

from __future__ import annotations

import os
import time
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING

from fastapi import APIRouter

from gateway.control import answers, fleet
from gateway.control.api.common import Shared, refusals
from gateway.control.plane import Plane
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.store import WorkerRecord

router = APIRouter(prefix="/v1", tags=["status"])


@router.get("/workers", summary="All workers that were heard of lately", responses=refusals())
def list_workers(plane: Shared) -> answers.Workers:
    return answers.Workers(workers=_workers(plane))


@router.get("/status", summary="The gateway at a glance; never fails")
def show_status(plane: Shared) -> answers.Status:
    wrong = []
    workers: list[answers.Worker] = []
    n_models, n_ready = 0, 0
    revision = plane.keeper.revision
    try:
        revision = plane.store.revision()
        workers = _workers(plane)
        live = plane.live()
        routes = plane.store.routes()
        states = fleet.reported(live)
        n_models = len({model for model, _ in states})
        n_ready = sum(fleet.READY in counts for counts in states.values())
        for model, route in routes.items():
            for each in fleet.behind(live, fleet.Expected(), model, route.generation):
                wrong.append(f"worker {each.worker} does not have the route of {model} in force: {each.reason}")
        wrong += [f"worker {each.worker} {each.reason}" for each in fleet.absent(live, plane.expected)]
        for record in live:
            wrong += [
                f"worker {fleet.name(record)}: {model + ': ' if model else ''}{fault}"
                for model, fault in record.faults.items()
            ]
        if not live:
            wrong.append("no worker is alive")
        wrong += [*plane.registrar.faults.values()]
    except GatewayError as error:
        wrong.append(str(error))
    fault = plane.keeper.fault
    if fault and not wrong:
        wrong.append(f"the store: {fault}")
    return answers.Status(
        gateway=package_version("gateway"),
        ok=not wrong,
        wrong=list(dict.fromkeys(wrong)),
        control=answers.ControlStatus(
            pid=os.getpid(),
            started_at=plane.started_at,
            uptime_s=round(time.time() - plane.started_at, 3),
            leads=plane.leader.term is not None,
            term=plane.leader.term,
        ),
        store=answers.StoreStatus(
            name=plane.keeper.name,
            is_up=not fault,
            fault=fault,
            revision=revision,
            is_ephemeral=plane.is_ephemeral,
        ),
        workers=workers,
        n_models=n_models,
        n_versions_ready=n_ready,
    )


def _workers(plane: Plane) -> list[answers.Worker]:
    records = plane.store.workers()
    live = {record.incarnation for record in plane.live()}
    now_s = time.time()
    return [_answer(record, record.incarnation in live, now_s) for record in records]


def _answer(record: WorkerRecord, is_live: bool, now_s: float) -> answers.Worker:
    return answers.Worker(
        worker=fleet.name(record),
        index=record.index,
        host=record.host,
        pid=record.pid,
        incarnation=record.incarnation,
        is_live=is_live,
        is_ready=record.is_ready and is_live,
        started_at=record.started_at,
        seen_at=record.seen_at,
        silent_s=round(max(0.0, now_s - record.seen_at), 3),
        revision=record.revision,
        generations=record.generations,
        versions={
            model: {version: known["state"] for version, known in versions.items()}
            for model, versions in record.versions.items()
        },
        faults={model: str(fault) for model, fault in record.faults.items()},
    )
