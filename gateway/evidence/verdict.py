"""What a test says: an outcome, the numbers behind it, and one sentence for a person.

A verdict is plain data. It holds nothing that was not computed from the counts and the parameters of the test, so two
verdicts on the same counts are equal, field by field and bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Row = tuple[int | float | str, ...]


class Outcome(StrEnum):
    """What the evidence says so far."""

    OK = "ok"  # shown to be good enough: the promote test rejected "worse by the margin or more"
    WORSE = "worse"  # shown to be worse than tolerated: the rollback test rejected "no worse than tolerated"
    UNDECIDED = "undecided"  # the test runs and has not crossed its threshold
    UNKNOWN = "unknown"  # no judgement possible: no data that count, or the data may not be trusted


class Direction(StrEnum):
    """Which hypothesis a test tries to reject."""

    ROLLBACK = "rollback"  # H0: the candidate is no worse than tolerated; rejecting it says WORSE
    PROMOTE = "promote"  # H0: the candidate is worse by the margin or more; rejecting it says OK


@dataclass(frozen=True, slots=True)
class Verdict:
    """One test on one guardrail at one look.

    The guarantee that goes with it, for an exact test: if the null hypothesis of the test holds, the probability that
    `log_e` EVER reaches `log_threshold`, at any look, however often one looks, is at most exp(-log_threshold)
    (Ville 1939). A module that gives less says so.
    """

    outcome: Outcome
    log_e: float  # natural logarithm of the e-value; -inf is e = 0, 0.0 is "no evidence either way"
    log_threshold: float  # act at log_e >= this: ln(1 / (alpha * weight))
    n: int  # requests looked at, both arms together (pairs, for shadow tests)
    effect: float | None  # the estimate, in the units of the test (relative risk, share, difference); None: no estimate
    interval: tuple[float, float] | None  # anytime-valid confidence interval of the effect; ends may be 0 or inf
    counts: tuple[Row, ...]  # the integers it rests on, one small row for each stage
    sentence: str  # for a person

    def as_dict(self) -> dict[str, Any]:
        """Plain types that any JSON writer takes. Infinite numbers become "inf" and "-inf", which float() reads."""
        return {
            "outcome": self.outcome.value,
            "log_e": _number(self.log_e),
            "log_threshold": _number(self.log_threshold),
            "n": self.n,
            "effect": None if self.effect is None else _number(self.effect),
            "interval": None if self.interval is None else [_number(end) for end in self.interval],
            "counts": [[_number(value) if isinstance(value, float) else value for value in row] for row in self.counts],
            "sentence": self.sentence,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Verdict:
        """The verdict that `as_dict` wrote, also after a way through JSON."""
        interval = fields["interval"]
        return cls(
            outcome=Outcome(fields["outcome"]),
            log_e=float(fields["log_e"]),
            log_threshold=float(fields["log_threshold"]),
            n=fields["n"],
            effect=None if fields["effect"] is None else float(fields["effect"]),
            interval=None if interval is None else (float(interval[0]), float(interval[1])),
            counts=tuple(tuple(row) for row in fields["counts"]),
            sentence=fields["sentence"],
        )

    @property
    def is_decisive(self) -> bool:
        """Whether the evidence reached its threshold, in either direction."""
        return self.outcome in (Outcome.OK, Outcome.WORSE)


def outcome_of(direction: Direction, log_e: float, log_threshold: float) -> Outcome:
    """WORSE or OK, by direction, when log_e >= log_threshold; UNDECIDED below it. NaN evidence is UNKNOWN."""
    if math.isnan(log_e) or math.isnan(log_threshold):
        return Outcome.UNKNOWN
    if log_e < log_threshold:
        return Outcome.UNDECIDED
    return Outcome.WORSE if direction is Direction.ROLLBACK else Outcome.OK


def log_threshold_of(alpha: float, weight: float = 1.0) -> float:
    """ln(1/(alpha * weight)): what log_e must reach, for a test with the share `weight` of the risk `alpha`."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha: got {alpha!r}, expected a number between 0 and 1, both excluded")
    if not 0.0 < weight <= 1.0:
        raise ValueError(f"weight: got {weight!r}, expected a number above 0 and at most 1")
    return -math.log(alpha) - math.log(weight)


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
