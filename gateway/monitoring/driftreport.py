"""What people and programs read of a version's drift: by column the levels, the distances in each window, the evidence.

Written by `drift.assess` and kept as JSON; the API hands it out, the command line draws it.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from gateway.evidence import sentence
from gateway.monitoring import detector, distances
from gateway.monitoring.baseline import SCHEMA, Baseline, Column, Integers
from gateway.monitoring.drawing import ruler, spread
from gateway.monitoring.weighing import requests_of
from gateway.monitoring.windows import MINUTE_S, SPANS_S, Counted

if TYPE_CHECKING:
    from gateway.monitoring.drift import DriftState

Side = Literal["input", "output", "schema"]
Status = Literal["waiting", "ok", "moved", "alarm"]
"""waiting: nothing judged yet. moved: beyond what is tolerated in the last window, and not enough evidence to page."""
MAX_SHOWN_CELLS = 32
_CHI_SQUARE_LEAST = 5.0
_TREND_LEAST = 5


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Level(_Part):
    """Where the values lie. mean and std of finite values, None for words."""

    n: int
    missing: float
    """Share of rows: NaN and infinite, or missing; of the schema, malformed requests."""
    strange: float
    """Share of values: out of the baseline's range, or not in its vocabulary."""
    mean: float | None = None
    std: float | None = None


class Distance(_Part):
    """One window against the baseline. None: nothing to compare, or it does not apply."""

    level: Level
    is_enough: bool
    """n has reached `least_n`: below it psi is mostly chance."""
    psi: float | None = None
    """Corrected for chance."""
    js: float | None = None
    ks: float | None = None
    wasserstein: float | None = None
    """In interquartile ranges of the baseline."""
    chi_square_p: float | None = None
    """Of no more than the tolerated distance."""


class ColumnDrift(_Part):
    name: str
    side: Side
    kind: str
    status: Status
    sentence: str
    score: float | None
    """Distance in tolerances, last judged window: 1 is what is tolerated."""
    per_hour: float | None
    """How fast the score rises, over the windows of `trend`."""
    since: float | None
    """When it began, seconds since 1970, as far as the evidence says. None: nothing speaks for a change."""
    evidence: float
    """ln M of the detector; a page at `threshold` of the report."""
    least_n: int
    baseline: Level
    windows: dict[str, Distance]
    labels: tuple[str, ...]
    """Of the cells of both shapes: numbers on an even scale, what is outside of the profile's range at the ends."""
    shape_baseline: tuple[float, ...]
    shape_now: tuple[float, ...]
    trend: tuple[float | None, ...]
    n_like: int
    """Windows of this time of day that were learnt; from 100 on they are used."""


class DriftReport(_Part):
    model: str
    version: str
    at: float
    judged_until: float
    """Windows up to here are decided."""
    sentence: str
    threshold: float
    budget_days: float
    tolerance: float
    major: float
    source: str
    """Of the profile: data or live."""
    rows: int
    requests: dict[str, int]
    """By window."""
    columns: tuple[ColumnDrift, ...]
    """Worst first."""
    pages: tuple[str, ...]
    """Columns whose evidence has reached the threshold and that have no open alarm."""
    named: tuple[str, ...]
    """Columns that are to blame beside, of which one in ten is innocent on average."""

    def column(self, name: str) -> ColumnDrift:
        return next(column for column in self.columns if column.name == name)


