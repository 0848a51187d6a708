"""After how many requests, of both arms together, does a test find an effect that is there?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.judge import twins
from gateway.evidence import fairness, mean
from gateway.evidence.numeric import log_beta_binomial, log_beta_binomial_above, log_mean_exp

Floats = npt.NDArray[np.float64]
Say = Callable[[str], None]
# log_e at each look of some rollouts: (rng, rollouts, looks, log_threshold) -> (rollouts, looks)
Course = Callable[[np.random.Generator, int, int, float], Floats]
NEAR = 0.10  # a figure within this of the reference is as expected

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Bench:
    """One test on one effect; `course` simulates it, looked at every `look` requests up to `horizon`."""

    test: str
    name: str
    course: Course
    look: int
    horizon: int
    reference: tuple[float | None, float | None] = (None, None)  # median and 90th percentile, where one is published
    alpha: float = ALPHA
    note: str = ""


@dataclass(frozen=True, slots=True)
class Delay:
    """What `rollouts` repetitions gave; requests of both arms, inf where less than that share was found."""

    test: str
    name: str
    alpha: float
    median: float
    p90: float
    found: float  # share of the rollouts in which the effect was found within the horizon
    n: int
    horizon: int
    reference: tuple[float | None, float | None]
    note: str = ""

    @property
    def standard_error(self) -> float:
        """Of the median, relative: about 1.25 times that of a mean, for a spread of p90 / median."""
        if not math.isfinite(self.median) or not math.isfinite(self.p90):
            return math.nan
        return 1.25 * math.log(self.p90 / self.median) / 1.28 / math.sqrt(self.n)

    @property
    def against_reference(self) -> tuple[float | None, float | None]:
        """Relative differences of median and p90; None without a reference or a figure."""
        pairs = zip((self.median, self.p90), self.reference, strict=True)
        a, b = (None if r is None or not math.isfinite(own) else own / r - 1.0 for own, r in pairs)
        return a, b

    def as_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        for key in ("median", "p90"):
            plain[key] = plain[key] if math.isfinite(plain[key]) else None
        return plain | {"against_reference": self.against_reference}


def run(rng: np.random.Generator, rollouts: int, say: Say) -> list[Delay]:
    """All benches: those on single events with ten times as many repetitions as those simulated request by request."""
    found = []
    test = ""
    for effect in LABEL:
        if test != effect.test:
            test = effect.test
            say(f"detection: {test}")
        found.append(of_labels(effect, rng, 10 * rollouts))
    for bench in BENCHES:
        if test != bench.test:
            test = bench.test
            say(f"detection: {test}")
        requests = until(bench, rng, rollouts, -math.log(bench.alpha))
        found.append(_delay(bench.test, bench.name, bench.alpha, requests, bench.horizon, bench.reference, bench.note))
    return found


@dataclass(frozen=True, slots=True)
class LabelEffect:
    """The label test on a relative risk, looked at after every event."""

    test: str
    p0: float
    pi: float
    risk: float
    margin: float | None = None  # None: rollback at r0 = 1
    reference: tuple[float | None, float | None] = (None, None)
    max_events: int = 6000


def of_labels(effect: LabelEffect, rng: np.random.Generator, rollouts: int) -> Delay:
    """Labels of events one by one; the requests between two events are geometric and independent of the labels."""
    pi, r = effect.pi, effect.risk
    q = pi * r / (pi * r + 1.0 - pi)
    is_up = effect.margin is None
    boundary = twins.label_boundary(pi, effect.margin or 1.0, is_up, effect.max_events, -math.log(ALPHA))[1:]
    requests = np.full(rollouts, np.inf)
    for start in range(0, rollouts, 500):
        size = min(500, rollouts - start)
        k = np.cumsum(rng.random((size, effect.max_events), np.float32) < q, axis=1)
        reached = (k >= boundary) if is_up else (k <= boundary)
        hit = reached.any(axis=1)
        events = reached.argmax(axis=1)[hit] + 1
        p = effect.p0 * (pi * r + 1.0 - pi)
        requests[start : start + size][hit] = events + rng.negative_binomial(events, p)
    name = f"p0 = {effect.p0:.1%}, pi = {pi}, "
    name += f"risk {r:g}" if effect.margin is None else f"margin {effect.margin:g} at risk {r:g}"
    horizon = int(effect.max_events / (effect.p0 * (pi * r + 1.0 - pi)))
    return _delay(effect.test, name, ALPHA, requests, horizon, effect.reference, "look after every event")


def until(bench: Bench, rng: np.random.Generator, rollouts: int, log_threshold: float) -> Floats:
    """Requests until the evidence reaches the threshold; inf where it does not within the horizon."""
    looks = bench.horizon // bench.look
    requests = np.full(rollouts, np.inf)
    batch = max(1, min(rollouts, 120_000 // looks))
    for start in range(0, rollouts, batch):
        size = min(batch, rollouts - start)
        reached = bench.course(rng, size, looks, log_threshold) >= log_threshold
        hit = reached.any(axis=1)
        requests[start : start + size][hit] = (reached.argmax(axis=1)[hit] + 1) * bench.look
    return requests


def _delay(
    test: str,
    name: str,
    alpha: float,
    requests: Floats,
    horizon: int,
    reference: tuple[float | None, float | None],
    note: str,
) -> Delay:
    n, found = len(requests), float(np.isfinite(requests).mean())
    ordered = np.sort(requests)
    median, p90 = float(ordered[(n - 1) // 2]), float(ordered[math.ceil(0.9 * n) - 1])
    return Delay(test, name, alpha, median, p90, found, n, horizon, reference, note)


# ------------------------------------------------------------------------------------------------ courses
def bets_on_yes_no(pi: float, control: float, candidate: float, look: int) -> Course:
    """Betting on a binary metric, centre at stable's mean, tolerance 0."""

    def course(rng: np.random.Generator, rollouts: int, looks: int, log_threshold: float) -> Floats:
        n_c = rng.binomial(look, pi, (rollouts, looks))
        k_c, k_s = rng.binomial(n_c, candidate), rng.binomial(look - n_c, control)
        cells = np.stack([look - n_c - k_s, k_s, n_c - k_c, k_c], axis=-1).cumsum(axis=1)
        return twins.betting_log_e(cells.reshape(rollouts, looks, 2, 2).astype(np.float64), pi, control, 0.0)

    return course


