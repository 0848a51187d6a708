"""What an operator may write, and what is refused before it can hurt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.rollout.baseline import Baseline, freeze_latency
from gateway.rollout.forecast import describe, stretches
from gateway.rollout.plan import HARD_SHARE, PlanError, load, parse
from tests.support.rollouts import EDGES_US, World, latency_baseline
from tests.support.rollouts import plan as quick_plan

THREE_LINES = {"model": "fraud", "candidate": 2, "strategy": "canary"}


def test_three_lines_are_a_plan_with_guardrails_that_can_take_back(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("model: fraud\ncandidate: 2\nstrategy: canary\n")
    plan = load(tmp_path / "plan.yaml")
    assert set(plan.guardrails) == {"errors", "latency", "broken", "outputs", "disagreement"}
    assert all(guardrail.action == "rollback" for guardrail in plan.guardrails.values())
    assert [step.weight for step in plan.steps] == [1, 5, 10, 25, 50]
    assert plan.required(shadow=False) == ("errors", "latency")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"guardrails": {}}, "guardrails: got a mapping, expected at least one"),
        ({"guardrails": None}, "guardrails: got null, expected guardrails by name"),
        (
            {"guardrails": dict.fromkeys(("errors", "latency", "broken", "outputs", "disagreement"), "off")},
            "guardrails: all are off",
        ),
        (
            {"guardrails": {name: {"action": "alert"} for name in ("errors", "latency", "broken", "outputs")}
             | {"disagreement": False}},
            "none has the action rollback",
        ),
        ({"guardrails": {"hard": {"kind": "errors"}}}, "guardrails.hard: is the name of the facts"),
        ({"guardrails": {"errors": "off", "latency": "off"}}, "none that is required compares the arms"),
        ({"guardrails": {"errors": {"margin": 1.05}}}, "margin: got 1.05, expected more than tolerated (1.1)"),
        ({"guardrails": {"errors": {"marjin": 2}}}, "guardrails.errors.marjin: unknown field"),
        ({"guardrails": {"sales": {"kind": "metric", "centre": 2, "tolerated": 0.1}}}, "expected low <= centre"),
        ({"strategy": "shadow", "guardrails": {"disagreement": "off"}}, "a shadow without a required comparison"),
        ({"strategy": ["canary", "shadow"]}, "strategy: got [\"canary\", \"shadow\"], expected shadow, canary"),
        ({"strategy": "canary", "breaking": True}, "expected strategy: blue_green"),
        ({"stable": 2}, "candidate: got 2, which is stable already"),
        ({"candidate": 0}, "candidate: got 0, expected the number of a version"),
        ({"steps": [10, 5]}, "steps: got weights that do not rise"),
        ({"steps": [5, 99]}, "steps: got 99 % as the last, expected at most the 95 %"),
        ({"steps": [{"weight": 5, "relax": 2}]}, "steps: got a last one that relaxes the margins"),
        ({"steps": [{"weight": 5, "min_time": "2h", "max_time": "1h"}]}, "steps[0].max_time: is over before"),
        ({"steps": []}, "steps: got [], expected at least 1 entries"),
        ({"risk": {"rollback": 0}}, 'risk.rollback: got 0, expected a share between 0 and 1, such as 0.005 or "0.5 %"'),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_safe_is_refused_and_says_what_to_change(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError) as error:
        parse({**THREE_LINES, **fields})
    assert says in str(error.value)


def test_a_guardrail_is_changed_field_by_field_or_turned_off_and_others_are_added() -> None:
    plan = parse(
        {
            **THREE_LINES,
            "guardrails": {
                "errors": {"negligible": "1 %"},
                "outputs": "off",
                "sales": {"kind": "metric", "centre": 0.05, "tolerated": 0.005},
            },
        }
    )
    assert set(plan.guardrails) == {"errors", "latency", "broken", "disagreement", "sales"}
    errors = plan.guardrails["errors"]
    assert errors.kind == "errors"
    assert (errors.negligible, errors.margin, errors.weight) == (0.01, 2.0, 3.0)


def test_a_file_that_is_no_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plan\.yaml: no such file"):
        load(tmp_path / "plan.yaml")


def test_the_risks_of_all_guardrails_and_facts_sum_to_the_plans() -> None:
    shares = dict(parse(THREE_LINES).budget().weights)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["hard"] == HARD_SHARE


@given(
    weights=st.lists(st.integers(1, 94), min_size=1, max_size=8, unique=True).map(sorted),
    margin=st.floats(1.2, 50.0),
    action=st.sampled_from(["rollback", "pause", "alert"]),
)
@settings(deadline=None, max_examples=50)
def test_a_plans_document_reads_as_the_same_plan(weights: list[int], margin: float, action: str) -> None:
    guardrails = {"errors": {"margin": margin}, "outputs": {"action": action}, "broken": "off"}
    plan = parse({**THREE_LINES, "steps": weights, "guardrails": guardrails})
    again = parse(plan.document())
    assert again == plan
    assert again.digest() == plan.digest()


def test_a_plan_that_differs_in_anything_in_force_has_another_digest() -> None:
    one, other = parse(THREE_LINES), parse({**THREE_LINES, "steps": [1, 5, 10, 25, 51]})
    written_out = parse({**THREE_LINES, "steps": [1, 5, 10, 25, 50]})
    assert one.digest() != other.digest()
    assert one.digest() == written_out.digest()


# --- what it says it will do


def _baseline(rate: float) -> Baseline:
    return Baseline(n=10_000, n_errors=5, requests_per_s=rate, latency=latency_baseline())


def test_a_description_has_each_stage_with_its_time_and_each_guardrail_with_its_share_of_the_risk() -> None:
    text = describe(parse({**THREE_LINES, "strategy": ["shadow", "canary"]}), _baseline(100.0))
    for part in ("shadow", "step 1", "step 5", "bake", "errors", "27 % of the risk", "must be shown good in shadow"):
        assert part in text
    assert "with a risk of 1 %" in text


def test_less_traffic_takes_longer_and_none_takes_forever() -> None:
    plan = parse(THREE_LINES)

    def total(rate: float) -> float:
        return sum(stretch.typical_s for stretch in stretches(plan, _baseline(rate)))

    assert total(1000.0) < total(10.0) < total(1.0) < float("inf")
    assert "about never" in describe(plan, Baseline())


def test_a_rollout_takes_about_as_long_as_its_plan_says() -> None:
    quick = quick_plan(steps=[{"weight": 5, "min_time": "1s", "max_time": "10min", "min_requests": 1}])
    expected = stretches(quick, _baseline(200.0))[0]
    world = World(quick, requests_per_s=200)
    begun = world.run(5, until=lambda world: world.cursor.units == 500).wall_s
    took = world.run(600, until=lambda world: world.cursor.units > 500).wall_s - begun
    assert expected.typical_s / 3 < took < expected.careful_s * 3


# --- what is frozen of stable


def test_thresholds_are_the_quantiles_of_stable_as_far_as_its_answers_tell_them() -> None:
    found = latency_baseline()
    assert list(found.thresholds_us) == sorted(set(found.thresholds_us))
    assert found.shares(1.0) == pytest.approx([1 - p for p in found.quantiles], rel=0.35)
    few = freeze_latency(EDGES_US, [0] * 20 + [150, 40, 10] + [0] * 37, (0.5, 0.9, 0.99, 0.999))
    assert few is not None
    assert few.quantiles == (0.5, 0.9)


def test_too_few_answers_freeze_nothing() -> None:
    assert freeze_latency(EDGES_US, [99] + [0] * 59, (0.5,)) is None


def test_a_slower_version_is_above_each_threshold_more_often() -> None:
    found = latency_baseline()
    assert all(one < other for one, other in zip(found.shares(1.0), found.shares(1.5), strict=True))
