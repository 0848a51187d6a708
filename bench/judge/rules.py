"""What decides on a rollback: the gateway's judge, and what a team would have otherwise.

Each rule takes the traffic of many rollouts and says at which second it would have rolled back; NEVER if it would not.
The others' rules are as their code has them (Argo Rollouts 1.8, Flagger 1.44, Kayenta 2.46), on what they would be
given here: one error-rate metric, success wanted in at least 99 % where stable has 99.5 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]

from bench.judge.twins import LabelTest
from bench.judge.worlds import Traffic

NEVER = np.inf
LEAST_SUCCESS = 0.99  # Flagger's documented example; half of the errors it allows are stable's usual ones

Seconds = npt.NDArray[np.float64]
Rule = Callable[[Traffic], Seconds]


@dataclass(frozen=True, slots=True)
class Method:
    """A rule with its name and what it is, for the tables and the picture."""

    key: str
    name: str
    told: str
    rule: Rule


def label(alpha: float) -> Rule:
    """The gateway's test of arm labels, staged, looked at every second."""

    def rule(traffic: Traffic) -> Seconds:
        world = traffic.world
        test = LabelTest(world.pis)
        stage = world.stage_of_tick
        shape = (*traffic.k_stable.shape, len(world.pis))
        k, n = np.zeros(shape), np.zeros(shape)
        for s in range(len(world.pis)):
            here = stage == s
            k[:, :, s] = np.cumsum(np.where(here, traffic.k_candidate, 0), axis=1)
            n[:, :, s] = k[:, :, s] + np.cumsum(np.where(here, traffic.k_stable, 0), axis=1)
        looks = traffic.k_candidate > 0  # the evidence rises at no other time
        reached = np.zeros(looks.shape, bool)
        reached[looks] = test.log_e(k[looks], n[looks]) >= -math.log(alpha)
        return _first(reached, world.tick_s)

    return rule


def repeated_z(alpha: float, every_s: int = 60) -> Rule:
    """Two proportions compared by a one-sided z-test (pooled variance, all data so far), looked at again and again."""

    def rule(traffic: Traffic) -> Seconds:
        points = traffic.windows(every_s)
        return _first(_z(points) > stats.norm.isf(alpha), every_s)

    return rule


def z_once(alpha: float) -> Rule:
    """The same test, looked at once, at the end: what its p-value is meant for."""

    def rule(traffic: Traffic) -> Seconds:
        z = _z(traffic.windows(60))[:, -1]
        return np.where(z > stats.norm.isf(alpha), float(traffic.world.ticks * traffic.world.tick_s), NEVER)

    return rule


def threshold(interval_s: int, failures: int) -> Rule:
    """Argo Rollouts and Flagger: the candidate's success rate of each interval against a constant.

    Rolled back at the failure number `failures`, counted over the whole run, not in a row. An interval without
    requests is left out, which is kinder than either (there silence counts as failure unless somebody writes a query
    for it).
    """

    def rule(traffic: Traffic) -> Seconds:
        points = traffic.windows(interval_s)
        failed = points.k_candidate > (1.0 - LEAST_SUCCESS) * points.n_candidate
        return _first(np.cumsum(failed, axis=1) >= failures, interval_s)

    return rule


def kayenta(every_s: int, point_s: int = 60, confidence: float = 0.98, tolerance: float = 0.25) -> Rule:
    """Kayenta's Mann-Whitney judge on the error rates by minute, over a growing window, judged every so often.

    Fails when the confidence interval of the shift (candidate - control, Hodges & Lehmann, normal approximation) lies
    above tolerance * |its estimate|. Effect-size gates at their defaults let everything pass.
    """

    def rule(traffic: Traffic) -> Seconds:
        points = traffic.windows(point_s)
        with np.errstate(all="ignore"):
            candidate = np.nan_to_num(points.k_candidate / points.n_candidate)
            control = np.nan_to_num(points.k_stable / points.n_stable)
        step = every_s // point_s
        looks = range(step, candidate.shape[1] + 1, step)
        failed = np.stack([_mann_whitney(candidate[:, :m], control[:, :m], confidence, tolerance) for m in looks], 1)
        return _first(failed, every_s)

    return rule


def _mann_whitney(one: Seconds, other: Seconds, confidence: float, tolerance: float) -> npt.NDArray[np.bool_]:
    m = one.shape[1]
    rank = m * m / 2 - stats.norm.isf((1 - confidence) / 2) * math.sqrt(m * m * (2 * m + 1) / 12)
    if rank < 1:
        return np.zeros(len(one), bool)
    shifts = np.sort((one[:, :, None] - other[:, None, :]).reshape(len(one), -1), axis=1)
    low = shifts[:, math.floor(rank) - 1]
    estimate = np.median(shifts, axis=1)
    result: npt.NDArray[np.bool_] = (low > tolerance * np.abs(estimate)) & (estimate > 0.0)
    return result


def _z(points: Traffic) -> Seconds:
    n_c, n_s, k_c, k_s = (
        np.cumsum(counts, axis=1, dtype=np.float64)
        for counts in (points.n_candidate, points.n_stable, points.k_candidate, points.k_stable)
    )
    pooled = (k_c + k_s) / (n_c + n_s)
    with np.errstate(all="ignore"):
        z = (k_c / n_c - k_s / n_s) / np.sqrt(pooled * (1 - pooled) * (1 / n_c + 1 / n_s))
    return np.nan_to_num(z)


def _first(reached: npt.NDArray[np.bool_], tick_s: int) -> Seconds:
    return np.where(reached.any(axis=1), (reached.argmax(axis=1) + 1.0) * tick_s, NEVER)


METHODS = (
    Method(
        "gateway_01", "this gateway", "exact test of arm labels, risk set to 1 %, looked at every second", label(0.01)
    ),
    Method("gateway_05", "this gateway at 5 %", "the same, risk set to 5 %", label(0.05)),
    Method("z_repeated", "z-test, looked at every minute", "two-proportion z-test, p < 0.05", repeated_z(0.05)),
    Method("z_repeated_01", "the same at p < 0.01", "two-proportion z-test, p < 0.01", repeated_z(0.01)),
    Method("z_once", "z-test, once at the end", "two-proportion z-test, p < 0.05", z_once(0.05)),
    Method("flagger_1", "Flagger", "success >= 99 % each minute, threshold 1 (default)", threshold(60, 1)),
    Method("flagger_5", "Flagger, 5 failures", "success >= 99 % each minute, threshold 5", threshold(60, 5)),
    Method("argo_0", "Argo Rollouts", "success >= 99 % each 5 minutes, failureLimit 0 (default)", threshold(300, 1)),
    Method("argo_3", "Argo, limit 3", "success >= 99 % each 5 minutes, failureLimit 3", threshold(300, 4)),
    Method("kayenta", "Kayenta", "Mann-Whitney, 98 %, dead zone 25 %, judged every 10 minutes", kayenta(600)),
)
