"""Many guardrails, one decision, one risk.

A rollout has a risk alpha of going back for nothing. Guardrail m gets the share w_m of it, shares sum to at most 1 and
are fixed before the start. Then

    roll back   when some guardrail has E_m >= 1 / (alpha w_m);
                or, pooled, when sum_m w_m E_m >= 1 / alpha, which is never later
    promote     when every guardrail that must be shown good has E_m >= 1 / alpha_promote: no share is needed, since to
                promote wrongly one must pass the very guardrail that is bad (Berger 1982, intersection-union test)

Guarantee, whatever ties the metrics together: if the candidate is worse on no guardrail, it is ever rolled back with
probability at most alpha; if it is worse by the margin on some guardrail, it is ever promoted with probability at most
alpha_promote. In the first form, moreover, guardrail m is blamed wrongly with probability at most alpha w_m.
Source: Ville 1939 and the union bound; averages of e-values, Vovk & Wang 2021; e-BH, Wang & Ramdas 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gateway.evidence import sentence
from gateway.evidence.numeric import as_float, log_sum_exp
from gateway.evidence.verdict import Outcome, Verdict, log_threshold_of

_SLACK = 1e-9  # shares like three thirds sum to 1 and a bit


@dataclass(frozen=True, slots=True)
class Budget:
    """The risk of one rollout and its shares, fixed before the start. Build it with `even` or `of`."""

    alpha: float
    weights: tuple[tuple[str, float], ...]  # by name, in order of names

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(sorted(self.weights)))
        if len(dict(self.weights)) != len(self.weights) or not self.weights:
            raise ValueError(f"weights: got {self.weights!r}, expected at least one guardrail, each named once")
        for name, weight in self.weights:
            if not 0.0 < weight <= 1.0:
                raise ValueError(f"weights[{name}]: got {weight!r}, expected a share above 0 and at most 1")
        total = math.fsum(weight for _, weight in self.weights)
        if total > 1.0 + _SLACK:
            raise ValueError(f"weights: got shares that sum to {total!r}, expected at most 1")
        log_threshold_of(self.alpha)

    @classmethod
    def of(cls, alpha: float, weights: Mapping[str, float]) -> Budget:
        """Shares as given."""
        return cls(alpha, tuple(weights.items()))

    @classmethod
    def even(cls, alpha: float, names: Iterable[str]) -> Budget:
        """The same share for all."""
        names = tuple(names)
        return cls(alpha, tuple((name, 1.0 / len(names)) for name in names))

    def log_threshold(self, name: str) -> float:
        """ln(1 / (alpha w_m)): what the guardrail's own evidence has to reach."""
        return log_threshold_of(self.alpha, dict(self.weights)[name])


def rollback(verdicts: Mapping[str, Verdict], budget: Budget, *, pooled: bool = False) -> Verdict:
    """WORSE when a guardrail is; or, pooled, when the weighted mean of all e-values reaches 1/alpha.

    `log_e` is max_m ln(w_m E_m), pooled ln sum_m w_m E_m, and the threshold ln(1/alpha). A guardrail without a verdict
    yet, or UNKNOWN, or held back by its least number of events, adds nothing. Pooled, the sentence names who says most,
    which is no proof that this guardrail is worse.
    """
    _check(verdicts, budget)
    threshold = log_threshold_of(budget.alpha)
    weighted = {
        name: verdicts[name].log_e + math.log(weight)
        for name, weight in budget.weights
        if name in verdicts and _may_speak(verdicts[name])
    }
    values = np.array(list(weighted.values()) or [-math.inf])
    log_e = as_float(log_sum_exp(values)) if pooled else as_float(np.max(values))
    worse = [name for name in weighted if verdicts[name].outcome is Outcome.WORSE]
    fired = bool(worse) or (pooled and log_e >= threshold)
    most = sorted(weighted, key=lambda name: (-weighted[name], name))
    if worse:
        named = [name for name in most if name in worse]
        said = f"{', '.join(named)}: {verdicts[named[0]].sentence}"
    elif fired:
        said = f"all guardrails together, most of all {most[0]}; {sentence.risk(threshold)}"
    elif most:
        said = f"no guardrail says worse; most of all {most[0]}: {verdicts[most[0]].sentence}"
    else:
        said = "no guardrail has evidence yet"
    outcome = Outcome.WORSE if fired else Outcome.UNDECIDED if weighted else Outcome.UNKNOWN
    return _combined(verdicts, outcome, log_e, threshold, said)


