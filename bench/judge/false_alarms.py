"""How often does a test cry wolf, looked at after every event or every second, when nothing is wrong?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.judge import detection, rules
from bench.judge.twins import LabelTest, label_boundary
from bench.judge.worlds import Stretch, Traffic, World

ALPHAS = (0.05, 0.01)
BATCH = 500  # rollouts at a time
Say = Callable[[str], None]

TWO_HOURS = (Stretch(0.1, 7200),)
RAMP = tuple(Stretch(pi, 1800) for pi in (0.01, 0.05, 0.25, 0.5))
WORLDS = (
    World("constant rate", TWO_HOURS, told="10 % of 50 requests/s for two hours, 0.5 % errors"),
    World(
        "rate swings 90 % daily", (Stretch(0.1, 8640),), tick_s=10, swing=0.9, told="10 % of 50 requests/s for a day"
    ),
    World(
        "ramp 1-5-25-50 %, incident on both",
        RAMP,
        incident_factor=6.0,
        told="half an hour each; for ten minutes both versions fail six times as often",
    ),
)


@dataclass(frozen=True, slots=True)
class Rate:
    """The share of `n` simulated rollouts in which the test ever said "worse" (or "good enough"), wrongly."""

    null: str
    test: str
    alpha: float | None  # what the test promises; None: it promises nothing
    wrong: int
    n: int
    note: str = ""
    is_promise: bool = True  # the promise is meant to hold here; False: shown to warn

    @property
    def rate(self) -> float:
        return self.wrong / self.n

    @property
    def standard_error(self) -> float:
        """Of the rate if it were exactly alpha (of the rate itself without one)."""
        p = self.rate if self.alpha is None else self.alpha
        return math.sqrt(p * (1.0 - p) / self.n)

    @property
    def is_kept(self) -> bool | None:
        """Whether the rate is at most alpha + 3 standard errors; None without a promise."""
        if self.alpha is None or not self.is_promise:
            return None
        return self.rate <= self.alpha + 3.0 * self.standard_error

    def as_dict(self) -> dict[str, Any]:
        derived = {"rate": self.rate, "standard_error": self.standard_error, "is_kept": self.is_kept}
        return asdict(self) | derived


def run(rng: np.random.Generator, rollouts: int, say: Say) -> list[Rate]:
    """All nulls, with `rollouts` repetitions each."""
    found: list[Rate] = []
    for study in (at_every_event, bursts, fast_failures, many_guardrails, false_promotions):
        say(f"false alarms: {study.__name__.replace('_', ' ')}")
        found += study(rng, rollouts)
    for world in WORLDS:
        say(f"false alarms: {world.name}")
        found += by_the_second(world, rng, rollouts if world.tick_s == 1 else max(1, rollouts // 2))
    for bench in detection.NULLS:
        say(f"false alarms: {bench.name}")
        found += of_paths(bench, rng, max(1, rollouts // 4))
    return found


def labels(rng: np.random.Generator, q: float, rollouts: int, events: int) -> Iterator[npt.NDArray[np.int64]]:
    """Running counts of candidate events, in batches: (some rollouts, events)."""
    for size in sizes(rollouts):
        yield np.cumsum(rng.random((size, events), np.float32) < q, axis=1, dtype=np.int64)


def sizes(rollouts: int) -> Iterator[int]:
    for start in range(0, rollouts, BATCH):
        yield min(BATCH, rollouts - start)


def at_every_event(rng: np.random.Generator, rollouts: int) -> list[Rate]:
    """The label test after each of 3,000 events; by the law of the labels the rate's course does not matter."""
    events = 3000
    found = []
    for pi in (0.1, 0.5):
        boundaries = {a: label_boundary(pi, 1.0, True, events, -math.log(a))[1:] for a in ALPHAS}
        wrong = dict.fromkeys(ALPHAS, 0)
        for k in labels(rng, pi, 5 * rollouts, events):
            for alpha in ALPHAS:
                wrong[alpha] += int((k >= boundaries[alpha]).any(axis=1).sum())
        null = f"look after each of 3,000 events, pi = {pi}"
        found += [Rate(null, "label", alpha, wrong[alpha], 5 * rollouts) for alpha in ALPHAS]
    return found


