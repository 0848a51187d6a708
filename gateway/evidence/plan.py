"""Before a rollout starts: how many requests, and how long, will each guardrail need?

The answer comes from the same evidence that will be judged, at expected counts. A test that looks at all times fires
at the first lucky moment, so `typical` (half of rollouts are done) takes the candidate's events 0.6 deviations on the
lucky side, 0.35 for promotion, and `careful` (nine in ten are done) 0.9 on the unlucky side, where a single look would
have 0 and 1.28. The shifts come from simulation; figures of 1,000 requests and more hold within some 30 %.

Source: own composition; growth of the evidence as in Kelly 1956: (ln(1/alpha) + some) / KL(q1 || q0) events.
Units: requests of both arms together, seconds. A plan is an estimate, no guarantee.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.evidence import sentence
from gateway.evidence.likelihood import ABOVE, BELOW, FULL_WEIGHT, Labels, log_e_total
from gateway.evidence.limit import prior_weight
from gateway.evidence.numeric import Floats, log_beta_binomial_above, log_beta_binomial_below, log_mean_exp
from gateway.evidence.verdict import Direction

DAY_S = 86_400.0
_TYPICAL = {Direction.ROLLBACK: -0.6, Direction.PROMOTE: -0.35}  # deviations to the unlucky side
_CAREFUL = 0.9
_SIZES = np.geomspace(10.0, 1e14, 521)  # requests tried; neighbours differ by 6 %, and the crossing is interpolated


@dataclass(frozen=True, slots=True)
class Goal:
    """What one guardrail is to find in one stage.

    Rollback: a candidate with the events `effect` times as often as stable, beyond the tolerated r0.
    Promotion: that a candidate with `effect` (1: as good as stable) is below the margin r0.
    """

    name: str
    direction: Direction
    rates: tuple[float, ...]  # share of stable's requests with the event; several: thresholds of a latency guardrail
    effects: tuple[float, ...]  # relative risk that is to be found, of each
    r0: tuple[float, ...]  # tolerated relative risk, or margin, of each
    log_threshold: float
    phi: float = 1.0
    negligible: float | None = None  # as in `label.promote`

    def __post_init__(self) -> None:
        if not self.rates or not len(self.rates) == len(self.effects) == len(self.r0):
            got = (len(self.rates), len(self.effects), len(self.r0))
            raise ValueError(f"rates, effects, r0: got {got} values, expected as many of each, at least one")
        for rate in self.rates:
            if not 0.0 <= rate <= 1.0:
                raise ValueError(f"rates: got {rate!r}, expected shares from 0 to 1")


@dataclass(frozen=True, slots=True)
class Expectation:
    """How long a goal takes; infinite when it will not be reached."""

    name: str
    direction: Direction
    pi: float
    typical_requests: float
    careful_requests: float
    typical_s: float
    careful_s: float
    sentence: str
    is_too_slow: bool

    def as_dict(self) -> dict[str, object]:
        """Plain types; infinite numbers become "inf"."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["direction"] = self.direction.value
        return {name: "inf" if value == math.inf else value for name, value in fields.items()}


def expect(goal: Goal, pi: float, requests_per_s: float, *, too_slow_s: float = DAY_S) -> Expectation:
    """What to expect of a goal at the candidate probability `pi` and the traffic observed, from a fresh start."""
    if not 0.0 < pi < 1.0:
        raise ValueError(f"pi: got {pi!r}, expected a probability between 0 and 1, both excluded")
    if not requests_per_s >= 0.0:
        raise ValueError(f"requests_per_s: got {requests_per_s!r}, expected 0 or more")
    typical, careful = _crossing(goal, pi, _TYPICAL[goal.direction]), _crossing(goal, pi, _CAREFUL)
    typical_s, careful_s = (n / requests_per_s if requests_per_s else math.inf for n in (typical, careful))
    too_slow = typical_s > too_slow_s
    aim = "find its effect" if goal.direction is Direction.ROLLBACK else "show the candidate good enough"
    where = f"{goal.name} at {sentence.percent(pi)} of {sentence.number(requests_per_s)} requests/s"
    if math.isinf(typical):
        said = f"{where} will not {aim}: {_reason(goal)}"
    else:
        said = (
            f"{where} needs some {sentence.requests(math.ceil(typical))} requests to {aim}: {span_of_time(typical_s)},"
            f" with bad luck {span_of_time(careful_s)}"
        )
        if too_slow:
            said += "; more traffic for the candidate, a larger margin or a larger effect would be sooner"
    return Expectation(
        goal.name, goal.direction, pi, typical, careful, typical_s, careful_s, said, is_too_slow=too_slow
    )


def schedule(goals: Sequence[Goal], pis: Sequence[float], requests_per_s: float) -> tuple[Expectation, ...]:
    """`expect` for each goal at each step of a rollout: what each step could find, or show, if it were alone."""
    return tuple(expect(goal, pi, requests_per_s) for pi in pis for goal in goals)


