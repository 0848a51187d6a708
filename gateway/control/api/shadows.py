"""/v1/shadows: what shadows answered beside what callers got, added up over workers; and the worst of it."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter

from gateway.control import answers
from gateway.control.api.common import Shared, refusals

router = APIRouter(prefix="/v1/shadows", tags=["shadows"])

PAIR, DISAGREEMENT = "pair", "disagreement"
"""Kinds of reports that workers write."""


@router.get("/{model}", summary="Pairs compared, by version and stage", responses=refusals())
def show_shadows(plane: Shared, model: str) -> answers.Shadows:
    sums: dict[tuple[str, str], Any] = {}
    for report in plane.store.reports(PAIR, model=model):
        key = report.version, report.key
        body = json.loads(report.body)
        sums[key] = added(sums[key], body) if key in sums else body
    return answers.Shadows(
        model=model,
        pairs=[answers.Pairs(version=version, key=key, counts=counts) for (version, key), counts in sums.items()],
    )


@router.get("/{model}/disagreements", summary="Samples of the worst and the latest", responses=refusals())
def show_disagreements(plane: Shared, model: str) -> answers.Disagreements:
    found = [
        answers.Disagreement(version=report.version, key=report.key, at=report.at, sample=json.loads(report.body))
        for report in plane.store.reports(DISAGREEMENT, model=model)
    ]
    return answers.Disagreements(model=model, disagreements=found)


def added(left: Any, right: Any) -> Any:
    """Two documents of counters: numbers add up, dictionaries by key, lists by place; of the rest, the first counts."""
    if isinstance(left, dict) and isinstance(right, dict):
        return {
            key: added(left[key], right[key]) if key in left and key in right else left.get(key, right.get(key))
            for key in {**left, **right}
        }
    if isinstance(left, list) and isinstance(right, list):
        longer, shorter = (left, right) if len(left) >= len(right) else (right, left)
        return [added(a, b) for a, b in zip(longer, shorter, strict=False)] + longer[len(shorter) :]
    if isinstance(left, bool) or not isinstance(left, int | float) or not isinstance(right, int | float):
        return left
    return left + right
