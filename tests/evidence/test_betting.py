"""Bounded metrics by bets: against a twin written request by request, and the martingale by enumeration."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.evidence import betting
from gateway.evidence.counts import BinnedStage, CountError
from gateway.evidence.likelihood import FULL_WEIGHT
from gateway.evidence.verdict import Direction, Outcome, log_threshold_of

METRIC = betting.Metric(centre=0.3)
ROLLBACK, PROMOTE = Direction.ROLLBACK, Direction.PROMOTE


def twin(requests: list[tuple[float, int, float]], m: float, tolerance: float) -> float:
    """ln e-value from single requests (pi, arm, y in 0..1), against "drop at most tolerance"; from the definition."""
    capitals = []
    for j in range(16):
        share = 0.001 * 500.0 ** (j / 15)
        capital = 1.0
        for pi, arm, y in requests:
            x = -(arm - pi) * (y - m) / (pi * (1.0 - pi))
            largest = 1.0 / (max((1.0 - m) / pi, m / (1.0 - pi)) + tolerance)
            capital *= 1.0 + share * largest * (x - tolerance)
        capitals.append(capital)
    return math.log(sum(capitals) / 16)


def count(requests: list[tuple[float, int, float]], levels: int) -> list[BinnedStage]:
    """The requests as counts; a change of pi begins a stage."""
    stages = []
    for index, pi in enumerate(sorted({pi for pi, _, _ in requests})):
        table = np.zeros((2, levels + 1), int)
        for its_pi, arm, y in requests:
            if its_pi == pi:
                table[arm, round(y * levels)] += 1
        stages.append(BinnedStage(index, pi, tuple(table[0].tolist()), tuple(table[1].tolist())))
    return stages


request_lists = st.lists(
    st.tuples(st.sampled_from([0.01, 0.1, 0.5]), st.integers(0, 1), st.integers(0, 10).map(lambda k: k / 10)),
    min_size=1,
    max_size=40,
)


@given(request_lists, st.floats(0.0, 1.0), st.floats(0.0, 0.5))
def test_counts_give_what_requests_one_by_one_give(
    requests: list[tuple[float, int, float]], centre: float, tolerance: float
) -> None:
    metric = betting.Metric(centre)
    log_e = betting.log_e(count(requests, 10), metric, tolerance, ROLLBACK)
    assert log_e == pytest.approx(twin(requests, centre, tolerance), abs=1e-9)


@given(request_lists, st.floats(0.01, 0.5))
def test_a_promote_test_is_the_rollback_test_of_the_mirrored_metric(
    requests: list[tuple[float, int, float]], margin: float
) -> None:
    mirrored = [(pi, arm, 1.0 - y) for pi, arm, y in requests]
    log_e = betting.log_e(count(requests, 10), METRIC, margin, PROMOTE)
    assert log_e == pytest.approx(twin(mirrored, 0.7, -margin), abs=1e-9)


@pytest.mark.parametrize("pi", [Fraction(1, 10), Fraction(1, 2)])
@pytest.mark.parametrize("centre", [0.0, 0.3, 0.9])
def test_at_the_limit_the_mean_over_all_outcomes_of_five_requests_is_one(pi: Fraction, centre: float) -> None:
    """Exact enumeration, arm by arm, answer by answer; the drop is the tolerance, the means change with each."""
    drop = Fraction(1, 10)
    stable_means = [Fraction(k, 20) for k in (4, 10, 3, 18, 7)]  # drift from request to request
    total = 0.0
    for outcome in itertools.product([(0, 0), (0, 1), (1, 0), (1, 1)], repeat=5):
        chance = Fraction(1)
        for (arm, y), mean in zip(outcome, stable_means, strict=True):
            p = mean - drop if arm else mean
            chance *= (pi if arm else 1 - pi) * (p if y else 1 - p)
        requests = [(float(pi), arm, float(y)) for arm, y in outcome]
        total += float(chance) * math.exp(betting.log_e(count(requests, 1), betting.Metric(centre), 0.1, ROLLBACK))
    assert total == pytest.approx(1.0, abs=1e-12)


def test_below_the_limit_the_mean_is_less_than_one() -> None:
    total = 0.0
    for outcome in itertools.product([(0, 0), (0, 1), (1, 0), (1, 1)], repeat=4):
        chance = math.prod((0.25 if arm else 0.75) * (0.4 if y else 0.6) for arm, y in outcome)
        requests = [(0.25, arm, float(y)) for arm, y in outcome]
        total += chance * math.exp(betting.log_e(count(requests, 1), METRIC, 0.1, ROLLBACK))
    assert total < 1.0


def test_the_mean_with_restarts_is_one_too() -> None:
    total = 0.0
    for outcome in itertools.product([(0, 0), (0, 1), (1, 0), (1, 1)], repeat=4):
        chance, requests = 1.0, []
        for step, (arm, y) in enumerate(outcome):
            pi = 0.2 if step < 2 else 0.5
            chance *= (pi if arm else 1 - pi) * (0.3 if y else 0.7)
            requests.append((pi, arm, float(y)))
        stages = count(requests, 1)
        total += chance * math.exp(betting.log_e_with_restarts(stages, METRIC, 0.0, ROLLBACK).log_e)
    # what is reserved for stages that never come is lost
    assert total == pytest.approx(FULL_WEIGHT + (1.0 - FULL_WEIGHT) / 2.0, abs=1e-12)


def test_evidence_falls_as_the_tested_drop_grows() -> None:
    stages = count([(0.5, 1, 0.1), (0.5, 0, 0.9), (0.1, 1, 0.2), (0.1, 0, 0.4)] * 20, 10)
    log_es = [betting.log_e(stages, METRIC, d, ROLLBACK) for d in np.linspace(0.0, 0.9, 40)]
    assert all(a >= b for a, b in itertools.pairwise(log_es))


def test_the_interval_is_the_set_of_differences_that_no_test_rejects() -> None:
    rng = np.random.default_rng(3)
    arms, values = rng.random(4000) < 0.3, rng.integers(0, 11, 4000)
    requests = [(0.3, int(a), min(10, v + a) / 10) for a, v in zip(arms.tolist(), values.tolist(), strict=True)]
    requests = [(pi, a, float(y)) for pi, a, y in requests]
    stages, log_threshold = count(requests, 10), math.log(20)
    low, high = betting.interval(stages, METRIC, log_threshold)
    assert low < 0.1 < high
    assert low > 0.0
    rising = [(pi, a, 1.0 - y) for pi, a, y in requests]
    assert twin(rising, 0.7, low) == pytest.approx(log_threshold, abs=1e-3)
    assert twin(requests, 0.3, -high) == pytest.approx(log_threshold, abs=1e-3)


def test_units_do_not_matter() -> None:
    stages = count([(0.5, 1, 0.1), (0.5, 0, 0.9)] * 30, 10)
    euros = betting.Metric(centre=130.0, low=100.0, high=200.0)
    assert betting.log_e(stages, euros, 5.0, ROLLBACK) == pytest.approx(betting.log_e(stages, METRIC, 0.05, ROLLBACK))
    assert betting.estimate(stages, euros) == pytest.approx(-80.0)


def test_a_metric_where_lower_is_better_alarms_on_a_rise() -> None:
    stages = count([(0.5, 1, 0.9), (0.5, 0, 0.1)] * 30, 10)
    cost = betting.Metric(centre=0.3, is_higher_better=False, name="cost")
    assert betting.rollback(stages, cost, math.log(100), tolerated=0.0).outcome is Outcome.WORSE
    assert betting.rollback(stages, METRIC, math.log(100), tolerated=0.0).outcome is Outcome.UNDECIDED


def test_an_incident_that_hits_both_arms_while_the_ramp_goes_up_is_no_evidence() -> None:
    calm = BinnedStage(0, 0.01, (8910, 990), (90, 10))
    incident = BinnedStage(1, 0.5, (500, 500), (500, 500))
    assert betting.log_e_with_restarts([calm, incident], METRIC, 0.0, ROLLBACK).log_e < 0.5


@settings(max_examples=30)
@given(request_lists, st.randoms())
def test_any_order_of_merging_gives_the_same_bits(requests: list[tuple[float, int, float]], random: object) -> None:
    whole = betting.rollback(count(requests, 10), METRIC, log_threshold_of(0.01), tolerated=0.02)
    pis = sorted({pi for pi, _, _ in requests})
    parts = []
    for pi, arm, y in requests:
        (part,) = count([(pi, arm, y)], 10)
        parts.append(BinnedStage(pis.index(pi), pi, part.stable, part.candidate))
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert betting.rollback(parts, METRIC, log_threshold_of(0.01), tolerated=0.02) == whole


@pytest.mark.parametrize("pi", [1e-9, 1.0 - 1e-9, 0.5])
@pytest.mark.parametrize("scale", [0, 1, 10**12])
def test_extreme_counts_and_probabilities_give_finite_numbers(pi: float, scale: int) -> None:
    stages = [BinnedStage(0, pi, (3 * scale, scale), (2 * scale, scale))]
    for verdict in (
        betting.rollback(stages, METRIC, math.log(100), tolerated=0.0),
        betting.promote(stages, METRIC, math.log(20), margin=0.1),
    ):
        assert not math.isnan(verdict.log_e)
        assert verdict.outcome is not Outcome.UNKNOWN or scale == 0


def test_stages_that_cannot_tell_change_nothing() -> None:
    telling = BinnedStage(2, 0.5, (30, 10), (35, 2))
    shadow, full = BinnedStage(0, 0.0, (50, 50), (0, 0)), BinnedStage(9, 1.0, (0, 0), (7, 9))
    assert betting.log_e([shadow, telling, full], METRIC, 0.0, ROLLBACK) == betting.log_e(
        [telling], METRIC, 0.0, ROLLBACK
    )


def test_no_data_is_unknown() -> None:
    verdict = betting.rollback([], METRIC, math.log(100), tolerated=0.0)
    assert (verdict.outcome, verdict.log_e, verdict.effect, verdict.interval) == (Outcome.UNKNOWN, 0.0, None, None)


def test_the_sentence_says_how_far_and_how_sure() -> None:
    stages = count([(0.5, 1, 0.2), (0.5, 0, 0.3), (0.5, 1, 0.1), (0.5, 0, 0.4)] * 400, 10)
    metric = betting.Metric(0.3, name="mean score")
    verdict = betting.rollback(stages, metric, log_threshold_of(0.01), tolerated=0.01)
    assert verdict.sentence.startswith("candidate's mean score is 0.20 (0.1")
    assert verdict.sentence.endswith(" below stable's in 1,600 requests; risk of a false alarm < 1 %")


def test_a_level_with_a_uniform_dither_has_the_value_as_its_mean() -> None:
    metric = betting.Metric(0.0, low=-2.0, high=3.0)
    levels = [metric.level(0.77, 8, (i + 0.5) / 10_000) for i in range(10_000)]
    assert sum(levels) / 10_000 * 5.0 / 8 - 2.0 == pytest.approx(0.77, abs=1e-4)


@pytest.mark.parametrize(("value", "level"), [(-1.0, 0), (0.0, 0), (0.126, 1), (1.0, 4), (7.0, 4), (math.inf, 4)])
def test_levels_round_and_clip(value: float, level: int) -> None:
    assert METRIC.level(value, 4) == level


def test_nonsense_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="value: got nan"):
        METRIC.level(math.nan, 4)
    with pytest.raises(ValueError, match=r"centre: got 2\.0"):
        betting.Metric(2.0)
    with pytest.raises(ValueError, match=r"limit: got 1\.0"):
        betting.rollback([], METRIC, 3.0, tolerated=1.0)
    with pytest.raises(ValueError, match="stable: got 1 level"):
        betting.log_e([BinnedStage(0, 0.5, (3,), (4,))], METRIC, 0.0, ROLLBACK)
    with pytest.raises(CountError):
        BinnedStage(0, 0.5, (3, 1), (4,))


@pytest.mark.parametrize("is_higher_better", [True, False])
@pytest.mark.parametrize("direction", [ROLLBACK, PROMOTE])
def test_a_decisive_verdict_has_an_interval_on_its_side_of_the_limit(
    is_higher_better: bool, direction: Direction
) -> None:
    metric = betting.Metric(0.5, is_higher_better=is_higher_better)
    is_high = is_higher_better is (direction is PROMOTE)
    arms = (0.3, 0.6) if is_high else (0.6, 0.3)
    requests = [(pi, arm, arms[arm]) for pi in (0.1, 0.5) for arm in (0, 1)] * 300
    judge = betting.rollback if direction is ROLLBACK else betting.promote
    name = "tolerated" if direction is ROLLBACK else "margin"
    verdict = judge(count(requests, 10), metric, math.log(20), **{name: 0.05})
    assert verdict.is_decisive
    assert verdict.interval is not None
    limit = -0.05 if is_higher_better else 0.05
    assert verdict.interval[0] >= limit if is_high else verdict.interval[1] <= limit
