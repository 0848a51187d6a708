"""Traffic in which nothing is wrong, window by window, and what can go wrong with it.

A window is a minute of 1,000 requests. Columns are normal with mean 0 and deviation 1; what a world moves is the mean
of a window, as windows of real traffic do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.special as special

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

N_ROWS = 1000
N_BASE = 20_000
N_BINS = 20
DAY = 1440


@dataclass(frozen=True)
class World:
    name: str
    told: str
    means: Callable[[np.random.Generator, int, int], Floats]
    """(rng, windows, columns) -> the windows' means."""
    rows_per_request: int = 1
    """Rows of one request are equal."""
    is_promised: bool = True
    """Whether it stays within what the detector calls major, so that the budget is promised from the first minute."""


def _still(rng: np.random.Generator, n_windows: int, n_columns: int) -> Floats:
    return np.zeros((n_windows, n_columns))


def _wandering(rng: np.random.Generator, n_windows: int, n_columns: int) -> Floats:
    return 0.1 * rng.normal(size=(n_windows, n_columns))


def _drifting_about(rng: np.random.Generator, n_windows: int, n_columns: int) -> Floats:
    """Autoregressive with deviation .1: what was high a minute ago is high now."""
    memory, means = 0.95, np.zeros((n_windows, n_columns))
    now = 0.1 * rng.normal(size=n_columns)
    for at in range(n_windows):
        now = memory * now + 0.1 * np.sqrt(1 - memory**2) * rng.normal(size=n_columns)
        means[at] = now
    return means


def _daily(amplitude: float) -> Callable[[np.random.Generator, int, int], Floats]:
    def means(rng: np.random.Generator, n_windows: int, n_columns: int) -> Floats:
        phase = rng.uniform(0, 2 * np.pi, size=n_columns)
        day = 2 * np.pi * np.arange(n_windows)[:, None] / DAY
        return amplitude * np.sin(day + phase) + _wandering(rng, n_windows, n_columns)

    return means


WORLDS = (
    World("iid", "requests independent, nothing moves", _still),
    World("wander", "each window's mean off by .1 deviations", _wandering),
    World("correlated", "the same, and it stays off for 20 windows", _drifting_about),
    World("daily", "a daily cycle of .3 deviations, and wandering", _daily(0.3)),
    World("strong-daily", "a daily cycle of .45 deviations, and wandering", _daily(0.45), is_promised=False),
    World("bursts", "20 equal rows in each request", _still, rows_per_request=20),
)


@dataclass(frozen=True)
class Edges:
    """The profile of a column: 20 quantile bins, what lies below and above."""

    edges: Floats
    base: Integers

    @property
    def p(self) -> Floats:
        return (self.base + 0.5) / (self.base.sum() + 0.5 * self.base.size)


def profile(rng: np.random.Generator, spread: float) -> Edges:
    """Of N_BASE rows of a population with that deviation."""
    rows = np.sort(spread * rng.normal(size=N_BASE))
    edges = np.quantile(rows, np.linspace(0, 1, N_BINS + 1))
    edges[-1] = np.nextafter(edges[-1], np.inf)
    counts, _ = np.histogram(rows, edges)
    return Edges(edges, np.concatenate([[0], counts, [0]]))


def shares(edges: Floats, means: Floats, spread: Floats | float = 1.0) -> Floats:
    """Of each cell, [..., cell]."""
    at = special.ndtr((edges - np.asarray(means)[..., None]) / np.asarray(spread)[..., None])
    return np.diff(at, axis=-1, prepend=0.0, append=1.0)


def windows(rng: np.random.Generator, world: World, edges: Floats, means: Floats) -> Iterator[tuple[Integers, Floats]]:
    """Rows and requests by cell, [column, cell], window by window."""
    n = N_ROWS // world.rows_per_request
    for now in means:
        requests = rng.multinomial(n, shares(edges, now))
        yield requests * world.rows_per_request, requests.astype(np.float64)
