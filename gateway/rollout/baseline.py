"""What is known of stable before the requests that are judged: the thresholds that latency is counted at, and what
things are measured in. A bad one costs time; whatever it is, the comparison of the arms stays exact. All is frozen at
the start, but for the thresholds: they are taken anew with every epoch, of stable's answers in the one before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.evidence import mean
from gateway.evidence.latency import duration
from gateway.evidence.quantiles import quantile

LEAST_REQUESTS = 100
"""Answers of stable below which its latency has no quantiles worth freezing."""
EVENTS_BEYOND = 5.0
"""Requests expected above a threshold: with fewer a quantile is the largest value seen, and a poor threshold."""
STRAYED = 2.0
"""Times by which a quantile must have moved for its threshold to be of no use: what is between is slow evidence."""
STRAY_REQUESTS, STRAY_EVENTS = 200, 50.0
"""Answers of stable, and of those above the quantile, that must say so: a burst is no other speed."""


@dataclass(frozen=True, slots=True)
class LatencyBaseline:
    """Stable's histogram, counts[i] answers between edges_us[i] and edges_us[i+1], and the thresholds taken from it."""

    edges_us: tuple[float, ...]
    counts: tuple[int, ...]
    thresholds_us: tuple[int, ...]  # ascending; the evidence has one bin more
    quantiles: tuple[float, ...]  # that each threshold was

    def limits(self, slowdown: float, floor_us: int) -> tuple[int, ...]:
        """What an answer at each threshold would take in a version that is so many times as slow; what differs by less
        than the floor is as fast.
        """
        return tuple(max(math.ceil(x * slowdown), x + floor_us) for x in self.thresholds_us)

    def shares(self, slowdown: float = 1.0) -> tuple[float, ...]:
        """What share of the answers of a version that is so many times as slow is above each threshold."""
        return tuple(self.share_above(x / slowdown) for x in self.thresholds_us)

    def share_above(self, us: float) -> float:
        """Of stable's answers; within a cell they are spread evenly in the logarithm."""
        total = 0.0
        for i, count in enumerate(self.counts):
            low, high = self.edges_us[i], self.edges_us[i + 1]
            if us <= low:
                total += count
            elif us < high:
                total += count * (math.log(high) - math.log(us)) / (math.log(high) - math.log(low))
        return min(max(total, 0.5) / sum(self.counts), 1.0 - 1e-6)

    def told(self, quantile: float, events: float = EVENTS_BEYOND) -> bool:
        """Whether so many answers can tell this quantile."""
        return sum(self.counts) * (1.0 - quantile) >= events

    def strays_from(self, other: LatencyBaseline, upto: float, floor_us: int, times: int = 1) -> str:
        """In words, that stable is now so far from the other's thresholds that they show nothing; else empty. It takes
        so many times as many answers to say so.
        """
        if sum(self.counts) < STRAY_REQUESTS * times:
            return ""
        for p, now, then in zip(self.quantiles, self.thresholds_us, other.thresholds_us, strict=True):
            apart = max(now, then) > STRAYED * min(now, then) and abs(now - then) > floor_us
            if p <= upto and apart and self.told(p, STRAY_EVENTS * times):
                return f"{100.0 * p:g} % of stable's answers take up to {duration(now)}, not {duration(then)} as before"
        return ""


@dataclass(frozen=True, slots=True)
class CostBaseline:
    """Execution time per row, in microseconds."""

    mean_us: float
    deviation_us: float
    skewness: float = 2.0

    def metric(self) -> mean.Metric:
        """What the counters must have summed: z by this metric's `quantise`."""
        return mean.Metric(
            self.mean_us,
            max(self.deviation_us, 1e-3) / 1000.0,
            max(self.deviation_us, 1e-3),
            self.skewness,
            low=0.0,
            high=100.0 * max(self.mean_us, 1e-3),
            name="execution time per row in us",
        )


@dataclass(frozen=True, slots=True)
class OutputBaseline:
    """Into which bins one value of each answer falls, for both arms."""

    column: str
    """Its name as workers have it: the tensor's, with [index] behind it where a row has several values."""
    edges: tuple[float, ...] = ()
    """Ascending, between the bins; what is no number has a bin of its own. None: words, by their hash."""


@dataclass(frozen=True, slots=True)
class Baseline:
    n: int = 0  # requests of stable that it was taken from
    n_errors: int = 0
    n_broken: int = 0
    requests_per_s: float = 0.0  # of the model, all versions
    latency: LatencyBaseline | None = None
    later: tuple[tuple[int, LatencyBaseline], ...] = ()  # thresholds taken anew, by the epoch from which they count
    cost: CostBaseline | None = None
    outputs: OutputBaseline | None = None
    phi: float = 1.0  # size of the bursts that errors come in, see evidence.dispersion; with sticky keys above 1

    @property
    def error_share(self) -> float:
        return (self.n_errors + 0.5) / (self.n + 1.0)

    @property
    def latency_now(self) -> LatencyBaseline | None:
        """The newest: where stable is, as far as is known."""
        return self.later[-1][1] if self.later else self.latency

    def latency_at(self, epoch: int) -> LatencyBaseline | None:
        """That requests of this epoch are counted by."""
        found = self.latency
        for since, frozen in self.later:
            if since <= epoch:
                found = frozen
        return found

    def renewed(self, epoch: int, latency: LatencyBaseline | None) -> Baseline:
        """With other thresholds from this epoch on. Requests that they came from are all of earlier ones."""
        return self if latency is None else replace(self, later=(*self.later, (epoch, latency)))


def freeze_latency(
    edges_us: Sequence[float], counts: Sequence[int], quantiles: Sequence[float]
) -> LatencyBaseline | None:
    """Thresholds at these quantiles of stable's histogram; None with too few answers.

    Quantiles that so few answers cannot tell, and those that fall together, are left out; the first is always there.
    """
    n = sum(counts)
    if n < LEAST_REQUESTS:
        return None
    thresholds: list[int] = []
    kept: list[float] = []
    for p in sorted(quantiles):
        if kept and n * (1.0 - p) < EVENTS_BEYOND:
            break
        found = quantile(counts, edges_us, p)
        assert found is not None
        threshold = max(round(found.value), 1)
        if not thresholds or threshold > thresholds[-1]:
            thresholds.append(threshold)
            kept.append(p)
    return LatencyBaseline(tuple(edges_us), tuple(counts), tuple(thresholds), tuple(kept))
