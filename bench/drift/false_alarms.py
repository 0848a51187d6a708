"""How often each rule pages in a world in which nothing is wrong: 50 columns, two days of minutes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.drift import rules, worlds
from bench.drift.worlds import DAY, World
from gateway.monitoring import detector, tolerance, weighing
from gateway.monitoring.baseline import Allowed, Settings
from gateway.monitoring.detector import Evidence, State

N_COLUMNS = 50
N_WINDOWS = 2 * DAY
SPAN = 400
"""Windows of the share that is asked for: has it paged at least once?"""
SETTINGS = Settings()
THRESHOLD = detector.log_threshold(N_COLUMNS, DAY, SETTINGS.budget_days)


@dataclass(frozen=True)
class Row:
    world: str
    told: str
    rule: str
    rule_told: str
    streams: int
    pages_per_day: float
    """Windows in which it called some column drifted."""
    learnt_per_day: float
    """The same on the second day alone."""
    within: float
    """Share of stretches of SPAN windows with a page."""
    budget: float | None
    is_kept: bool | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def allowed(p: np.ndarray[Any, Any], settings: Settings = SETTINGS) -> Allowed:
    """As Baseline makes it, for a column that has nothing but a shape."""
    balls = [float(tolerance.radius(psi, p.size, worlds.N_BASE)) for psi in (settings.tolerance, settings.major)]
    moves = tolerance.moves(p)
    ratios = [tolerance.log_ratios(moves, p, ball) for ball in balls]
    rates = ((settings.tolerance_rate, settings.major_rate),) * 2
    return Allowed(settings.tolerance, settings.tolerance_rate, (balls[0], balls[1]), (ratios[0], ratios[1]), rates)


def run(rng: np.random.Generator, streams: int, say: Callable[[str], None], only: str | None = None) -> list[Row]:
    rows: list[Row] = []
    for world in worlds.WORLDS:
        if only in (None, world.name):
            rows += _one_world(rng, world, streams, say)
    return rows


def _one_world(rng: np.random.Generator, world: World, streams: int, say: Callable[[str], None]) -> list[Row]:
    pages: dict[str, list[list[int]]] = {name: [] for name in (*rules.RULES, "alibi", "nannyml", "gateway")}
    for stream in range(streams):
        say(f"{world.name}: stream {stream + 1} of {streams}")
        for name, found in _stream(rng, world, with_rules=stream == 0).items():
            pages[name].append(found)
    told = {name: text for name, (text, _) in rules.RULES.items()}
    told |= {"alibi": "KS, p < 0.05 / columns (Alibi-Detect)", "nannyml": rules.MeanAndThreeDeviations.told}
    told["gateway"] = f"this gateway, one page in {SETTINGS.budget_days:g} days"
    return [_row(world, name, told[name], found) for name, found in pages.items()]


def _stream(rng: np.random.Generator, world: World, with_rules: bool) -> dict[str, list[int]]:
    """Windows with a page, by rule; one stream is enough for those that page each hour."""
    means = world.means(rng, N_WINDOWS, N_COLUMNS)
    profile = worlds.profile(rng, math.sqrt(1.0 + float(means.var())))
    tables, base = allowed(profile.p), np.broadcast_to(profile.base, (N_COLUMNS, profile.base.size))
    state, before = State.new(N_COLUMNS), None
    nannyml, names = rules.MeanAndThreeDeviations(), [str(at) for at in range(N_COLUMNS)]
    flagged: dict[str, list[bool]] = {name: [] for name in (*rules.RULES, "alibi", "nannyml") if with_rules}
    pages = []
    for at, (rows, requests) in enumerate(worlds.windows(rng, world, profile.edges, means)):
        if with_rules:
            for name, (_, rule) in rules.RULES.items():
                flagged[name].append(bool(rule(rows, base, profile.edges).any()))
            flagged["alibi"].append(bool(rules.bonferroni_ks(rows, base, N_COLUMNS).any()))
            drifted = nannyml.look(rows, base)
            flagged["nannyml"].append(bool(drifted is not None and drifted.any()))
        weighed = weighing.weigh_shape(requests, before, profile.p, worlds.N_BASE, tables)
        before = requests
        chance = detector.uniforms(world.name, names, at * 60)
        evidence = Evidence(weighed.score, weighed.log_e_tolerated, weighed.log_e_major)
        state, _ = detector.step(state, at * 60, evidence, np.zeros(N_COLUMNS, bool), chance)
        fired = state.log_m >= THRESHOLD
        if fired.any():
            pages.append(at)
            state = state.restarted(fired)
    return {name: np.flatnonzero(on).tolist() for name, on in flagged.items()} | {"gateway": pages}


def _row(world: World, name: str, told: str, found: list[list[int]]) -> Row:
    n = len(found)
    total = sum(map(len, found))
    stretches = [any(start <= at < start + SPAN for at in pages)
                 for pages in found for start in range(0, N_WINDOWS - SPAN + 1, SPAN)]  # fmt: skip
    days = n * N_WINDOWS / DAY
    second = sum(at >= DAY for pages in found for at in pages) / (n * (N_WINDOWS - DAY) / DAY)
    budget = 1.0 / SETTINGS.budget_days if name == "gateway" and world.is_promised else None
    is_kept = None if budget is None else total <= budget * days + 3 * math.sqrt(budget * days)
    return Row(world.name, world.told, name, told, n, total / days, second, float(np.mean(stretches)), budget, is_kept)
