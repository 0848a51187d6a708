"""Tiles of all workers as sliding windows: the last minute, ten minutes, hour and day.

A minute is one vector of integers (see `baseline`) with its moments; minutes are kept for an hour and whole hours for a
day: some 150 vectors and not 1,440. The day begins at a clock hour, so it is up to an hour short of its name.
Whoever reports late, up to an hour, is still counted in; a worker's later tile replaces its earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gateway.evidence.numeric import Floats
from gateway.monitoring.baseline import Baseline, Integers

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
SPANS_S: Mapping[str, int] = {"1m": MINUTE_S, "10m": 600, "1h": HOUR_S, "1d": DAY_S}
KEPT_MINUTES_S = 2 * HOUR_S
"""Until its hour is over and late tiles are in, a minute stays by itself."""


@dataclass(frozen=True, slots=True)
class MinuteTile:
    """What one worker counted of one version in one arm and stage from `start_s` on, cumulative until it is over."""

    start_s: int
    source: str
    """Incarnation, arm and stage: a later tile of the same source and minute replaces this one."""
    counts: Mapping[str, Mapping[str, Any]]
    n_requests: int
    n_violations: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """Cells, and for each column n, sum and sum of squares in its scale around its centre (for people: floats)."""

    cells: Integers
    moments: Floats

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.cells + other.cells, self.moments + other.moments)

    @classmethod
    def none(cls, baseline: Baseline) -> Counted:
        return cls(np.zeros(baseline.n_cells, np.int64), np.zeros((len(baseline.columns), 3)))

    @classmethod
    def of(cls, baseline: Baseline, tile: MinuteTile) -> Counted:
        moments = np.zeros((len(baseline.columns), 3))
        for row, column in enumerate(baseline.columns):
            mine = tile.counts.get(column.name, {})
            if "sum" in mine:
                cells = [int(np.sum(mine.get(key, 0))) for key in ("below", "counts", "above")]
                moments[row] = sum(cells), float(mine["sum"]), float(mine["sum_squares"])
        return cls(baseline.vector(tile.counts, tile.n_requests, tile.n_violations), moments)


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """The windows of one version. Immutable: `with_tiles` and `at` give new ones."""

    minutes: Mapping[int, Mapping[str, Counted]] = field(default_factory=dict)
    """Start of the minute -> source -> counted."""
    hours: Mapping[int, Counted] = field(default_factory=dict)

    def with_tiles(self, baseline: Baseline, tiles: Iterable[MinuteTile]) -> Ring:
        """Later tiles of a source and minute replace earlier ones; minutes that are in their hour already are left."""
        minutes = {start: dict(sources) for start, sources in self.minutes.items()}
        for tile in tiles:
            hour = tile.start_s - tile.start_s % HOUR_S
            if tile.start_s % MINUTE_S:
                raise ValueError(f"start_s: got {tile.start_s}, expected a whole minute")
            if hour not in self.hours:
                minutes.setdefault(tile.start_s, {})[tile.source] = Counted.of(baseline, tile)
        return replace(self, minutes=minutes)

    def at(self, baseline: Baseline, now_s: float) -> Ring:
        """Hours that are over by an hour are put together, days that are over are dropped."""
        limit_s = (int(now_s) - KEPT_MINUTES_S) // HOUR_S * HOUR_S + HOUR_S
        hours = {start: each for start, each in self.hours.items() if start >= now_s - DAY_S - HOUR_S}
        minutes: dict[int, Mapping[str, Counted]] = {}
        for start in sorted(self.minutes):
            hour = start - start % HOUR_S
            if start >= limit_s:
                minutes[start] = self.minutes[start]
            elif hour >= now_s - DAY_S - HOUR_S:
                hours[hour] = hours.get(hour, Counted.none(baseline)) + self.minute(baseline, start)
        return Ring(minutes, hours)

    def minute(self, baseline: Baseline, start_s: int) -> Counted:
        """All sources of a minute together."""
        return sum(self.minutes.get(start_s, {}).values(), Counted.none(baseline))

    def last(self, baseline: Baseline, span_s: int, end_s: float) -> Counted:
        """What was counted in the `span_s` before `end_s`; of hours that were put together those that began then."""
        total = sum((each for start, each in self.hours.items() if start >= end_s - span_s), Counted.none(baseline))
        for start in self.minutes:
            if end_s - span_s <= start < end_s:
                total = total + self.minute(baseline, start)
        return total
