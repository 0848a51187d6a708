"""Gaps between groups: against the formula in exact fractions, and where the tolerance, not zero, is the question."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import norm

from gateway.evidence import fairness, label, mean
from gateway.evidence.counts import CountError, Stage
from gateway.evidence.fairness import Stratum
from gateway.evidence.likelihood import FULL_WEIGHT
from gateway.evidence.verdict import Direction, Outcome

LOOSE = math.log(20)
PROMOTE = Direction.PROMOTE


def one_sided(strata: list[Stratum], scale: float, tolerance: float, sign: int) -> float:
    """ln e-value of the one-sided mixture, the sums in exact fractions."""
    s, q = Fraction(0), Fraction(0)
    for x in strata:
        h = Fraction(x.n_group * x.n_reference, x.n_group + x.n_reference)
        p, r, a = Fraction(x.k_group, x.n_group), Fraction(x.k_reference, x.n_reference), Fraction(scale)
        s += h * (sign * (p - a * r) - Fraction(tolerance))
        q += h * h * (p * (1 - p) / (x.n_group - 1) + a * a * r * (1 - r) / (x.n_reference - 1))
    rho = mean.mixture_precision(LOOSE, 500 * 0.16)
    z = float(s) / math.sqrt(float(q) + rho)
    return math.log(2) + math.log(rho / (float(q) + rho)) / 2 + z * z / 2 + float(norm.logcdf(z))


STRATA = [Stratum(0, 1000, 310, 2500, 500), Stratum(1, 400, 60, 900, 100)]


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.1, 0.3])
def test_the_evidence_is_the_mean_of_both_sides(tolerance: float) -> None:
    sides = [math.exp(one_sided(STRATA, 1.0, tolerance, sign)) for sign in (1, -1)]
    log_e = fairness.log_e_gap_above(STRATA, tolerance, LOOSE)
    assert log_e == pytest.approx(math.log(sum(sides) / 2), abs=1e-9)


@pytest.mark.parametrize("tolerance", [0.05, 0.3])
def test_to_promote_both_sides_must_be_rejected(tolerance: float) -> None:
    expected = min(one_sided(STRATA, 1.0, -tolerance, sign) for sign in (1, -1))
    assert fairness.log_e_gap_below(STRATA, tolerance, LOOSE) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("least", [0.8, 1.0])
def test_the_ratio_rule_is_linear_in_the_shares(least: float) -> None:
    expected = one_sided(STRATA, least, 0.0, -1)
    assert fairness.log_e_ratio_below(STRATA, least, LOOSE) == pytest.approx(expected, abs=1e-9)


def test_a_gap_above_the_tolerance_is_worse_whichever_group_is_named_first() -> None:
    there = fairness.gap([Stratum(0, 20_000, 6000, 20_000, 4000)], LOOSE, tolerance=0.05)
    back = fairness.gap([Stratum(0, 20_000, 4000, 20_000, 6000)], LOOSE, tolerance=0.05)
    assert (there.outcome, back.outcome) == (Outcome.WORSE, Outcome.WORSE)
    assert there.log_e == back.log_e
    assert there.sentence.startswith("share of positive answers of the group is 0.10 (0.")
    assert " below the reference's in 40,000 requests; risk of a false alarm < 5 %" in back.sentence


def test_a_gap_within_the_tolerance_is_never_worse_however_much_data_there_is() -> None:
    small_but_certain = [Stratum(0, 10**9, 240_000_000, 10**9, 200_000_000)]
    assert fairness.gap(small_but_certain, LOOSE, tolerance=0.05).outcome is Outcome.UNDECIDED
    assert fairness.gap(small_but_certain, LOOSE, tolerance=0.05, direction=PROMOTE).outcome is Outcome.OK


def test_a_group_that_comes_in_bad_hours_is_not_ill_treated() -> None:
    """Simpson: within each hour the shares are equal; pooled they differ by 24 points."""
    good, bad = Stratum(0, 1000, 800, 9000, 7200), Stratum(1, 9000, 4500, 1000, 500)
    pooled = Stratum(0, 10_000, 5300, 10_000, 7700)
    assert fairness.log_e_gap_above([good, bad], 0.05, LOOSE) < 0.0
    assert fairness.log_e_gap_above([pooled], 0.05, LOOSE) > 100.0


def test_four_fifths() -> None:
    assert fairness.ratio([Stratum(0, 5000, 700, 5000, 1000)], LOOSE).outcome is Outcome.WORSE
    fine = fairness.ratio([Stratum(0, 5000, 850, 5000, 1000)], LOOSE, group="women", reference="men")
    assert fine.outcome is Outcome.UNDECIDED
    assert fine.sentence.startswith("women gets the positive answer 0.85 times as often as men in 10,000 requests")


@pytest.mark.parametrize("cell", [(299, 100), (1000, 29), (1000, 975)])
def test_small_cells_are_unknown(cell: tuple[int, int]) -> None:
    strata = [Stratum(0, *cell, 10_000, 2000)]
    assert fairness.gap(strata, LOOSE, tolerance=0.0).outcome is Outcome.UNKNOWN
    assert fairness.ratio(strata, LOOSE).outcome is Outcome.UNKNOWN


def test_equalised_odds_averages_the_two_gaps() -> None:
    assert fairness.combined([math.log(30), math.log(10)]) == pytest.approx(math.log(20))
    assert fairness.combined([]) == 0.0


def test_any_group_is_the_mean_of_the_label_tests_and_names_the_worst() -> None:
    groups = {
        "north": [Stage(0, 0.1, 9000, 1000, 90, 10)],
        "south": [Stage(0, 0.1, 9000, 1000, 90, 45)],
    }
    verdict = fairness.any_group(groups, LOOSE)
    each = [math.exp(label.log_e(stages, 1.0, Direction.ROLLBACK)) * FULL_WEIGHT for stages in groups.values()]
    assert verdict.log_e == pytest.approx(math.log(sum(each) / 2))
    assert verdict.outcome is Outcome.WORSE
    assert verdict.sentence.startswith("of 2 groups most in south: candidate fails ")
    assert verdict.sentence.endswith("risk of a false alarm < 5 %")
    assert {row[0] for row in verdict.counts} == {"north", "south"}


def test_any_order_of_merging_and_of_groups_gives_the_same_bits() -> None:
    rng = np.random.default_rng(1)
    parts = [Stratum(i % 4, 500, int(rng.integers(50, 200)), 700, int(rng.integers(50, 200))) for i in range(20)]
    assert fairness.gap(parts, LOOSE, tolerance=0.02) == fairness.gap(parts[::-1], LOOSE, tolerance=0.02)
    stages = [Stage(0, 0.2, 100, 30, 5, 4)]
    assert fairness.any_group({"a": stages, "b": []}, LOOSE) == fairness.any_group({"b": [], "a": stages}, LOOSE)


def test_nonsense_is_refused_by_name() -> None:
    with pytest.raises(CountError, match="k_group: got 5"):
        Stratum(0, 4, 5, 9, 9)
    with pytest.raises(ValueError, match="tolerance: got 1"):
        fairness.gap([], LOOSE, tolerance=1.0)
    with pytest.raises(ValueError, match="least: got 0"):
        fairness.ratio([], LOOSE, least=0.0)
    with pytest.raises(ValueError, match="by_group: got no group"):
        fairness.any_group({}, LOOSE)
