"""Windows until a change is found, by a detector that knows nothing yet and by one that has learnt a day of wandering.

One column of 50 changes, in a wandering world (each window's mean off by .1 deviations).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.drift import false_alarms, worlds
from bench.drift.worlds import DAY, N_ROWS
from gateway.monitoring import detector, weighing
from gateway.monitoring.baseline import Baseline, Settings
from gateway.monitoring.detector import Evidence, State
from gateway.monitoring.profile import Categorical, Numeric, Profile, now_utc

HORIZON = 60
"""Windows: an hour. What is not found by then is not found."""
WORDS = tuple(f"word-{at}" for at in range(10))


@dataclass(frozen=True)
class Effect:
    name: str
    mean: float = 0.0
    spread: float = 1.0
    missing: float = 0.0
    new_word: float = 0.0
    is_words: bool = False


EFFECTS = (
    Effect("nothing"),
    Effect("mean +.2 deviations", mean=0.2),
    Effect("mean +.3", mean=0.3),
    Effect("mean +.4", mean=0.4),
    Effect("mean +.5", mean=0.5),
    Effect("mean +.7", mean=0.7),
    Effect("mean +1", mean=1.0),
    Effect("spread x 1.5", spread=1.5),
    Effect("spread x 2", spread=2.0),
    Effect("2 % NaN, never before", missing=0.02),
    Effect("5 % NaN", missing=0.05),
    Effect("10 % NaN", missing=0.10),
    Effect("2 % a new word", new_word=0.02, is_words=True),
    Effect("5 % a new word", new_word=0.05, is_words=True),
    Effect("20 % a new word", new_word=0.20, is_words=True),
)


@dataclass(frozen=True)
class Row:
    effect: str
    has_learnt: bool
    tolerance: float
    n: int
    found: float
    median: float | None
    p90: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(rng: np.random.Generator, repetitions: int, say: Callable[[str], None]) -> list[Row]:
    rows = []
    for settings in (Settings(), Settings(tolerance=0.1)):
        for effect in EFFECTS:
            for has_learnt in (False, True):
                if settings != Settings() and (effect.missing or effect.is_words or not has_learnt):
                    continue
                say(f"{effect.name}, tolerance {settings.tolerance:g}, {'learnt' if has_learnt else 'new'}")
                delays = [_delay(rng, effect, has_learnt, settings) for _ in range(repetitions)]
                rows.append(_row(effect, has_learnt, settings, delays))
    return rows


def _row(effect: Effect, has_learnt: bool, settings: Settings, delays: list[int | None]) -> Row:
    found = sorted(HORIZON + 1 if delay is None else delay for delay in delays)
    quantiles = [found[min(int(q * len(found)), len(found) - 1)] for q in (0.5, 0.9)]
    median, p90 = (None if each > HORIZON else float(each) for each in quantiles)
    share = sum(each <= HORIZON for each in found) / len(found)
    return Row(effect.name, has_learnt, settings.tolerance, len(found), share, median, p90)


def _delay(rng: np.random.Generator, effect: Effect, has_learnt: bool, settings: Settings) -> int | None:
    baseline = _baseline(rng, effect.is_words, settings)
    column = baseline.columns[0]
    allowed = baseline.allowed(column)
    state = _learnt(rng, baseline) if has_learnt else State.new(1)
    before = np.zeros(column.base.size, np.int64)
    for window in range(-5, HORIZON):
        cells = _window(rng, effect if window >= 0 else Effect("", is_words=effect.is_words), baseline)
        weighed = weighing.weigh(column, allowed, cells, before, N_ROWS)
        before = cells
        evidence = Evidence(
            *(np.atleast_1d(each) for each in (weighed.score, weighed.log_e_tolerated, weighed.log_e_major))
        )
        start_s = 60 * (DAY + 5 + window)
        chance = detector.uniforms(str(rng.integers(2**60)), ["x"], start_s)
        state, _ = detector.step(state, start_s, evidence, np.zeros(1, bool), chance)
        if window >= 0 and state.log_m[0] >= false_alarms.THRESHOLD:
            return window + 1
    return None


def _learnt(rng: np.random.Generator, baseline: Baseline) -> State:
    column = baseline.columns[0]
    plain = Effect("", is_words=column.kind == "categorical")
    cells = np.array([_window(rng, plain, baseline) for _ in range(DAY)])
    score = weighing.shape_score(column.tested(cells), column.p, column.n_base, baseline.settings.tolerance)
    starts = np.arange(DAY, dtype=np.int64) * 60
    zeros = np.zeros(1, np.int64)
    rows = tuple(np.atleast_1d(each).astype(np.float32) for each in score)
    together = detector.windows_together(np.stack(rows))
    return State(starts, rows, np.full(1, -np.inf), zeros, np.zeros(1), zeros, zeros, together)


def _window(rng: np.random.Generator, effect: Effect, baseline: Baseline) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Cells of the first column, as the baseline orders them."""
    column = baseline.columns[0]
    wander = 0.1 * rng.normal()
    if effect.is_words:
        p = column.base[1:-1] / column.base[1:-1].sum()
        moved = p * np.exp(wander * np.linspace(-1, 1, p.size))
        moved /= moved.sum()
        return rng.multinomial(N_ROWS, [0.0, *((1 - effect.new_word) * moved), effect.new_word])
    assert column.edges is not None
    p = worlds.shares(column.edges, np.array(effect.mean + wander), np.array(effect.spread))
    return rng.multinomial(N_ROWS, [effect.missing, 0.0, 0.0, *((1 - effect.missing) * p)])


def _baseline(rng: np.random.Generator, is_words: bool, settings: Settings) -> Baseline:
    if is_words:
        counts = rng.multinomial(worlds.N_BASE, np.arange(10, 0, -1) / 55)
        one: Any = Categorical(
            name="x", tensor="x", vocabulary=WORDS, counts=tuple(counts.tolist()), distinct=len(WORDS)
        )
    else:
        found = worlds.profile(rng, 1.0)
        one = Numeric(
            name="x", tensor="x", edges=tuple(found.edges.tolist()), counts=tuple(found.base[1:-1].tolist()),
            centre=0.0, scale=2.0**-10, mean=0.0, std=1.0, iqr=1.35,
            min=float(found.edges[0]), max=float(found.edges[-1]),
        )  # fmt: skip
    document = Profile(
        model="bench",
        version="1",
        digest="0" * 64,
        source="data",
        rows=worlds.N_BASE,
        created=now_utc(),
        columns=(one,),
    )
    return Baseline.of(document, settings)