def bets_on_scores(pi: float, control: float, candidate: float, look: int, weight: float = 10.0) -> Course:
    """Betting on beta-distributed scores with these means, in 100 levels."""
    levels = 100
    tables = twins.bet_tables(pi, control, levels, 0.0)

    def course(rng: np.random.Generator, rollouts: int, looks: int, log_threshold: float) -> Floats:
        logs = np.zeros((rollouts, looks, tables.shape[-1]))
        for look_at in range(looks):
            arm = (rng.random((rollouts, look)) < pi).astype(np.intp)
            m = np.where(arm, candidate, control)
            level = np.rint(rng.beta(weight * m, weight * (1.0 - m)) * levels).astype(np.intp)
            cells = np.zeros((rollouts, 2 * (levels + 1)))
            np.add.at(cells, (np.arange(rollouts)[:, None], arm * (levels + 1) + level), 1.0)
            logs[:, look_at] = cells @ tables.reshape(-1, tables.shape[-1])
        return log_mean_exp(np.cumsum(logs, axis=1))

    return course


def means_of_latency(
    pi: float, factor: float, look: int, *, in_logs: bool, is_downwards: bool = False, sigma: float = 1.0
) -> Course:
    """The mean of lognormal latencies, or of their logarithms; the candidate's are `factor` times as long.

    Downwards tests for a lower mean: the mirrored values for a higher one.
    """
    variance = sigma**2 if in_logs else (math.exp(sigma**2) - 1.0) * math.exp(sigma**2)
    skewness = 0.0 if in_logs else (math.exp(sigma**2) + 2.0) * math.sqrt(math.exp(sigma**2) - 1.0)

    def course(rng: np.random.Generator, rollouts: int, looks: int, log_threshold: float) -> Floats:
        n, total, squares = (np.zeros((rollouts, looks, 2)) for _ in range(3))
        for look_at in range(looks):
            is_candidate = rng.random((rollouts, look)) < pi
            value = sigma * rng.standard_normal((rollouts, look)) + math.log(factor) * is_candidate
            value = (value if in_logs else np.exp(value)) * (-1.0 if is_downwards else 1.0)
            for arm, here in enumerate((~is_candidate, is_candidate)):
                n[:, look_at, arm] = here.sum(axis=1)
                total[:, look_at, arm] = np.where(here, value, 0.0).sum(axis=1)
                squares[:, look_at, arm] = np.where(here, value * value, 0.0).sum(axis=1)
        n, total, squares = (np.cumsum(x, axis=1) for x in (n, total, squares))
        mirrored = -skewness if is_downwards else skewness
        return twins.mean_log_e(n, total, squares, log_threshold, mean.PLANNED_VALUES * variance, mirrored)

    return course


