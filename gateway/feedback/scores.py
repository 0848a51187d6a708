"""How versions do by what was reported, out of the kept sums: accuracy, confusion, calibration, errors. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import BaseModel

from gateway.feedback.report import VALUE, Status
from gateway.feedback.tally import BINS, CALIBRATION, CONFUSION, ERROR, OUTCOME, Tally

MAX_CLASSES = 50
"""Of a table of confusion; the rest, the rarest, are one class."""
OTHER = "(other)"
Z = 1.96  # of an interval at 95 %

SumKey = tuple[str, str, str, str]


class Share(BaseModel):
    """A share with its 95 % interval (Wilson)."""

    n: int
    k: int
    share: float
    low: float
    high: float


class Confusion(BaseModel):
    """counts[i][j]: predicted classes[i] where classes[j] was true."""

    classes: list[str]
    counts: list[list[int]]


class Bin(BaseModel):
    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


class Calibration(BaseModel):
    """By the confidence in what was predicted; `error` is the mean gap to the accuracy, by number of answers."""

    error: float
    bins: list[Bin]


class Regression(BaseModel):
    n: int
    mean_absolute_error: float
    root_mean_square_error: float


class Mean(BaseModel):
    n: int
    mean: float
    deviation: float
    total: float


class VersionScores(BaseModel):
    version: str
    accepted: int
    duplicate: int
    accuracy: Share | None = None
    """None: no label yet of a class that was predicted."""
    confusion: Confusion | None = None
    calibration: Calibration | None = None
    regression: Regression | None = None
    values: dict[str, Mean] = {}


class Scores(BaseModel):
    model: str
    versions: list[VersionScores]
    refused: dict[str, int] = {}
    """Reports for any model, by why: without a token that could be read nobody knows which."""


def scores(model: str, sums: Mapping[SumKey, Tally]) -> Scores:
    versions = sorted({version for name, version, _, _ in sums if name == model}, key=_number)
    found = [
        _version(version, {k[2:]: t for k, t in sums.items() if k[:2] == (model, version)}) for version in versions
    ]
    return Scores(model=model, versions=found, refused=refused(sums))


def refused(sums: Mapping[SumKey, Tally]) -> dict[str, int]:
    return {name: tally.n for (model, _, kind, name), tally in sorted(sums.items()) if not model and kind == OUTCOME}


def _version(version: str, sums: Mapping[tuple[str, str], Tally]) -> VersionScores:
    def of(kind: str) -> dict[str, Tally]:
        return {name: tally for (k, name), tally in sums.items() if k == kind}

    outcomes, cells, errors = of(OUTCOME), of(CONFUSION), of(ERROR)
    return VersionScores(
        version=version,
        accepted=_n(outcomes, Status.ACCEPTED),
        duplicate=_n(outcomes, Status.DUPLICATE),
        accuracy=_share(sum(t.hits for t in cells.values()), sum(t.n for t in cells.values())) if cells else None,
        confusion=_confusion(cells) if cells else None,
        calibration=_calibration(of(CALIBRATION)),
        regression=_regression(errors[""]) if "" in errors else None,
        values={name: _mean(tally) for name, tally in sorted(of(VALUE).items())},
    )


def _n(outcomes: Mapping[str, Tally], status: Status) -> int:
    tally = outcomes.get(status.name.lower())
    return tally.n if tally else 0


def _share(k: int, n: int) -> Share:
    p, z2 = k / n, Z * Z
    middle, scale = (p + z2 / (2 * n)) / (1 + z2 / n), 1 + z2 / n
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / scale
    return Share(n=n, k=k, share=p, low=max(0.0, middle - half), high=min(1.0, middle + half))


def _confusion(cells: Mapping[str, Tally]) -> Confusion:
    pairs = {tuple(name.split("\t", 1)): tally.n for name, tally in cells.items()}
    weight: dict[str, int] = {}
    for pair, n in pairs.items():
        for name in set(pair):
            weight[name] = weight.get(name, 0) + n
    kept = sorted(sorted(weight, key=lambda name: -weight[name])[:MAX_CLASSES], key=_number)
    classes = [*kept, *([OTHER] if len(weight) > len(kept) else [])]
    place = {name: i for i, name in enumerate(kept)}
    counts = [[0] * len(classes) for _ in classes]
    for (predicted, label), n in pairs.items():
        counts[place.get(predicted, len(classes) - 1)][place.get(label, len(classes) - 1)] += n
    return Confusion(classes=classes, counts=counts)


def _calibration(found: Mapping[str, Tally]) -> Calibration | None:
    bins, gap, n = [], 0.0, 0
    for name, tally in sorted(found.items(), key=lambda entry: int(entry[0])):
        confidence, accuracy = tally.total / tally.n, tally.hits / tally.n
        low = int(name) / BINS
        bins.append(Bin(low=low, high=low + 1 / BINS, n=tally.n, confidence=confidence, accuracy=accuracy))
        gap += tally.n * abs(confidence - accuracy)
        n += tally.n
    return Calibration(error=gap / n, bins=bins) if n else None


def _regression(tally: Tally) -> Regression:
    mean = tally.total / tally.n
    return Regression(n=tally.n, mean_absolute_error=mean, root_mean_square_error=math.sqrt(tally.squares / tally.n))


def _mean(tally: Tally) -> Mean:
    mean = tally.total / tally.n
    variance = max(0.0, tally.squares / tally.n - mean * mean)
    return Mean(n=tally.n, mean=mean, deviation=math.sqrt(variance), total=tally.total)


def _number(text: str) -> tuple[int, int, str]:
    """Numbers first, in their order."""
    try:
        return 0, int(text), text
    except ValueError:
        return 1, 0, text