def write(baseline: Baseline, state: DriftState, now_s: float, threshold: float) -> DriftReport:
    """The report of a state."""
    end_s = max(state.judged_until_s, int(now_s) // MINUTE_S * MINUTE_S)  # the minute that runs says too little
    spans = {name: state.ring.last(baseline, span_s, end_s) for name, span_s in SPANS_S.items()}
    shown = next((name for name in ("1m", "10m", "1h") if _requests(baseline, spans[name].cells) >= 50), "1d")
    names = [column.name for column in baseline.judged]
    pages = tuple(
        name for name, log_m in zip(names, state.detector.log_m.tolist(), strict=True)
        if log_m >= threshold and name not in state.held
    )  # fmt: skip
    named = tuple(name for name in detector.named(state.detector, names) if name not in state.held)
    n_like = _n_like(state, len(names))
    columns = [
        _column(baseline, column, at, state, spans, shown, column.name in pages or column.name in state.held, n_like)
        for at, column in enumerate(baseline.judged)
    ]
    order = {"alarm": 0, "moved": 1, "ok": 2, "waiting": 3}
    columns.sort(key=lambda each: (order[each.status], -(each.score if each.score is not None else -math.inf)))
    return DriftReport(
        model=baseline.model, version=baseline.version, at=now_s, judged_until=state.judged_until_s,
        sentence=_verdict(columns), threshold=threshold, budget_days=baseline.settings.budget_days,
        tolerance=baseline.settings.tolerance, major=baseline.settings.major, source=baseline.source,
        rows=baseline.rows, requests={name: _requests(baseline, span.cells) for name, span in spans.items()},
        columns=tuple(columns), pages=pages, named=named,
    )  # fmt: skip


def distance(column: Column, counted: Integers, moments: npt.NDArray[np.float64], tolerance: float) -> Distance:
    """One window of one column."""
    level = _level(column, counted, moments)
    least = distances.least_n(column.p.size)
    now, base = column.shape(counted), column.shape(column.base)
    n_values = int(now.sum())
    if not column.has_shape or n_values == 0 or not base.sum():
        return Distance(level=level, is_enough=level.n >= least)
    groups = distances.coarsen(base, _CHI_SQUARE_LEAST * max(1.0, base.sum() / n_values))
    coarse_now, coarse_base = np.add.reduceat(now, groups), np.add.reduceat(base, groups)
    is_numeric = column.edges is not None
    return Distance(
        level=level, is_enough=level.n >= least,
        psi=float(distances.corrected_psi(now, base)), js=float(distances.js_distance(now, base)),
        ks=float(distances.ks(now, base)) if is_numeric else None,
        wasserstein=float(distances.wasserstein(now, base, column.edges)) / column.iqr
        if column.edges is not None and column.iqr > 0 else None,
        chi_square_p=float(distances.chi_square_p(coarse_now, coarse_base, tolerance)) if groups.size > 1 else None,
    )  # fmt: skip


def _level(column: Column, counted: Integers, moments: npt.NDArray[np.float64] | None) -> Level:
    n = int(counted.sum())
    missing, strange = column.hits(counted)
    mean = std = None
    if moments is None:
        mean, std = column.mean, column.std
    elif moments[0] > 0:
        count, total, squares = moments.tolist()
        mean = column.centre + column.scale * total / count
        std = column.scale * math.sqrt(max(squares / count - (total / count) ** 2, 0.0))
    return Level(n=n, missing=missing / n if n else 0.0, strange=strange / (n - missing) if n > missing else 0.0,
                 mean=mean, std=std)  # fmt: skip


def _column(
    baseline: Baseline, column: Column, at: int, state: DriftState, spans: dict[str, Counted], shown: str,
    is_alarm: bool, n_like: Integers,
) -> ColumnDrift:  # fmt: skip
    row = baseline.columns.index(column)
    tolerance = baseline.settings.tolerance
    windows = {
        name: distance(column, span.cells[column.cells], span.moments[row], tolerance) for name, span in spans.items()
    }
    trend = [float(scores[at]) for _, scores in state.recent]
    known = [score for score in trend if not math.isnan(score)]
    score = known[-1] if known else None
    judged = max(_requests(baseline, state.before), 1)
    n_steady = math.ceil(distances.least_n(column.p.size, tolerance) / judged)  # so many windows are enough rows
    is_moved = len(known) >= n_steady and known[-1] >= 1.0 and float(np.mean(known[-n_steady:])) >= 1.0
    status: Status = "alarm" if is_alarm else "waiting" if score is None else "moved" if is_moved else "ok"
    since = float(state.detector.since_s[at]) if state.detector.log_run[at] > 0.0 else None
    before = _level(column, column.base, None)
    now = spans[shown].cells[column.cells]
    labels, shape_base, shape_now = _shape(column, column.shape(column.base), column.shape(now))
    return ColumnDrift(
        name=column.name, side=column.side, kind=column.kind, status=status,  # type: ignore[arg-type]
        sentence=tell(column, windows[shown], before, baseline.settings.tolerance_rate, labels, shape_base, shape_now),
        score=score, per_hour=_per_hour(state, at), since=since,
        evidence=max(float(state.detector.log_m[at]), -50.0), least_n=distances.least_n(column.p.size),
        baseline=before, windows=windows, labels=labels, shape_baseline=shape_base, shape_now=shape_now,
        trend=tuple(None if math.isnan(each) else round(each, 3) for each in trend), n_like=int(n_like[at]),
    )  # fmt: skip


def tell(
    column: Column, now: Distance, before: Level, rate: float, labels: tuple[str, ...],
    shape_base: tuple[float, ...], shape_now: tuple[float, ...],
) -> str:  # fmt: skip
    """What has changed most, in the column's own words."""
    level = now.level
    if level.n == 0:
        return "no rows"
    if column.name == SCHEMA:
        return f"{sentence.percent(level.missing)} of requests do not fit the model"
    parts = []
    if level.missing - before.missing >= rate:
        parts.append(f"{_percent(level.missing)} missing, was {_percent(before.missing)}")
    if level.strange - before.strange >= rate:
        word = "unseen before" if column.kind == "categorical" else "out of range"
        parts.append(f"{_percent(level.strange)} {word}, was {_percent(before.strange)}")
    if level.mean is not None and before.mean is not None:
        if before.std and level.std is not None and abs(level.std / before.std - 1.0) >= 0.25:
            parts.append(f"spread {sentence.number(level.std)}, was {sentence.number(before.std)}")
        moved = (level.mean - before.mean) / before.std if before.std else 0.0
        by = f" ({moved:+.2g} deviations)" if abs(moved) >= 0.05 else ""
        parts.insert(0, f"mean {level.mean:.4g}, was {before.mean:.4g}{by}")
    elif shape_now and shape_base:
        at = int(np.argmax(np.abs(np.subtract(shape_now, shape_base))))
        if shape_now[at] != shape_base[at]:
            parts.append(f"{labels[at]} {_percent(shape_now[at])}, was {_percent(shape_base[at])}")
    return "; ".join(parts) or "as in the baseline"


def _verdict(columns: list[ColumnDrift]) -> str:
    """Input drift, output drift and violations of the schema, told apart."""
    by_side = {side: [each.name for each in columns if each.side == side] for side in ("input", "output")}
    alarms = {side: [each.name for each in columns if each.side == side and each.status == "alarm"]
              for side in ("input", "output", "schema")}  # fmt: skip
    if all(each.status == "waiting" for each in columns):
        return "nothing judged yet: a window takes a whole minute with enough requests"
    parts = []
    if alarms["schema"]:
        parts.append("requests do not fit the model: a client changed what it sends")
    if alarms["input"] and alarms["output"]:
        parts.append(f"inputs drifted ({_listed(alarms['input'], len(by_side['input']))}), and outputs with them")
    elif alarms["input"]:
        parts.append(f"inputs drifted ({_listed(alarms['input'], len(by_side['input']))}), outputs hold")
    elif alarms["output"]:
        parts.append(
            f"outputs drifted ({_listed(alarms['output'], len(by_side['output']))}) while no input did by itself: the "
            "model answers otherwise, or inputs changed together"
        )
    if parts:
        return "; ".join(parts)
    moved = [each.name for each in columns if each.status == "moved"]
    if moved:
        return f"no alarm; beyond what is tolerated in the last window: {_listed(moved, len(columns))}"
    return f"nothing drifted in {len(columns)} columns"


def _listed(names: list[str], of: int) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}; {len(names)} of {of}"