def span_of_time(seconds: float) -> str:
    """Seconds for people: 40 s, 12 min, 5.3 h, 9 days, never."""
    if math.isinf(seconds):
        return "never"
    for size, unit in ((DAY_S, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{sentence.number(seconds / size)} {unit}"
    return f"{sentence.number(max(seconds, 1.0))} s"


def log_e_expected(goal: Goal, pi: float, requests: Floats, unlucky: float = 0.0) -> Floats:
    """ln E after so many requests, at expected counts, `unlucky` deviations to the bad side.

    Of rate p and relative risk r, p (1 - pi + pi r) of all requests are events and pi r / (1 - pi + pi r) of those the
    candidate's; the deviation is that of a binomial number, phi times as wide in variance.
    """
    each = []
    above = goal.direction is Direction.ROLLBACK
    for rate, effect, r0 in zip(goal.rates, goal.effects, goal.r0, strict=True):
        effect = min(effect, 1.0 / rate) if rate else effect
        q = pi * effect / (1.0 - pi + pi * effect)
        events = requests * (rate * (1.0 - pi + pi * effect))
        shift = unlucky * np.sqrt(goal.phi * events * q * (1.0 - q))
        hits = np.clip(events * q - shift if above else events * q + shift, 0.0, events)
        size = (1, requests.size)
        labels = Labels(np.zeros(size), np.full(size, pi), events[None] / goal.phi, hits[None] / goal.phi)
        ratios = np.broadcast_to(ABOVE if above else BELOW, (requests.size, ABOVE.size))
        log_e = log_e_total(labels, np.full(requests.size, math.log(r0)), ratios)
        each.append(log_e + math.log(FULL_WEIGHT) if above else log_e)
        if not above and goal.negligible is not None:
            n = requests * pi / goal.phi
            share = rate * effect
            k = np.clip(n * share + unlucky * np.sqrt(n * share * (1.0 - share)), 0.0, n)
            of_share = log_beta_binomial_below(k, n, goal.negligible, prior_weight(goal.negligible))
            each[-1] = np.logaddexp(each[-1], of_share) - math.log(2.0)
    stacked = np.stack(each, axis=-1)
    result: Floats = log_mean_exp(stacked) if above else stacked.min(axis=-1)
    return result


def expect_pairs(
    name: str,
    log_threshold: float,
    pairs_per_s: float,
    *,
    limit: float,
    share: float,
    direction: Direction = Direction.ROLLBACK,
) -> Expectation:
    """What to expect of shadow pairs, in pairs: `share` of them differ, against `limit`.

    For correctness count discordant pairs only, with limit 1/2.
    """
    found = []
    for unlucky in (_TYPICAL[direction], _CAREFUL):
        side = -unlucky if direction is Direction.ROLLBACK else unlucky
        k = np.clip(_SIZES * share + side * np.sqrt(_SIZES * share * (1.0 - share)), 0.0, _SIZES)
        test = log_beta_binomial_above if direction is Direction.ROLLBACK else log_beta_binomial_below
        found.append(_first(test(k, _SIZES, limit, prior_weight(limit)), log_threshold))
    typical_s, careful_s = (n / pairs_per_s if pairs_per_s else math.inf for n in found)
    if math.isinf(found[0]):
        said = f"{name} will not be decided: {sentence.percent(share)} is too close to {sentence.percent(limit)}"
    else:
        said = (
            f"{name} needs some {sentence.requests(math.ceil(found[0]))} shadow pairs:"
            f" {span_of_time(typical_s)}, with bad luck {span_of_time(careful_s)}"
        )
    return Expectation(
        name, direction, 1.0, found[0], found[1], typical_s, careful_s, said, is_too_slow=typical_s > DAY_S
    )


def _crossing(goal: Goal, pi: float, unlucky: float) -> float:
    return _first(log_e_expected(goal, pi, _SIZES, unlucky), goal.log_threshold)


def _first(log_es: Floats, log_threshold: float) -> float:
    """The size from which on the evidence stays above the threshold, between two of those tried; inf if none."""
    below = np.flatnonzero(log_es < log_threshold)
    if not below.size:
        return float(_SIZES[0])
    last = int(below[-1])
    if last == _SIZES.size - 1:
        return math.inf
    part = (log_threshold - log_es[last]) / (log_es[last + 1] - log_es[last])
    return float(_SIZES[last] * (_SIZES[last + 1] / _SIZES[last]) ** part)


def _reason(goal: Goal) -> str:
    if not any(goal.rates):
        return "without events a ratio has no evidence (set `negligible` to promote a service without errors)"
    return "the effect is not beyond what is tolerated" if goal.direction is Direction.ROLLBACK else "it is no better"
