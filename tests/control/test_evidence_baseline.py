"""What is frozen of stable before the start comes out of what its workers told anyway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.backends.base import Signature, TensorSpec
from gateway.control.evidencebaseline import _cut, _without_many, baseline, freeze, renewed
from gateway.monitoring import plan as plans
from gateway.monitoring.plan import plain_plan
from gateway.monitoring.tile import latency_bounds_us
from gateway.monitoring.tilekey import TileKey
from gateway.native.lane import Lane
from gateway.native.tile import latency_cell_of
from gateway.rollout.baseline import OutputBaseline
from gateway.rollout.plan import parse
from gateway.serving.monitors import Monitors, Watch
from gateway.store import Report, Store, VersionRecord
from tests.support.lanes import Harness
from tests.support.weighed import Weighed, split

NOW_S = 1_700_000_000.0
PLAN = parse({"model": "m", "candidate": 2, "strategy": "canary"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path / 'gateway.db'}") as opened:
        yield opened


def tell(store: Store, reports: list[Report], incarnation: str = "w0") -> None:
    store.put_reports(incarnation, reports)


def cells(*pairs: tuple[int, int]) -> Any:
    found = np.zeros(len(latency_bounds_us()), np.int64)
    for us, n in pairs:
        found[latency_cell_of(us)] += n
    return found


def test_thresholds_lie_where_counting_is_exact_and_ascend() -> None:
    rng = np.random.default_rng(1)
    found = freeze(cells(*((int(us), 1) for us in rng.lognormal(7, 0.7, 20_000))), (0.5, 0.9, 0.99, 0.999))
    assert found is not None
    bounds = set(latency_bounds_us().tolist())
    assert set(found.thresholds_us) <= bounds
    assert list(found.thresholds_us) == sorted(set(found.thresholds_us))
    assert found.quantiles == (0.5, 0.9, 0.99, 0.999)
    for share, p in zip(found.shares(1.0), found.quantiles, strict=True):
        assert share == pytest.approx(1 - p, rel=0.15)


def test_thresholds_that_fall_together_are_one() -> None:
    found = freeze(cells((700, 5000)), (0.9, 0.95, 0.99))
    assert found is not None
    assert (found.thresholds_us, found.quantiles) == ((704,), (0.9,))


def test_thresholds_are_taken_anew_of_the_same_quantiles_as_far_as_later_answers_tell_them() -> None:
    rng = np.random.default_rng(1)
    answers = rng.lognormal(7, 0.7, 20_000)
    before = freeze(cells(*((int(us), 1) for us in answers)), (0.5, 0.9, 0.95, 0.99, 0.999))
    assert before is not None
    few = renewed(before, cells(*((int(10 * us), 1) for us in answers[:300])))
    assert few is not None
    assert few.quantiles == before.quantiles
    assert list(few.thresholds_us) == sorted(set(few.thresholds_us))
    for now, then in zip(few.thresholds_us[:3], before.thresholds_us[:3], strict=True):
        assert now == pytest.approx(10 * then, rel=0.3)
    assert few.thresholds_us[3] > few.thresholds_us[2]  # it made room
    faster = renewed(before, cells(*((int(us / 10), 1) for us in answers[:300])))
    assert faster is not None
    assert faster.thresholds_us[3:] == before.thresholds_us[3:]  # three hundred answers do not tell it
    assert renewed(before, cells((700, 199))) is None
    alike = renewed(before, cells((700, 5000)))
    assert alike is not None
    assert list(alike.thresholds_us) == sorted(set(alike.thresholds_us))


@pytest.mark.parametrize("given", [cells(), cells((700, 99))])
def test_too_few_answers_have_no_thresholds(given: Any) -> None:
    assert freeze(given, (0.5,)) is None


def test_nothing_told_is_a_baseline_of_nothing(store: Store) -> None:
    found = baseline(store, [], "m", "1", PLAN, NOW_S)
    assert (found.n, found.latency, found.cost, found.outputs) == (0, None, None, None)


def test_tiles_of_all_workers_are_summed_without_those_of_shadows(store: Store) -> None:
    with Harness() as harness:
        lane = harness.lane(
            lambda inputs: [np.where(inputs[0] == 3.0, np.nan, inputs[0])], max_batch_size=1, instances=99
        )
        plan = _watch(lane)
        for value in (0.25, 0.5, 0.75, 3.0):
            for _ in range(50):
                harness.send(value)
        harness.turn(1000)
        harness.finish_all()
        assert lane.monitor
        ((arm, stage, start_s, body),) = lane.monitor.cut(NOW_S - 30, harness.now_us)
        lane.monitor = None
    for incarnation, name in (("w0", arm), ("w1", "stable"), ("w1", "shadow")):
        key = str(TileKey(start_s, stage, plan.digest.hex(), name))
        tell(store, [Report("tile", "m", "1", key, body, NOW_S - 10)], incarnation)
    tell(store, [Report("plan", "m", "1", plan.digest.hex(), plans.to_document(plan), NOW_S)])
    _register(store, Path("/nowhere"))
    found = baseline(store, [], "m", "1", PLAN, NOW_S)
    assert (found.n, found.n_errors, found.n_broken) == (400, 0, 100)
    assert found.latency is not None
    assert sum(found.latency.counts) == 400
    assert found.requests_per_s > 0
    assert found.outputs is not None
    assert found.outputs.column == "y"
    assert (found.outputs.edges[0], found.outputs.edges[-1]) == (0.296875, 0.6875)  # between least and greatest


def test_costs_of_all_workers_are_summed(store: Store) -> None:
    with Weighed() as harness:
        harness.serve()
        harness.route(split(0))
        harness.ask(n=40)
        harness.finish_all()
        lane = harness.versions["1"]
        assert isinstance(lane, Lane)
        runs, total, squares = lane.costs
        assert runs == 40
        for incarnation in ("w0", "w1"):
            tell(store, [Report("cost", "m", "1", "", json.dumps(lane.costs).encode(), NOW_S)], incarnation)
    found = baseline(store, [], "m", "1", PLAN, NOW_S).cost
    assert found is not None
    assert found.mean_us == pytest.approx(total / runs / 1000)
    assert found.deviation_us >= found.mean_us * 1e-3
    assert squares > 0


def test_bins_of_a_profile_are_joined_until_they_are_about_equally_full() -> None:
    counts = (0, *[100] * 20, 0)
    edges = tuple(float(edge) for edge in range(21))
    assert list(_cut(counts, edges)) == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0]
    assert list(_cut((0, 1000, 0), (0.0, 1.0))) == []
    assert list(_cut((5, 990, 5), (0.0, 1.0))) == [1.0]


def test_of_an_output_with_many_values_the_largest_one_is_compared() -> None:
    choices = {"label": (1.0,), **{f"p[{i}]": (0.5,) for i in range(10)}, "q[0]": (0.5,)}
    assert _without_many(choices) == {"label": (1.0,), "p.place": (), "q[0]": (0.5,)}


def test_the_plan_may_say_which_output_is_compared(store: Store) -> None:
    _register(store, Path("/nowhere"))
    plan = parse({"model": "m", "candidate": 2, "strategy": "canary", "guardrails": {"outputs": {"output": "score"}}})
    found = baseline(store, [], "m", "1", plan, NOW_S).outputs
    assert isinstance(found, OutputBaseline)
    assert found.column == "score"
    assert len(found.edges) > 5


def _watch(lane: Lane) -> Any:
    signature = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),), True)
    plan = plain_plan(signature)
    Monitors(wall=lambda: NOW_S - 60).attach("m", "1", lane, Watch(plan, signature, False))
    return plan


def _register(store: Store, path: Path) -> None:
    store.register_version(VersionRecord("m", "1", "sha256:1", str(path)), "ada")
