"""One rollout, all methods: how often a good candidate is rolled back, and how soon a bad one is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bench.judge.rules import METHODS
from bench.judge.worlds import Stretch, Traffic, World

Say = Callable[[str], None]

RAMP = tuple(Stretch(pi, 1800) for pi in (0.05, 0.1, 0.25, 0.5))
CALM = World("calm", RAMP, told="healthy candidate, quiet two hours")
INCIDENT = replace(
    CALM, name="incident", incident_factor=6.0, told="ten minutes of six times the errors in both versions"
)
BAD = replace(CALM, name="bad", relative_risk=4.0, told="candidate fails in 2 % instead of 0.5 %")
DOUBLE = replace(CALM, name="risk 2", relative_risk=2.0, told="candidate fails in 1 % instead of 0.5 %")


@dataclass(frozen=True, slots=True)
class Point:
    """What one method does; shares of rollouts, times from the start of the rollout."""

    method: str
    name: str
    told: str
    false_calm: float  # good candidate rolled back on a quiet day
    false_incident: float  # the same, with an incident that hits both versions
    caught: float  # bad candidate (4 times the errors) rolled back at all
    median_s: float  # until then
    p90_s: float
    caught_double: float  # candidate with twice the errors rolled back at all
    median_double_s: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        return {key: None if value == np.inf else value for key, value in asdict(self).items()}


def run(rng: np.random.Generator, rollouts: int, say: Say) -> list[Point]:
    """All methods in the same `rollouts` simulated rollouts of each kind."""
    when: dict[tuple[str, str], list[float]] = {}
    for world in (CALM, INCIDENT, BAD, DOUBLE):
        say(f"comparison: {world.told}")
        for start in range(0, rollouts, 250):
            traffic = Traffic.simulate(world, rng, min(250, rollouts - start))
            for method in METHODS:
                when.setdefault((method.key, world.name), []).extend(method.rule(traffic).tolist())
    points = []
    for method in METHODS:
        calm, incident, bad, double = (
            np.array(when[method.key, world.name]) for world in (CALM, INCIDENT, BAD, DOUBLE)
        )
        points.append(
            Point(
                method.key,
                method.name,
                method.told,
                false_calm=float(np.isfinite(calm).mean()),
                false_incident=float(np.isfinite(incident).mean()),
                caught=float(np.isfinite(bad).mean()),
                median_s=_quantile(bad, 0.5),
                p90_s=_quantile(bad, 0.9),
                caught_double=float(np.isfinite(double).mean()),
                median_double_s=_quantile(double, 0.5),
                n=rollouts,
            )
        )
    return points


def _quantile(times: np.ndarray[Any, np.dtype[np.float64]], share: float) -> float:
    return float(np.quantile(times, share, method="higher"))
