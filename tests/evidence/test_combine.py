"""One budget over many guardrails."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence import combine
from gateway.evidence.combine import Budget
from gateway.evidence.verdict import Direction, Outcome, Verdict, log_threshold_of, outcome_of


def verdict(log_e: float, threshold: float, direction: Direction = Direction.ROLLBACK, n: int = 100) -> Verdict:
    return Verdict(
        outcome_of(direction, log_e, threshold), log_e, threshold, n, None, None, (), f"evidence {log_e:.1f}"
    )


BUDGET = Budget.of(0.01, {"errors": 0.5, "latency": 0.3, "outputs": 0.2})


def asked(**log_es: float) -> dict[str, Verdict]:
    return {name: verdict(log_e, BUDGET.log_threshold(name)) for name, log_e in log_es.items()}


def test_a_guardrail_acts_at_its_own_share() -> None:
    assert BUDGET.log_threshold("errors") == pytest.approx(math.log(200))
    assert combine.rollback(asked(errors=5.2, latency=5.7), BUDGET).outcome is Outcome.UNDECIDED
    done = combine.rollback(asked(errors=5.3, latency=5.7), BUDGET)
    assert done.outcome is Outcome.WORSE
    assert done.log_e >= done.log_threshold
    assert done.sentence == "errors: evidence 5.3"
    assert done.counts == (("errors", "worse", 5.3), ("latency", "undecided", 5.7))


def test_pooled_evidence_acts_together_and_never_later() -> None:
    parts = asked(errors=5.2, latency=5.7)
    pooled = combine.rollback(parts, BUDGET, pooled=True)
    assert math.exp(pooled.log_e) == pytest.approx(0.5 * math.exp(5.2) + 0.3 * math.exp(5.7))
    assert pooled.outcome is Outcome.WORSE
    assert pooled.sentence == "all guardrails together, most of all errors; risk of a false alarm < 1 %"


def test_what_is_unknown_or_held_back_adds_nothing() -> None:
    t = BUDGET.log_threshold("errors")
    frozen = Verdict(Outcome.UNKNOWN, 50.0, t, 9, None, None, (), "frozen")
    held = Verdict(Outcome.UNDECIDED, 50.0, t, 9, None, None, (), "too few events")
    for silent in (frozen, held):
        both = combine.rollback({"errors": silent}, BUDGET, pooled=True)
        assert both.outcome is Outcome.UNKNOWN
        assert both.log_e == -math.inf
    assert combine.rollback({}, BUDGET).outcome is Outcome.UNKNOWN


def test_shares_are_fixed_before_the_start() -> None:
    with pytest.raises(ValueError, match=r"verdicts: got 'late', expected one of errors, latency, outputs"):
        combine.rollback({"late": verdict(1.0, 9.0)}, BUDGET)
    with pytest.raises(ValueError, match=r"verdicts\[errors\].log_threshold: got 4.6"):
        combine.rollback({"errors": verdict(1.0, log_threshold_of(0.01))}, BUDGET)
    with pytest.raises(ValueError, match=r"weights: got shares that sum to 1.2, expected at most 1"):
        Budget.of(0.01, {"a": 0.6, "b": 0.6})
    assert Budget.even(0.01, "cab").weights == tuple((name, 1 / 3) for name in "abc")


def test_promotion_needs_every_guardrail_at_the_full_alpha() -> None:
    t = log_threshold_of(0.05)
    good = {name: verdict(4.0, t, Direction.PROMOTE) for name in ("errors", "latency")}
    done = combine.promote(good, ["latency", "errors"], 0.05)
    assert done.outcome is Outcome.OK
    assert done.sentence == "shown good by all of errors, latency; risk of a false promotion < 5 %"
    slow = good | {"latency": verdict(1.0, t, Direction.PROMOTE)}
    waiting = combine.promote(slow, good, 0.05)
    assert waiting.outcome is Outcome.UNDECIDED
    assert waiting.sentence == "1 of 2 guardrails not shown good yet; last latency: evidence 1.0"
    assert combine.promote(good, ["errors", "outputs"], 0.05).outcome is Outcome.UNKNOWN
    with pytest.raises(ValueError, match="names: got none"):
        combine.promote(good, [], 0.05)
    with pytest.raises(ValueError, match="log_threshold"):
        combine.promote(good, good, 0.01)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-5, 12)), st.sampled_from([0.01, 0.05, 0.3]))
def test_naming_is_the_definition_of_e_bh(log_es: dict[str, float], alpha: float) -> None:
    k_all = len(log_es)
    ordered = sorted(log_es.values(), reverse=True)
    sizes = [k for k in range(1, k_all + 1) if ordered[k - 1] >= math.log(k_all / (alpha * k))]
    named = combine.named(log_es, alpha)
    assert len(named) == max(sizes, default=0)
    assert sorted(named, key=lambda name: (-log_es[name], name)) == list(named)


def test_naming_blames_few_innocents_exactly() -> None:
    # three independent e-values of 0 or 1/p; the first two are null: all outcomes enumerated
    alpha, p = 0.2, 0.1
    rate = 0.0
    for fires in itertools.product((0, 1), repeat=3):
        weight = math.prod((p if f else 1 - p) if i < 2 else (0.9 if f else 0.1) for i, f in enumerate(fires))
        log_es = {"abc"[i]: (math.log(1 / p) if f else -math.inf) if i < 2 else 9.0 * f for i, f in enumerate(fires)}
        named = combine.named(log_es, alpha)
        rate += weight * sum(name in "ab" for name in named) / max(1, len(named))
    assert 0.0 < rate <= alpha