def _per_hour(state: DriftState, at: int) -> float | None:
    """Slope of the scores by least squares; None until there are some."""
    known = [(start_s, scores[at]) for start_s, scores in state.recent if not math.isnan(scores[at])]
    if len(known) < _TREND_LEAST:
        return None
    hours = np.array([start_s - known[0][0] for start_s, _ in known]) / 3600.0
    return round(float(np.polyfit(hours, [score for _, score in known], 1)[0]), 3)


def _n_like(state: DriftState, n_columns: int) -> Integers:
    like = state.detector.like(int(state.detector.starts_s[-1])) if state.detector.scores else np.zeros(0, np.intp)
    total = np.zeros(n_columns, np.int64)
    for at in like:
        total += ~np.isnan(state.detector.scores[at])
    return total


def _shape(
    column: Column, base: Integers, now: Integers
) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """Labels and shares for the eye: numbers by how dense they are on an even scale, words as they are."""
    if column.edges is not None and column.kind != "calibration":
        edges, counts = column.edges.tolist(), base[1:-1].tolist()
        marks = ruler(edges, counts, MAX_SHOWN_CELLS - 2)
        shares = [
            _shares(np.concatenate([side[:1], spread(edges, side[1:-1].tolist(), marks), side[-1:]]))
            for side in (base, now)
        ]
        inner = (f"{a:.4g} to {b:.4g}" for a, b in itertools.pairwise(marks.tolist()))
        return (f"below {edges[0]:.4g}", *inner, f"above {edges[-1]:.4g}"), shares[0], shares[1]
    common = np.sort(np.argsort(-(base + now), kind="stable")[: MAX_SHOWN_CELLS - 1])
    rest = np.setdiff1d(np.arange(base.size), common)
    labels = [column.labels[at] for at in common] + (["all others"] if rest.size else [])
    shown = [_shares(np.append(side[common], side[rest].sum()) if rest.size else side[common]) for side in (base, now)]
    return tuple(labels), shown[0], shown[1]


def _shares(counts: npt.NDArray[Any]) -> tuple[float, ...]:
    total = float(counts.sum())
    return tuple(round(share, 5) for share in (counts / total).tolist()) if total else ()


def _requests(baseline: Baseline, cells: Integers) -> int:
    return sum(requests_of(baseline, cells))


def _percent(share: float) -> str:
    return sentence.percent(float(f"{share:.2g}"))
