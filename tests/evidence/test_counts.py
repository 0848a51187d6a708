"""Counts add up, in any order, and refuse what cannot be; verdicts survive JSON."""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.evidence import combine, distribution, label, latency, paired, ratio, sentence
from gateway.evidence.counts import MAX_COUNT, BinnedStage, CountError, Stage, merge
from gateway.evidence.verdict import Direction, Outcome, Verdict, log_threshold_of, outcome_of

T = log_threshold_of(0.05)
PIS = (0.01, 0.05, 0.25, 0.25, 0.5)  # of stages 0 to 4

PARTS = st.lists(
    st.builds(
        lambda i, n, m, a, b: Stage(i, PIS[i], n, m, round(n * a), round(m * b)),
        st.integers(0, 4),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.floats(0, 1),
        st.floats(0, 1),
    ),
    min_size=1,
    max_size=12,
)
BINNED = st.lists(
    st.builds(
        lambda i, bins: BinnedStage(i, PIS[i], bins[:4], bins[4:]),
        st.integers(0, 4),
        st.tuples(*[st.integers(0, 1000)] * 8),
    ),
    min_size=1,
    max_size=8,
)
PAIRS = st.lists(
    st.builds(
        lambda i, n, a, b: paired.PairStage(i, n + a, a, n + b, b, n // 2),
        st.integers(0, 4),
        st.integers(0, 9999),
        st.integers(0, 999),
        st.integers(0, 999),
    ),
    min_size=1,
    max_size=8,
)


def all_verdicts(stages: list[Stage], binned: list[BinnedStage], pairs: list[paired.PairStage]) -> tuple[Verdict, ...]:
    budget = combine.Budget.even(0.05, ["errors", "latency", "outputs"])
    t = budget.log_threshold("errors")
    worse = {
        "errors": label.rollback(stages, t),
        "latency": latency.rollback(binned, [10, 20, 30], t),
        "outputs": distribution.rollback(binned, t),
    }
    return (
        *worse.values(),
        label.promote(stages, T, margin=1.5, negligible=0.001),
        latency.promote(binned, [10, 20, 30], T, margin=1.3),
        distribution.rollback(binned, T, tolerated=1.2),
        paired.disagreement(pairs, T, limit=0.02),
        paired.disagreement(pairs, T, limit=0.02, direction=Direction.PROMOTE),
        paired.correctness(pairs, T),
        paired.correctness(pairs, T, loss=0.01, direction=Direction.PROMOTE),
        ratio.check(stages, T),
        combine.rollback(worse, budget),
        combine.rollback(worse, budget, pooled=True),
    )


@settings(max_examples=40, deadline=None)
@given(PARTS, BINNED, PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_merging_changes_no_bit_of_any_verdict(
    stages: list[Stage], binned: list[BinnedStage], pairs: list[paired.PairStage], rng: random.Random
) -> None:
    first = all_verdicts(stages, binned, pairs)
    assert all_verdicts(list(merge(stages)), list(merge(binned)), list(merge(pairs))) == first
    for parts in (stages, binned, pairs):
        rng.shuffle(parts)
    halves = [*merge(stages[: len(stages) // 2]), *merge(stages[len(stages) // 2 :])]
    again = all_verdicts(halves, binned, pairs)
    assert again == first
    assert repr(again) == repr(first)


@settings(max_examples=20, deadline=None)
@given(PARTS, BINNED, PAIRS)
def test_a_verdict_survives_json(stages: list[Stage], binned: list[BinnedStage], pairs: list[paired.PairStage]) -> None:
    for verdict in all_verdicts(stages, binned, pairs):
        text = json.dumps(verdict.as_dict(), allow_nan=False)
        assert Verdict.from_dict(json.loads(text)) == verdict


@settings(max_examples=20, deadline=None)
@given(PARTS)
def test_an_empty_stage_changes_no_bit(stages: list[Stage]) -> None:
    empty = [Stage(i, pi, 0, 0, 0, 0) for i, pi in enumerate(PIS)]
    for ask in (lambda s: label.rollback(s, T), lambda s: label.promote(s, T, margin=2.0), lambda s: ratio.check(s, T)):
        with_empty, without = ask(stages + empty), ask(stages)
        assert with_empty.log_e == without.log_e
        assert with_empty.interval == without.interval


@settings(max_examples=20, deadline=None)
@given(BINNED)
def test_an_empty_stage_of_bins_changes_no_bit(stages: list[BinnedStage]) -> None:
    empty = [BinnedStage(i, pi, (0,) * 4, (0,) * 4) for i, pi in enumerate(PIS)]
    for ask in (
        lambda s: latency.rollback(s, [10, 20, 30], T),
        lambda s: latency.promote(s, [10, 20, 30], T, margin=1.2),
        lambda s: distribution.rollback(s, T),
        lambda s: distribution.rollback(s, T, tolerated=1.1),
    ):
        assert ask(stages + empty).log_e == ask(stages).log_e


def test_numpy_integers_and_fractions_are_taken() -> None:
    stage = Stage(np.int64(1), Fraction(1, 10), np.uint32(9), np.int64(3), 0, np.int8(2))  # type: ignore[arg-type]
    assert stage == Stage(1, 0.1, 9, 3, 0, 2)
    assert json.dumps(stage.as_row()) == "[1, 0.1, 9, 3, 0, 2]"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k_candidate": 6}, r"k_candidate: got 6, expected at most n_candidate = 5"),
        ({"k_stable": 6}, r"k_stable: got 6, expected at most n_stable = 5"),
        ({"n_stable": -1}, rf"n_stable: got -1, expected a whole number from 0 to {MAX_COUNT}"),
        ({"n_stable": 1.0}, r"n_stable: got 1.0, expected a whole number"),
        ({"n_stable": True}, r"n_stable: got True, expected a whole number"),
        ({"n_stable": 2**53 + 1}, r"n_stable: got 9007199254740993, expected a whole number"),
        ({"pi": 1.5}, r"pi: got 1.5, expected a probability from 0 to 1"),
        ({"pi": math.nan}, r"pi: got nan, expected a probability from 0 to 1"),
        ({"pi": "half"}, r"pi: got 'half', expected a probability from 0 to 1"),
        ({"pi": 0.0}, r"n_candidate: got 5, expected no request on the candidate in a stage where pi is 0"),
        ({"pi": 1.0}, r"n_stable: got 5, expected no request on stable in a stage where pi is 1"),
    ],
)
def test_counts_that_cannot_be_are_refused(fields: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"index": 0, "pi": 0.5, "n_stable": 5, "n_candidate": 5, "k_stable": 0, "k_candidate": 0}
    with pytest.raises(CountError, match=message):
        Stage(**(good | fields))  # type: ignore[arg-type]


def test_only_the_same_stage_adds_up() -> None:
    one = Stage(1, 0.1, 1, 1, 0, 0)
    with pytest.raises(CountError, match="index: got 2, expected 1: only counts of the same stage"):
        one + Stage(2, 0.1, 1, 1, 0, 0)
    with pytest.raises(CountError, match=r"pi: got 0.2, expected 0.1, the probability of stage 1"):
        one + Stage(1, 0.2, 1, 1, 0, 0)
    with pytest.raises(CountError, match="candidate: got 1, expected as many bins as stable: 2"):
        BinnedStage(0, 0.5, (1, 2), (1,))


def test_an_outcome_follows_from_direction_and_threshold() -> None:
    assert outcome_of(Direction.ROLLBACK, 3.0, 3.0) is Outcome.WORSE
    assert outcome_of(Direction.PROMOTE, 3.0, 3.0) is Outcome.OK
    assert outcome_of(Direction.PROMOTE, 2.999, 3.0) is Outcome.UNDECIDED
    assert outcome_of(Direction.PROMOTE, -math.inf, 3.0) is Outcome.UNDECIDED
    assert outcome_of(Direction.PROMOTE, math.nan, 3.0) is Outcome.UNKNOWN
    assert log_threshold_of(0.01, 0.5) == pytest.approx(math.log(200))
    with pytest.raises(ValueError, match=r"alpha: got 1.0, expected a number between 0 and 1"):
        log_threshold_of(1.0)
    with pytest.raises(ValueError, match="weight: got 0, expected a number above 0"):
        log_threshold_of(0.1, 0)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0024, "0.0024"), (0.95, "0.95"), (2.44, "2.4"), (36.2, "36"), (41234, "41,234"), (0, "0")]
)
def test_numbers_are_written_for_people(value: float, text: str) -> None:
    assert sentence.number(value) == text


def test_counts_and_shares_are_written_for_people() -> None:
    assert [sentence.requests(n) for n in (840, 9120, 41_049, 1_234_567)] == ["840", "9,120", "41,000", "1,230,000"]
    assert [sentence.percent(p) for p in (0.01, 0.0005, 0.123, 0.0)] == ["1 %", "0.05 %", "12 %", "0 %"]
    assert sentence.span(1.7, math.inf) == "(1.7 or more)"
    assert sentence.span(0.0, math.inf) == "(nothing known yet)"
