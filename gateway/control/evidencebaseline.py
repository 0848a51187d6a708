"""What a stable version was before a rollout's start, out of what workers have told anyway: tiles, costs, its profile.

Frozen once. A poor one costs time, never the guarantee: the arms are compared with each other, whatever the thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from gateway.control.evidencebins import DEFAULT_EDGES, Integers, on_grid
from gateway.errors import ConfigError
from gateway.monitoring import plan as plans
from gateway.monitoring.profile import FILE_NAME, Calibration, Categorical, Numeric, Profile, load_profile
from gateway.monitoring.tile import TileCounts, latency_bounds_us
from gateway.monitoring.tilekey import TileKey
from gateway.native.tile import Tile
from gateway.native.tileplan import TilePlan
from gateway.rollout import guardrail as rails
from gateway.rollout.baseline import Baseline, CostBaseline, LatencyBaseline, OutputBaseline, freeze_latency
from gateway.rollout.plan import Plan

if TYPE_CHECKING:
    from gateway.store import Report, Store, WorkerRecord

TILE, PLAN, COST = "tile", "plan", "cost"
SINCE_S = 3600.0
"""Of stable's past that counts: what it was yesterday says little of its latency now."""
FAILURES = frozenset({"UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED"})
SHADOW = "shadow"
LEAST_RUNS = 30
"""Of stable alone in its batch, below which its cost is not known."""
MAX_EACH = 8
"""Values of a row that workers count each for itself: ext/gateway/native/seen.pyx."""
LEAST_RENEWED = 200
"""Answers of stable for new thresholds: ten of them are above the 95th percentile, the last that must be shown."""
BINS = 10
"""Of an output, about equally full: enough to see a shift, few enough to see it early."""


def baseline(store: Store, live: Sequence[WorkerRecord], model: str, stable: str, plan: Plan, now_s: float) -> Baseline:
    """What stable was up to now, for the whole rollout. StoreUnavailable."""
    tiles = _Tiles.of(store, model, stable, now_s)
    latency = next((rail for rail in plan.guardrails.values() if isinstance(rail, rails.Latency)), rails.Latency())
    outputs = next((rail for rail in plan.guardrails.values() if isinstance(rail, rails.Distribution)), None)
    return Baseline(
        n=tiles.n,
        n_errors=tiles.n_errors,
        n_broken=tiles.n_broken,
        requests_per_s=tiles.n / tiles.seconds if tiles.seconds else 0.0,
        latency=freeze(tiles.latency, latency.quantiles),
        cost=_cost(store.reports(COST, model, stable, since=now_s - SINCE_S)),
        outputs=_outputs(store, model, stable, outputs.output, tiles) if outputs else None,
    )


def freeze(latency: Integers, quantiles: Sequence[float]) -> LatencyBaseline | None:
    """Of a tile's latency cells. Thresholds are moved to the cells' edges, where counting is exact."""
    bounds = latency_bounds_us()
    used = np.flatnonzero(latency)
    if not used.size:
        return None
    first, last = int(used[0]), int(used[-1])
    edges = [max(float(bound), 0.5) for bound in bounds[first : last + 1]]
    edges.append(float(bounds[last + 1]) if last + 1 < len(bounds) else edges[-1] * 2.0)
    found = freeze_latency(edges, latency[first : last + 1].tolist(), quantiles)
    if found is None:
        return None
    moved: dict[int, float] = {}
    for threshold, p in zip(found.thresholds_us, found.quantiles, strict=True):
        moved.setdefault(max(int(bounds[np.abs(bounds - threshold).argmin()]), 1), p)
    return replace(found, thresholds_us=tuple(moved), quantiles=tuple(moved.values()))


def renewed(before: LatencyBaseline, latency: Integers) -> LatencyBaseline | None:
    """The same quantiles, of later answers of stable; None with too few. One further out than these can tell stays
    where it was, or makes room for those below it.
    """
    if int(latency.sum()) < LEAST_RENEWED or (found := freeze(latency, before.quantiles)) is None:
        return None
    bounds = latency_bounds_us()
    told = dict(zip(found.quantiles, found.thresholds_us, strict=True))
    thresholds: list[int] = []
    for p, old in zip(before.quantiles, before.thresholds_us, strict=True):
        least = int(bounds[np.searchsorted(bounds, thresholds[-1], side="right")]) if thresholds else 1
        thresholds.append(max(told.get(p, least if found.told(p) else old), least))
    return replace(found, thresholds_us=tuple(thresholds), quantiles=before.quantiles)


def _cost(reports: Iterable[Report]) -> CostBaseline | None:
    runs, total, squares = np.sum([orjson.loads(report.body) for report in reports] or [(0, 0, 0)], axis=0)
    if runs < LEAST_RUNS or total <= 0:
        return None
    mean = float(total / runs)
    deviation = float(max(squares / runs - mean * mean, 0.0)) ** 0.5
    return CostBaseline(mean / 1000.0, max(deviation, mean * 1e-3) / 1000.0)


