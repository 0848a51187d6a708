"""/v1/shadows: what shadows answered beside what callers got, added up over workers; and the worst of it."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter

from gateway.control import answers
from gateway.control.api.common import Shared, refusals
from gateway.routing import shadowreport

router = APIRouter(prefix="/v1/shadows", tags=["shadows"])

PAIR, DISAGREEMENT, REQUESTS = "pair", "disagreement", "shadow"
"""Kinds of reports that workers write."""


@router.get("/{model}", summary="Pairs compared, by version and stage", responses=refusals())
def show_shadows(plane: Shared, model: str) -> answers.Shadows:
    pairs = [
        answers.Pairs(version=version, key=key, rates=shadowreport.rates(counts), counts=counts)
        for (version, key), counts in _merged(plane, PAIR, model).items()
    ]
    requests = [
        answers.ShadowRequests(version=version, **counts)
        for (version, _), counts in _merged(plane, REQUESTS, model).items()
    ]
    return answers.Shadows(
        model=model,
        pairs=sorted(pairs, key=lambda pair: -pair.counts["stage"]),
        requests=sorted(requests, key=lambda each: -each.stage),
    )


def _merged(plane: Shared, kind: str, model: str) -> dict[tuple[str, str], dict[str, Any]]:
    """By version and key, the sum over workers."""
    found: dict[tuple[str, str], list[Any]] = {}
    for report in plane.store.reports(kind, model=model):
        found.setdefault((report.version, report.key), []).append(json.loads(report.body))
    return {key: shadowreport.merged(documents) for key, documents in found.items()}


@router.get("/{model}/disagreements", summary="Samples of the worst and the latest", responses=refusals())
def show_disagreements(plane: Shared, model: str) -> answers.Disagreements:
    found = [
        answers.Disagreement(version=report.version, key=report.key, at=report.at, sample=json.loads(report.body))
        for report in plane.store.reports(DISAGREEMENT, model=model)
    ]
    return answers.Disagreements(model=model, disagreements=found)