def _of_bins(pi: float, stable: Floats, candidate: Floats, look: int) -> Callable[..., tuple[Floats, Floats]]:
    def counts(rng: np.random.Generator, rollouts: int, looks: int) -> tuple[Floats, Floats]:
        n_c = rng.binomial(look, pi, (rollouts, looks))
        c = rng.multinomial(n_c, candidate).cumsum(axis=1)
        s = rng.multinomial(look - n_c, stable).cumsum(axis=1)
        return c.astype(np.float64), (c + s).astype(np.float64)

    return counts


def slower(pi: float, look: int, factor: float = 1.0, share: float = 1.0, sigma: float = 0.6) -> Course:
    """Latency at five frozen thresholds (p50 to p99.9): `share` of the candidate's is longer by `factor`."""
    from scipy.stats import norm  # type: ignore[import-untyped]

    levels = np.array([0.5, 0.9, 0.95, 0.99, 0.999])
    above = share * norm.sf(norm.ppf(levels) - math.log(factor) / sigma) + (1.0 - share) * (1.0 - levels)
    draw = _of_bins(pi, -np.diff([1.0, *(1.0 - levels), 0.0]), -np.diff([1.0, *above, 0.0]), look)
    test = twins.LabelTest([pi])

    def course(rng: np.random.Generator, rollouts: int, looks: int, log_threshold: float) -> Floats:
        c, both = draw(rng, rollouts, looks)
        k, n = (x[..., ::-1].cumsum(axis=-1)[..., :-1] for x in (c, both))
        return log_mean_exp(test.log_e(k[..., None], n[..., None]))

    return course


def other_distribution(pi: float, look: int, change: str) -> Course:
    """Sixteen bins of equal size under a normal law for stable; the candidate's is shifted, wider or has a spike."""
    from scipy.stats import norm

    edges = norm.ppf(np.arange(1, 16) / 16)
    kind, _, size = change.partition(" ")
    amount = float(size or 0)
    shift, scale = (amount if kind == "shift" else 0.0), (amount if kind == "scale" else 1.0)
    masses = np.diff(np.concatenate([[0.0], norm.cdf((edges - shift) / scale), [1.0]]))
    if kind == "spike":
        masses = (1.0 - amount) * masses
        masses[8] += amount
    draw = _of_bins(pi, np.full(16, 1 / 16), masses, look)

    def course(rng: np.random.Generator, rollouts: int, looks: int, log_threshold: float) -> Floats:
        c, both = draw(rng, rollouts, looks)
        return twins.distribution_log_e(c, both, pi)

    return course


def shadow_pairs(look: int, drop: float, discordant: float) -> Course:
    """Mirrored requests with labels: in `discordant` of them exactly one is right, more often stable by `drop`."""

    def course(rng: np.random.Generator, rollouts: int, looks: int, log_threshold: float) -> Floats:
        d = rng.binomial(look, discordant, (rollouts, looks))
        w = rng.binomial(d, 0.5 * (1.0 + drop / discordant)).cumsum(axis=1)
        return log_beta_binomial_above(w, d.cumsum(axis=1), 0.5, 8.0)

    return course