class _Tiles:
    """Sums over workers, arms and minutes."""

    def __init__(self) -> None:
        self.n = self.n_errors = self.n_broken = 0
        self.seconds = 0.0
        self.latency: Integers = np.zeros(len(latency_bounds_us()), np.int64)
        self.plain: dict[str, tuple[float, float]] = {}
        """Of outputs without a profile: least and greatest."""

    @classmethod
    def of(cls, store: Store, model: str, version: str, now_s: float) -> _Tiles:
        found = cls()
        sums: dict[str, Tile] = {}
        known: dict[str, TilePlan] = {}
        for report in store.reports(PLAN, model, version):
            known[report.key] = plans.from_document(report.body)
        starts, ends = [], []
        for report in store.reports(TILE, model, version, since=now_s - SINCE_S):
            key = TileKey.parse(report.key)
            if key.arm == SHADOW or key.plan not in known:
                continue
            tile = Tile.from_bytes(known[key.plan], report.body)
            if key.plan in sums:
                sums[key.plan].add(tile)
            else:
                sums[key.plan] = tile
            starts.append(float(key.start_s))
            ends.append(report.at)
        if starts:
            found.seconds = max(max(ends) - min(starts), 1.0)
        for tile in sums.values():
            found._add(TileCounts.of(tile), tile.plan.columns)
        return found

    def _add(self, counts: TileCounts, columns: Sequence[Mapping[str, Any]]) -> None:
        n_errors = sum(count for code, count in counts.codes.items() if code in FAILURES)
        n_errors += max(counts.codes.get("INVALID_ARGUMENT", 0) - counts.n_violations, 0)  # refused by a run
        self.n += counts.codes.get("OK", 0) + n_errors
        self.n_errors += n_errors
        self.latency = self.latency + counts.latency
        outputs = [counts.columns[given["name"]] for given in columns if given["role"] == "output"]
        self.n_broken += max(
            (each.get("nan", 0) + each.get("neg_inf", 0) + each.get("pos_inf", 0) for each in outputs), default=0
        )
        for given in columns:
            found = counts.columns[given["name"]]
            if given["kind"] == "plain" and found["least"] is not None:
                low, high = self.plain.get(given["name"], (found["least"], found["greatest"]))
                self.plain[given["name"]] = min(low, found["least"]), max(high, found["greatest"])


# --- outputs


def _outputs(store: Store, model: str, stable: str, wanted: str | None, tiles: _Tiles) -> OutputBaseline | None:
    """None: no value of the answers can be told."""
    known = next((record for record in store.versions(model) if record.version == stable), None)
    choices = _profiled(Path(known.path)) if known else {}
    if not choices:
        choices = {name: _evenly(*ends) for name, ends in tiles.plain.items()}
    choices = _without_many(choices)
    if wanted is not None:
        return OutputBaseline(wanted, choices.get(wanted, DEFAULT_EDGES))
    if not choices:
        return None
    # The last of those with most bins: a classifier's probabilities are behind its label, and say more.
    name = max(reversed(list(choices)), key=lambda name: len(choices[name]))
    return OutputBaseline(name, choices[name])


def _without_many(choices: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """Of an output with many values workers count which is the largest."""
    found: dict[str, tuple[float, ...]] = {}
    many = {tensor for tensor, index in map(_split, choices) if index >= MAX_EACH}
    for name, edges in choices.items():
        tensor, _ = _split(name)
        found[f"{tensor}.place" if tensor in many else name] = () if tensor in many else edges
    return found


def _split(name: str) -> tuple[str, int]:
    tensor, bracket, rest = name.rpartition("[")
    return (tensor, int(rest[:-1])) if bracket and rest[:-1].isdigit() else (name, -1)


def _profiled(folder: Path) -> dict[str, tuple[float, ...]]:
    """Edges by value, of what the version's profile says of its outputs."""
    if not (folder / FILE_NAME).exists():
        return {}
    try:
        return dict(_columns(load_profile(folder)))
    except (ConfigError, OSError):
        return {}


def _columns(profile: Profile) -> Iterable[tuple[str, tuple[float, ...]]]:
    for column in profile.outputs:
        name = column.tensor if column.index is None else f"{column.tensor}[{column.index}]"
        match column:
            case Numeric():
                yield name, _distinct(_cut((column.below, *column.counts, column.above), column.edges))
            case Calibration():
                yield name, _distinct(_cut((0, *column.counts, 0), column.EDGES))
            case Categorical():
                words = [float(word) for word in column.vocabulary if isinstance(word, int)]
                yield name, _distinct(sorted(words)[1:]) if words else ()


def _cut(counts: Sequence[int], edges: Sequence[float]) -> Iterator[float]:
    """Of the edges, counts[i] lying below edges[i], those that leave bins about equally full."""
    total, seen, upto = sum(counts), 0, 0
    for count, edge in zip(counts, edges, strict=False):
        seen += count
        if 0 < seen < total and seen * BINS >= (upto + 1) * total:
            upto = seen * BINS // total
            yield edge


def _evenly(low: float, high: float) -> tuple[float, ...]:
    return _distinct(low + (high - low) * i / BINS for i in range(1, BINS)) if low < high else DEFAULT_EDGES


def _distinct(edges: Iterable[float]) -> tuple[float, ...]:
    """On the grid, ascending, each once."""
    return tuple(sorted({on_grid(edge) for edge in edges})) or DEFAULT_EDGES
