"""A verdict on a difference of two means: what `betting`, `mean` and `fairness` share in their last step."""

from __future__ import annotations

import math

from gateway.evidence import sentence
from gateway.evidence.verdict import Direction, Outcome, Row, Verdict, outcome_of


def verdict(
    direction: Direction,
    log_e: float,
    log_threshold: float,
    *,
    n: int,
    effect: float | None,
    interval: tuple[float, float] | None,
    counts: tuple[Row, ...],
    subject: str,
    reference: str,
    since: int | None = None,
    shown: tuple[int, float] | None = None,
) -> Verdict:
    """The verdict with its sentence; `subject`'s value minus `reference`'s is the effect. No effect: UNKNOWN.

    `shown`: what a decisive test has shown, (1, d) for an effect above d and (-1, d) for one below; the interval, which
    comes from one of the histories that the evidence is a mixture of, is cut to it.
    """
    outcome = Outcome.UNKNOWN if effect is None else outcome_of(direction, log_e, log_threshold)
    if shown is not None and interval is not None and outcome in (Outcome.WORSE, Outcome.OK):
        side, limit = shown
        cut = max if side > 0 else min
        interval = (cut(interval[0], limit), cut(interval[1], limit))
    if effect is None:
        text = f"{subject} against {reference}: too few values to tell"
    else:
        tail = {
            Outcome.WORSE: sentence.risk(log_threshold),
            Outcome.OK: sentence.risk(log_threshold, "a false promotion"),
        }.get(outcome, sentence.undecided(log_e, log_threshold))
        scope = f"since stage {since}, " if since is not None and outcome is Outcome.WORSE else ""
        text = f"{scope}{subject} is {_apart(effect, interval)} {reference} in {sentence.requests(n)} requests; {tail}"
    return Verdict(outcome, log_e, log_threshold, n, effect, interval, counts, text)


def side_shown(direction: Direction, limit: float, *, is_higher_better: bool) -> tuple[int, float]:
    """What rejecting "worse by at most `limit`" (PROMOTE: "by `limit` or more") shows of candidate minus stable."""
    return (
        1 if is_higher_better is (direction is Direction.PROMOTE) else -1,
        -limit if is_higher_better else limit,
    )


def _apart(effect: float, interval: tuple[float, float] | None) -> str:
    """ "0.012 (0.008 to 0.016) below"; signs turned so that the estimate reads as a distance."""
    word = "below" if effect < 0.0 else "above"
    size = sentence.number(abs(effect))
    if interval is None:
        return f"{size} {word}"
    low, high = interval if effect >= 0.0 else (-interval[1], -interval[0])
    if math.isinf(low) or math.isinf(high):
        return f"{size} {word}"
    return f"{size} ({sentence.number(low)} to {sentence.number(high)}) {word}"