def bursts(rng: np.random.Generator, rollouts: int) -> list[Rate]:
    """Errors in bursts that share one arm, geometric in size; 3,000 errors; counted plainly, as incidents, over phi."""
    pi, events = 0.1, 3000
    found = []
    for mean_size in (2, 5):
        phi = 2.0 * mean_size - 1.0  # E[size^2] / E[size] of a geometric law
        tests = {
            "label, every error counted": (1.0, False),
            "label, incidents counted": (1.0, True),
            f"label, counts over phi = {phi:.0f}": (phi, False),
        }
        wrong = {(name, alpha): 0 for name in tests for alpha in ALPHAS}
        for size in sizes(rollouts):
            n_bursts = 2 * events // mean_size
            arms = rng.random((size, n_bursts)) < pi
            lengths = rng.geometric(1.0 / mean_size, (size, n_bursts))
            ends = np.cumsum(lengths, axis=1)
            row = np.arange(size)[:, None]
            burst_of = np.zeros((size, events + 1), np.int64)
            np.add.at(burst_of, (np.broadcast_to(row, ends.shape), np.minimum(ends, events)), 1)
            at = np.minimum(np.cumsum(burst_of[:, :events], axis=1), n_bursts - 1)
            k_events = np.cumsum(np.take_along_axis(arms, at, axis=1), axis=1)
            k_bursts = np.cumsum(arms[:, : events // mean_size], axis=1)
            for name, (divisor, is_deduplicated) in tests.items():
                k = k_bursts if is_deduplicated else k_events
                for alpha in ALPHAS:
                    boundary = label_boundary(pi, 1.0, True, k.shape[1], -math.log(alpha), divisor)[1:]
                    wrong[name, alpha] += int((k >= boundary).any(axis=1).sum())
        for (name, alpha), count in wrong.items():
            is_promise = "incidents" in name
            note = "" if is_promise else "no promise: approximate" if "phi" in name else "no promise: not independent"
            found.append(Rate(f"bursts of {mean_size} on average", name, alpha, count, rollouts, note, is_promise))
    return found


def fast_failures(rng: np.random.Generator, rollouts: int) -> list[Rate]:
    """Both arms fail in 1 %, the candidate at once, stable at its deadline of 5 s; 500 requests/s, ten minutes."""
    world = World("", (Stretch(0.1, 600),), requests_per_s=500, error_rate=0.01)
    test, late = LabelTest(world.pis), 5
    found = dict.fromkeys([(name, a) for name in ("in order of completion", "before the watermark") for a in ALPHAS], 0)
    for size in sizes(rollouts):
        traffic = Traffic.simulate(world, rng, size)
        k, of_stable = np.cumsum(traffic.k_candidate, axis=1), np.cumsum(traffic.k_stable, axis=1)
        seen = np.concatenate([np.zeros((size, late), np.int64), of_stable[:, :-late]], axis=1)
        peak_early = test.log_e(k[..., None], (k + seen)[..., None]).max(axis=1)
        peak_settled = test.log_e(k[..., None], (k + of_stable)[..., None]).max(axis=1)
        for alpha in ALPHAS:
            found["in order of completion", alpha] += int((peak_early >= -math.log(alpha)).sum())
            found["before the watermark", alpha] += int((peak_settled >= -math.log(alpha)).sum())
    return [
        Rate("candidate fails fast, stable slowly", f"label, {name}", alpha, wrong, rollouts,
             "" if "watermark" in name else "no promise: unsettled requests", "watermark" in name)
        for (name, alpha), wrong in found.items()
    ]  # fmt: skip


def many_guardrails(rng: np.random.Generator, rollouts: int) -> list[Rate]:
    """Twenty metrics, each at a twentieth of the risk; a false alarm of one is a false rollback."""
    metrics, pi, events = 20, 0.1, 1000
    boundaries = {a: label_boundary(pi, 1.0, True, events, math.log(metrics / a))[1:] for a in ALPHAS}
    wrong = dict.fromkeys(ALPHAS, 0)
    n = 0
    for k in labels(rng, pi, rollouts * metrics, events):
        n += len(k) // metrics
        for alpha in ALPHAS:
            wrong[alpha] += int((k >= boundaries[alpha]).any(axis=1).reshape(-1, metrics).any(axis=1).sum())
    null = "20 guardrails together"
    found = [Rate(null, "label", alpha, wrong[alpha], n) for alpha in ALPHAS]
    few = max(1, rollouts // 20)
    for method in rules.METHODS:
        if method.key in ("z_repeated", "flagger_1", "argo_0"):
            alarms = []
            for _ in range(metrics):
                alarms.append(np.isfinite(method.rule(Traffic.simulate(WORLDS[0], rng, few))))
            wrong_of = int(np.any(alarms, axis=0).sum())
            found.append(Rate(null, method.name, None, wrong_of, few, method.told))
    return found


def false_promotions(rng: np.random.Generator, rollouts: int) -> list[Rate]:
    """Promote a candidate that is worse by exactly the margin."""
    events, found = 5000, []
    for margin in (1.5, 2.0):
        for pi in (0.1, 0.5):
            q = pi * margin / (pi * margin + 1.0 - pi)
            boundary = label_boundary(pi, margin, False, events, math.log(20))[1:]
            wrong = sum(int((k <= boundary).any(axis=1).sum()) for k in labels(rng, q, rollouts, events))
            null = f"promotion at risk = margin = {margin}, pi = {pi}"
            found.append(Rate(null, "label", 0.05, wrong, rollouts))
    return found


def by_the_second(world: World, rng: np.random.Generator, rollouts: int) -> list[Rate]:
    """The judge and all others in the same simulated rollouts."""
    methods = [m for m in rules.METHODS if not (m.key == "kayenta" and world.tick_s > 1)]
    wrong = dict.fromkeys((m.key for m in methods), 0)
    for start in range(0, rollouts, 250):
        traffic = Traffic.simulate(world, rng, min(250, rollouts - start))
        for method in methods:
            wrong[method.key] += int(np.isfinite(method.rule(traffic)).sum())
    promises = {"gateway_05": 0.05, "gateway_01": 0.01}
    return [
        Rate(world.name, "label" if m.key in promises else m.name, promises.get(m.key), wrong[m.key], rollouts,
             world.told if m.key in promises else m.told)
        for m in methods
    ]  # fmt: skip


def of_paths(bench: detection.Bench, rng: np.random.Generator, rollouts: int) -> list[Rate]:
    """A test whose course is simulated look by look, under its null."""
    found = []
    for alpha in ALPHAS:
        requests = detection.until(bench, rng, rollouts, -math.log(alpha))
        wrong = int(np.isfinite(requests).sum())
        found.append(Rate(bench.name, bench.test, alpha, wrong, rollouts, bench.note))
    return found
