"""What the label test says to people and to the rollout."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.evidence import label
from gateway.evidence.counts import Stage
from gateway.evidence.verdict import Direction, Outcome, log_threshold_of

T = log_threshold_of(0.01)


def stage(index: int, pi: float, n_stable: int, n_candidate: int, k_stable: int, k_candidate: int) -> Stage:
    return Stage(index, pi, n_stable, n_candidate, k_stable, k_candidate)


def test_a_worse_candidate_is_worse_and_the_sentence_says_how_much() -> None:
    verdict = label.rollback(
        [stage(1, 0.01, 9900, 100, 99, 3), stage(2, 0.1, 9000, 1000, 90, 24), stage(3, 0.5, 10500, 10500, 100, 240)], T
    )
    assert verdict.outcome is Outcome.WORSE
    assert verdict.sentence == (
        "candidate fails 2.4 times as often (1.7 to 3.5) as stable in 41,000 requests; risk of a false alarm < 1 %"
    )
    assert verdict.n == 41_000
    assert verdict.counts[1] == (2, 0.1, 9000, 1000, 90, 24)


def test_an_incident_on_both_arms_during_a_ramp_is_nobodys_fault() -> None:
    # pooled over the stages, the candidate would seem to fail 2.5 times as often
    ramp = [stage(1, 0.01, 99_000, 1000, 990, 10), stage(2, 0.5, 50_000, 50_000, 2500, 2500)]
    n_b, n_c = sum(s.n_stable for s in ramp), sum(s.n_candidate for s in ramp)
    k_b, k_c = sum(s.k_stable for s in ramp), sum(s.k_candidate for s in ramp)
    assert (k_c / n_c) / (k_b / n_b) > 2.0
    verdict = label.rollback(ramp, T)
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.effect == pytest.approx(1.0)


@pytest.mark.parametrize(("pi", "errors"), [(0.05, 3), (0.1, 3), (0.25, 4), (0.5, 7)])
def test_a_candidate_that_alone_fails_is_found_within_few_errors(pi: float, errors: int) -> None:
    at_five_percent = log_threshold_of(0.05)

    def outcome(k: int) -> Outcome:
        return label.rollback([stage(0, pi, 1000, 1000, 0, k)], at_five_percent).outcome

    assert outcome(errors) is Outcome.WORSE
    assert outcome(errors - 1) is Outcome.UNDECIDED


def test_a_least_number_of_events_holds_back() -> None:
    few = [stage(0, 0.05, 1000, 1000, 0, 4)]
    assert label.rollback(few, T).outcome is Outcome.WORSE
    held = label.rollback(few, T, min_events=5)
    assert held.outcome is Outcome.UNDECIDED
    assert held.log_e >= held.log_threshold


def test_a_candidate_that_goes_bad_late_is_found_soon() -> None:
    good = stage(1, 0.5, 5_000_000, 5_000_000, 50_000, 50_000)
    bad = stage(2, 0.5, 10_000, 10_000, 100, 200)
    assert label.log_e([good, bad], 1.0, Direction.ROLLBACK) < 0.0
    verdict = label.rollback([good, bad], T)
    assert verdict.outcome is Outcome.WORSE
    assert verdict.sentence.startswith(
        "since stage 2, candidate fails 2.0 times as often (1.1 to 3.6) as stable in 20,000"
    )


def test_without_events_only_a_negligible_share_promotes() -> None:
    clean = [stage(0, 0.5, 500_000, 500_000, 0, 0)]
    assert label.promote(clean, T, margin=1.5).outcome is Outcome.UNDECIDED
    verdict = label.promote(clean, T, margin=1.5, negligible=1e-4)
    assert verdict.outcome is Outcome.OK
    assert "in less than 0.01 % of its requests" in verdict.sentence


def test_promotion_needs_the_margin_excluded() -> None:
    equal = [stage(0, 0.5, 20_000, 20_000, 200, 200)]
    verdict = label.promote(equal, log_threshold_of(0.05), margin=2.0)
    assert verdict.outcome is Outcome.OK
    assert verdict.interval is not None
    assert verdict.interval[1] < 2.0
    assert "less than the margin of 2.0; risk of a false promotion < 5 %" in verdict.sentence
    assert label.promote(equal, log_threshold_of(0.05), margin=1.2).outcome is Outcome.UNDECIDED


def test_a_decision_and_its_interval_agree() -> None:
    for k in range(100, 240):
        verdict = label.rollback([stage(0, 0.5, 10_000, 10_000, 100, k)], T)
        assert verdict.interval is not None
        assert (verdict.outcome is Outcome.WORSE) == (verdict.interval[0] >= 1.0)
    # evidence of two histories may decide where neither would alone
    close = 0
    for k in range(150, 200):
        early, late = stage(1, 0.5, 10_000, 10_000, 100, 70), stage(2, 0.5, 10_000, 10_000, 100, k)
        verdict = label.rollback([early, late], T)
        assert verdict.interval is not None
        assert verdict.outcome is not Outcome.WORSE or verdict.interval[0] >= 1.0
        close += verdict.outcome is Outcome.WORSE and verdict.interval[0] == 1.0
    assert close


def test_nothing_seen_is_unknown() -> None:
    verdict = label.rollback([], T)
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.effect is None
    assert verdict.interval == (0.0, math.inf)
    assert verdict.sentence == "no settled requests yet"


def test_a_stage_that_routes_all_to_one_arm_says_nothing() -> None:
    real = [stage(1, 0.5, 1000, 1000, 10, 20)]
    aside = [stage(0, 0.0, 10**6, 0, 10**5, 0), stage(2, 1.0, 0, 10**6, 0, 10**6)]
    assert label.rollback(real + aside, T).log_e == label.rollback(real, T).log_e


STAGES = st.lists(
    st.tuples(st.floats(0.0, 1.0), st.integers(0, 10**12), st.integers(0, 10**12), st.floats(0, 1), st.floats(0, 1)),
    max_size=6,
).map(
    lambda rows: tuple(
        Stage(
            i,
            pi,
            0 if pi == 1 else n,
            0 if pi == 0 else m,
            0 if pi == 1 else round(n * a),
            0 if pi == 0 else round(m * b),
        )
        for i, (pi, n, m, a, b) in enumerate(rows)
    )
)
QUESTIONS = st.builds(
    lambda stages, direction, r0, phi: label.Question(stages, direction, r0, T, phi=phi),
    STAGES,
    st.sampled_from(list(Direction)),
    st.floats(0.1, 10.0),
    st.sampled_from([1.0, 2.5]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(QUESTIONS, min_size=1, max_size=8))
def test_judged_together_is_judged_alone_bit_by_bit(questions: list[label.Question]) -> None:
    assert label.judge(questions) == [label.judge([question])[0] for question in questions]


@settings(max_examples=100, deadline=None)
@given(QUESTIONS)
def test_a_verdict_has_finite_evidence_and_an_interval_around_its_effect(question: label.Question) -> None:
    verdict = label.judge([question])[0]
    assert math.isfinite(verdict.log_e)
    assert verdict.interval is not None
    low, high = verdict.interval
    assert 0.0 <= low <= high
    if verdict.effect is not None and not verdict.is_decisive:
        assert low <= verdict.effect * (1 + 1e-9)
        assert verdict.effect <= high * (1 + 1e-9)


def test_thousands_of_stages_are_judged() -> None:
    stages = [stage(i, (i + 1) / 5001, 9000, 1000, 9, i % 7) for i in range(5000)]
    verdict = label.rollback(stages, T)
    assert math.isfinite(verdict.log_e)
    same_pi = [stage(i, 0.5, 1000, 1000, 5, 7) for i in range(5000)]
    assert label.log_e(same_pi, 1.0, Direction.ROLLBACK) == pytest.approx(
        label.log_e([stage(0, 0.5, 5_000_000, 5_000_000, 25_000, 35_000)], 1.0, Direction.ROLLBACK), rel=1e-12
    )


@pytest.mark.parametrize("pi", [1e-300, 1e-12, 1 - 1e-12])
def test_a_probability_near_its_ends_is_no_trouble(pi: float) -> None:
    verdict = label.rollback([stage(0, pi, 10**12, 1000, 10**6, 3)], T)
    assert math.isfinite(verdict.log_e)
    assert (verdict.outcome is Outcome.WORSE) == (pi < 0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"r0": 0.0}, "r0: got 0.0, expected a relative risk above 0"),
        ({"phi": 0.5}, "phi: got 0.5, expected a number of 1 or more"),
        ({"negligible": 0.1}, "negligible: got a share for a rollback test"),
    ],
)
def test_a_wrong_question_names_the_field(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label.Question(**{"stages": (), "direction": Direction.ROLLBACK, "r0": 1.0, "log_threshold": T, **wrong})  # type: ignore[arg-type]
