"""/v1/shadows: what shadows answered beside what callers got, added up over workers; and the worst of it."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter

from gateway.control import answers
from gateway.control.api.common import Shared, models_here, refusals
from gateway.control.plane import Plane
from gateway.control.problems import Problem
from gateway.routing.shadowreport import merged, rates

router = APIRouter(prefix="/v1/shadows", tags=["shadows"])

PAIR, DISAGREEMENT, REQUESTS = "pair", "disagreement", "shadow"
"""Kinds of reports that workers write."""


@router.get("/{model}", summary="Pairs compared, by version and stage", responses=refusals(404))
def show_shadows(plane: Shared, model: str) -> answers.Shadows:
    _known(plane, model)
    documents = _by_key(plane, PAIR, model)
    drawn = _by_key(plane, REQUESTS, model)
    return answers.Shadows(
        model=model,
        pairs=[
            answers.Pairs(version=version, key=key, counts=(total := merged(several)), rates=rates(total))
            for (version, key), several in documents.items()
        ],
        requests=[
            answers.ShadowRequests(version=version, stage=key, counts=merged(several))
            for (version, key), several in drawn.items()
        ],
    )


@router.get("/{model}/disagreements", summary="Samples of the worst and the latest", responses=refusals(404))
def show_disagreements(plane: Shared, model: str) -> answers.Disagreements:
    _known(plane, model)
    found = [
        answers.Disagreement(version=report.version, key=report.key, at=report.at, sample=json.loads(report.body))
        for report in plane.store.reports(DISAGREEMENT, model=model)
    ]
    return answers.Disagreements(model=model, disagreements=found)


def _known(plane: Plane, model: str) -> None:
    """Problem 404: neither registered nor routed."""
    if not plane.store.versions(model) and model not in plane.store.routes():
        raise Problem(404, f"model {model!r}: there is none; models here: {models_here(plane)}")


def _by_key(plane: Plane, kind: str, model: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Documents of all workers, also of those that are gone, by (version, key)."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for report in plane.store.reports(kind, model=model):
        found.setdefault((report.version, report.key), []).append(json.loads(report.body))
    return found