def broken_split(look: int, pi: float, share: float) -> Course:
    """The sample-ratio check: the candidate gets `share` of the requests where `pi` was drawn."""

    def course(rng: np.random.Generator, rollouts: int, looks: int, log_threshold: float) -> Floats:
        k = rng.binomial(look, share, (rollouts, looks)).cumsum(axis=1)
        return log_beta_binomial(k, look * np.arange(1.0, looks + 1.0), pi, 1000.0)

    return course


def group_gap(look: int, gap: float, tolerance: float = 0.05, base: float = 0.2, share: float = 0.3) -> Course:
    """Two groups, 30 and 70 % of the requests, whose shares of positive answers differ by `gap`."""

    def course(rng: np.random.Generator, rollouts: int, looks: int, log_threshold: float) -> Floats:
        n_g = rng.binomial(look, share, (rollouts, looks))
        k = np.stack([rng.binomial(n_g, base + gap), rng.binomial(look - n_g, base)], axis=-1).cumsum(axis=1)
        n = np.stack([n_g, look - n_g], axis=-1).cumsum(axis=1)
        cells = (n.astype(np.float64), k.astype(np.float64))
        return twins.gap_log_e(*cells, tolerance, log_threshold, mean.LEAST_VALUES, fairness.LEAST_EVENTS)

    return course


def _label_effects() -> Sequence[LabelEffect]:
    rollback, promote = "label, rollback", "label, promotion"
    figures: dict[tuple[float, float], dict[float, tuple[float | None, float | None]]] = {
        (0.01, 0.5): {1.5: (13_700, 35_000), 2: (3800, 8700), 3: (1200, 3100), 5: (500, 1000), 10: (200, 350)},
        (0.01, 0.1): {1.5: (36_000, 86_000), 2: (9300, 25_000), 3: (2400, 6700), 5: (975, 2800), 10: (350, 750)},
        (0.001, 0.1): {1.5: (400_000, None), 2: (96_000, 270_000), 3: (26_000, 78_000), 5: (10_000, 30_000),
                       10: (3300, 7700)},
    }  # fmt: skip
    effects = [
        LabelEffect(rollback, p0, pi, risk, None, reference)
        for (p0, pi), by_risk in figures.items()
        for risk, reference in by_risk.items()
    ]
    for p0, pi, margin, reference in (
        (0.01, 0.1, 2.0, (11_700, 32_000)),
        (0.01, 0.5, 2.0, (6000, 14_000)),
        (0.01, 0.1, 1.5, (37_000, 94_000)),
        (0.01, 0.5, 1.5, (17_500, 41_000)),
        (0.001, 0.5, 2.0, (48_000, 127_000)),
    ):
        effects.append(LabelEffect(promote, p0, pi, 1.0, margin, reference))
    return effects