def promote(verdicts: Mapping[str, Verdict], names: Iterable[str], alpha: float) -> Verdict:
    """OK when each of `names` has its verdict OK at the full alpha. `log_e` is the least of theirs.

    A name without a verdict, or UNKNOWN, keeps the whole UNKNOWN.
    """
    names = sorted(set(names))
    threshold = log_threshold_of(alpha)
    missing = [name for name in names if name not in verdicts or verdicts[name].outcome is Outcome.UNKNOWN]
    known = {name: verdicts[name] for name in names if name in verdicts}
    for name, verdict in known.items():
        if verdict.log_threshold < threshold - _SLACK:
            raise ValueError(f"verdicts[{name}].log_threshold: got {verdict.log_threshold!r}, expected {threshold!r}")
    if not names:
        raise ValueError("names: got none, expected the guardrails that must be shown good")
    log_e = min((verdict.log_e for verdict in known.values()), default=0.0)
    waiting = [name for name in names if name in known and known[name].outcome is not Outcome.OK]
    if missing:
        outcome, said = Outcome.UNKNOWN, f"nothing known about {', '.join(missing)}"
    elif waiting:
        last = min(waiting, key=lambda name: (known[name].log_e, name))
        outcome = Outcome.UNDECIDED
        said = f"{len(waiting)} of {len(names)} guardrails not shown good yet; last {last}: {known[last].sentence}"
    else:
        outcome = Outcome.OK
        said = f"shown good by all of {', '.join(names)}; {sentence.risk(threshold, 'a false promotion')}"
    return _combined(known, outcome, log_e, threshold, said)


def named(log_es: Mapping[str, float], alpha: float) -> tuple[str, ...]:
    """Which of many to blame, so that on average at most the share alpha of those named is innocent (e-BH).

    The k with the most evidence, k the largest with E_(k) >= K / (alpha k), K how many there are. In order of evidence.
    Guarantee: false discovery rate at most alpha under any dependence (Wang & Ramdas 2022), at any fixed look or
    stopping time.
    """
    log_threshold = log_threshold_of(alpha)
    order = sorted(log_es, key=lambda name: (-log_es[name], name))
    for k in range(len(order), 0, -1):
        if log_es[order[k - 1]] >= log_threshold + math.log(len(order)) - math.log(k):
            return tuple(order[:k])
    return ()


def _may_speak(verdict: Verdict) -> bool:
    held_back = verdict.outcome is Outcome.UNDECIDED and verdict.log_e >= verdict.log_threshold
    return verdict.outcome is not Outcome.UNKNOWN and not held_back


def _check(verdicts: Mapping[str, Verdict], budget: Budget) -> None:
    shares = dict(budget.weights)
    for name, verdict in verdicts.items():
        if name not in shares:
            raise ValueError(
                f"verdicts: got {name!r}, expected one of {', '.join(shares)}: shares are fixed at the start"
            )
        if verdict.log_threshold < budget.log_threshold(name) - _SLACK:
            got, expected = verdict.log_threshold, budget.log_threshold(name)
            raise ValueError(f"verdicts[{name}].log_threshold: got {got!r}, expected ln(1/(alpha w)) = {expected!r}")


def _combined(verdicts: Mapping[str, Verdict], outcome: Outcome, log_e: float, threshold: float, said: str) -> Verdict:
    counts = tuple((name, verdicts[name].outcome.value, verdicts[name].log_e) for name in sorted(verdicts))
    n = max((verdict.n for verdict in verdicts.values()), default=0)
    return Verdict(outcome, log_e, threshold, n, None, None, counts, said)
