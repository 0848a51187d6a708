"""Simulated traffic: requests and errors of both arms by second, for many rollouts at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stage: so many ticks with this share of the traffic on the candidate."""

    pi: float
    ticks: int


@dataclass(frozen=True, slots=True)
class World:
    """What happens to both arms, and how much worse the candidate is.

    `error_rate` is stable's; the candidate's is `relative_risk` times that of the same moment. A swing is a sine of
    that relative size over the whole horizon, at a random phase; an incident multiplies the rate of BOTH arms for some
    minutes at a random time.
    """

    name: str
    stages: tuple[Stretch, ...]
    tick_s: int = 1
    requests_per_s: int = 50
    error_rate: float = 0.005
    relative_risk: float = 1.0
    swing: float = 0.0
    incident_factor: float = 1.0
    incident_s: int = 600
    told: str = field(default="", compare=False)  # for people

    @property
    def ticks(self) -> int:
        return sum(stage.ticks for stage in self.stages)

    @property
    def pis(self) -> tuple[float, ...]:
        return tuple(stage.pi for stage in self.stages)

    @property
    def stage_of_tick(self) -> Ints:
        return np.repeat(np.arange(len(self.stages)), [stage.ticks for stage in self.stages])

    def rates(self, rng: np.random.Generator, n: int) -> Floats:
        """Stable's error rate by rollout and tick: (n, ticks)."""
        time = np.arange(self.ticks) / self.ticks
        rate = np.full((n, self.ticks), self.error_rate)
        if self.swing:
            rate *= 1.0 + self.swing * np.sin(2.0 * np.pi * (time + rng.random((n, 1))))
        if self.incident_factor != 1.0:
            length = self.incident_s // self.tick_s
            start = rng.integers(0, self.ticks - length, (n, 1))
            at = np.arange(self.ticks)
            rate *= np.where((at >= start) & (at < start + length), self.incident_factor, 1.0)
        return rate


@dataclass(frozen=True, slots=True)
class Traffic:
    """Counts by rollout and tick: (rollouts, ticks)."""

    world: World
    n_stable: Ints
    n_candidate: Ints
    k_stable: Ints
    k_candidate: Ints

    @classmethod
    def simulate(cls, world: World, rng: np.random.Generator, n: int) -> Traffic:
        """`n` rollouts of independent requests, each on the candidate with the probability of its stage."""
        pi = np.array(world.pis)[world.stage_of_tick]
        rate = world.rates(rng, n)
        n_all = world.requests_per_s * world.tick_s
        n_candidate = rng.binomial(n_all, pi, (n, world.ticks))
        n_stable = n_all - n_candidate
        k_candidate = rng.binomial(n_candidate, np.minimum(1.0, rate * world.relative_risk))
        return cls(world, n_stable, n_candidate, rng.binomial(n_stable, rate), k_candidate)

    def windows(self, seconds: int) -> Traffic:
        """The same with longer ticks: a monitoring system's points."""
        width = seconds // self.world.tick_s
        shape = (len(self.n_stable), -1, width)
        whole = self.world.ticks // width * width
        fields = (self.n_stable, self.n_candidate, self.k_stable, self.k_candidate)
        return Traffic(self.world, *(f[:, :whole].reshape(shape).sum(axis=2) for f in fields))
