"""What is known of stable before the start, frozen for the whole rollout: the thresholds that latency is counted at,
and what things are measured in. A bad one costs time; whatever it is, the comparison of the arms stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.evidence import mean
from gateway.evidence.latency import relative_risks
from gateway.evidence.quantiles import quantile

LEAST_REQUESTS = 100
"""Answers of stable below which its latency has no quantiles worth freezing."""
EVENTS_BEYOND = 5.0
"""Requests expected above a threshold: with fewer a quantile is the largest value seen, and a poor threshold."""


@dataclass(frozen=True, slots=True)
class LatencyBaseline:
    """Stable's histogram, counts[i] answers between edges_us[i] and edges_us[i+1], and the thresholds taken from it."""

    edges_us: tuple[float, ...]
    counts: tuple[int, ...]
    thresholds_us: tuple[int, ...]  # ascending; the evidence has one bin more
    quantiles: tuple[float, ...]  # that each threshold was

    def risks(self, slowdown: float) -> tuple[float, ...]:
        """How many times as often a version `slowdown` times as slow is above each threshold."""
        return relative_risks(self.counts, self.edges_us, self.thresholds_us, slowdown)

    def shares(self, slowdown: float) -> tuple[float, ...]:
        """What share of the answers of such a version is above each threshold."""
        n = sum(self.counts)
        now = [self._above(threshold) / n for threshold in self.thresholds_us]
        return tuple(min(share * risk, 1.0 - 1e-6) for share, risk in zip(now, self.risks(slowdown), strict=True))

    def _above(self, threshold_us: int) -> float:
        total = 0.0
        for i, count in enumerate(self.counts):
            low, high = self.edges_us[i], self.edges_us[i + 1]
            if threshold_us <= low:
                total += count
            elif threshold_us < high:  # spread evenly in the logarithm, as relative_risks has it
                total += count * (math.log(high) - math.log(threshold_us)) / (math.log(high) - math.log(low))
        return max(total, 0.5)


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
    cost: CostBaseline | None = None
    outputs: OutputBaseline | None = None
    phi: float = 1.0  # size of the bursts that errors come in, see evidence.dispersion; with sticky keys above 1

    @property
    def error_share(self) -> float:
        return (self.n_errors + 0.5) / (self.n + 1.0)


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