LABEL = _label_effects()
_BET, _MEAN, _SLOW, _BINS = "betting", "mean", "latency, 5 thresholds", "distribution, 16 bins"
BENCHES = (
    Bench(_BET, "5 % to 4.5 %, pi = 0.5", bets_on_yes_no(0.5, 0.05, 0.045, 250), 250, 250_000, (45_000, None)),
    Bench(_BET, "5 % to 4 %, pi = 0.5", bets_on_yes_no(0.5, 0.05, 0.04, 100), 100, 100_000, (15_700, None)),
    Bench(_BET, "5 % to 4 %, pi = 0.1", bets_on_yes_no(0.1, 0.05, 0.04, 200), 200, 200_000, (36_000, None)),
    Bench(_BET, "5 % to 2.5 %, pi = 0.1", bets_on_yes_no(0.1, 0.05, 0.025, 50), 50, 50_000, (6100, None)),
    Bench(_BET, "score .30 to .29, pi = 0.5", bets_on_scores(0.5, 0.3, 0.29, 100), 100, 40_000, (6800, None)),
    Bench(_BET, "score .30 to .29, pi = 0.1", bets_on_scores(0.1, 0.3, 0.29, 200), 200, 80_000, (21_000, None)),
    *(
        Bench(_MEAN, f"{how}, +{gain} %, pi = 0.1", means_of_latency(0.1, 1 + gain / 100, look, in_logs=logs),
              look, horizon, (reference, None))
        for logs, how in ((False, "latency"), (True, "log latency"))
        for gain, look, horizon, reference in (
            (5, 400, 160_000, 30_000 if logs else 44_000),
            (10, 200, 60_000, 7900 if logs else 14_000),
            (20, 100, 40_000, 2400 if logs else 4800),
        )
    ),
    *(
        Bench(_SLOW, f"all x{factor}, pi = 0.1", slower(0.1, look, factor), look, horizon, (reference, None))
        for factor, look, horizon, reference in (
            (1.05, 400, 200_000, 60_000), (1.1, 100, 100_000, 11_700), (1.2, 50, 50_000, 3100), (1.5, 25, 20_000, 600))
    ),
    Bench(_SLOW, "2 % of requests x3, pi = 0.1", slower(0.1, 200, 3.0, 0.02), 200, 50_000, (26_000, None)),
    *(
        Bench(_BINS, f"{change}, pi = {pi}", other_distribution(pi, look, change), look, 6 * median, (median, p90))
        for change, pi, look, median, p90 in (
            ("shift 0.1", 0.1, 400, 15_600, 32_000), ("shift 0.2", 0.1, 100, 3300, 7300),
            ("shift 0.5", 0.1, 50, 700, 1200),
            ("scale 1.2", 0.1, 100, 4500, 9200), ("spike 0.05", 0.1, 200, 10_000, 14_000),
            ("shift 0.1", 0.5, 200, 5500, 12_000), ("shift 0.2", 0.5, 50, 1900, 3100), ("shift 0.5", 0.5, 25, 400, 600),
            ("scale 1.2", 0.5, 50, 1700, 2900), ("spike 0.05", 0.5, 100, 3000, 5800))
    ),
    Bench("shadow pairs", "accuracy -1 point, 6 % discordant", shadow_pairs(25, 0.01, 0.06), 25, 60_000, (4000, None)),
    Bench("shadow pairs", "accuracy -2 points, 6 % discordant", shadow_pairs(10, 0.02, 0.06), 10, 20_000, (900, None)),
    *(
        Bench("sample ratio", f"{share} instead of 0.1", broken_split(25, 0.1, share), 25, 60_000,
              (median, None), 0.001)
        for share, median in ((0.11, 14_000), (0.12, 4200), (0.15, 1100))
    ),
    Bench("fairness", "gap .08, tolerance .05", group_gap(100, 0.08), 100, 60_000, (8000, None)),
    Bench("fairness", "gap .10, tolerance .05", group_gap(100, 0.10), 100, 40_000, (3000, None)),
)  # fmt: skip
_ASYMPTOTIC = "asymptotic, from the burn-in on"
NULLS = (
    Bench(_BET, "5 % on both arms, pi = 0.1, 100k requests", bets_on_yes_no(0.1, 0.05, 0.05, 100), 100, 100_000),
    Bench(_BET, "score .30 on both arms, pi = 0.1, 40k requests", bets_on_scores(0.1, 0.3, 0.3, 100), 100, 40_000),
    Bench(_MEAN, "lognormal latency, tested upwards, pi = 0.1, 60k requests",
          means_of_latency(0.1, 1.0, 100, in_logs=False), 100, 60_000, note=_ASYMPTOTIC),
    Bench(_MEAN, "lognormal latency, tested downwards, pi = 0.1, 60k requests",
          means_of_latency(0.1, 1.0, 100, in_logs=False, is_downwards=True), 100, 60_000, note=_ASYMPTOTIC),
    Bench(_SLOW, "same latencies, pi = 0.1, 50k requests", slower(0.1, 50), 50, 50_000),
    Bench(_BINS, "same distribution, pi = 0.1, 25k requests", other_distribution(0.1, 100, "none"), 100, 25_000),
    Bench("shadow pairs", "as often right, 6 % discordant, 60k pairs", shadow_pairs(25, 0.0, 0.06), 25, 60_000),
    Bench("sample ratio", "split as drawn, 60k requests", broken_split(25, 0.1, 0.1), 25, 60_000),
    Bench("fairness", "gap .05 = tolerance, 40k requests", group_gap(100, 0.05), 100, 40_000, note=_ASYMPTOTIC),
)  # fmt: skip
