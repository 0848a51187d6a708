"""What workers have told becomes what a decision reads: added up, binned at frozen edges, and never short of anything
without saying so.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.control import evidencebins as bins
from gateway.control.evidence import Stretch, Watched, collect
from gateway.evidence.counts import BinnedStage, Stage
from gateway.evidence.mean import Metric
from gateway.evidence.paired import PairStage
from gateway.monitoring.tile import latency_bounds_us
from gateway.native import scales
from gateway.native.scales import read_counts, value_cell_of
from gateway.native.tile import latency_cell_of
from gateway.rollout.baseline import Baseline, LatencyBaseline, OutputBaseline
from gateway.rollout.evidence import Evidence
from gateway.rollout.plan import parse
from gateway.store import Store
from tests.support.told import NOW_S, encoded, put, report, side, worker, workers

LATENCY = LatencyBaseline((512.0, 1024.0, 2048.0), (50, 50), (1024, 2048), (0.5, 0.9))
BASELINE = Baseline(n=1000, latency=LATENCY, outputs=OutputBaseline("y", (0.25, 0.5)))
PLAN = parse({"model": "m", "candidate": 2, "strategy": ["shadow", "canary"]})
WATCHED = Watched("m", "1", "2", {5: Stretch(1, 0.1), 6: Stretch(2, 0.5)}, PLAN, BASELINE, NOW_S - 60)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path / 'gateway.db'}") as opened:
        yield opened


def test_workers_add_up_also_those_that_are_gone(store: Store) -> None:
    put(store, report(side(90, 1), side(10, 2)), report(side(45), side(5, 1, 1), incarnation="dead"))
    put(store, report(side(50), side(50, 4), incarnation="w0", generation=6, percent=50))
    found = collect(store, workers(store, worker("w0", 6)), WATCHED, NOW_S + 0.5)
    assert found.evidence.split == (Stage(1, 0.1, 135, 15, 0, 0), Stage(2, 0.5, 50, 50, 0, 0))
    assert found.evidence.labels["errors"] == (Stage(1, 0.1, 135, 15, 1, 3), Stage(2, 0.5, 50, 50, 0, 4))
    assert found.evidence.labels["broken"][0] == Stage(1, 0.1, 135, 15, 0, 1)
    assert (found.fault, found.age_s, found.in_flight) == ("", 0.5, 0)


def test_two_generations_of_one_epoch_must_have_drawn_alike(store: Store) -> None:
    watched = replace(WATCHED, stages={5: Stretch(1, 0.1), 6: Stretch(1, 0.1), 7: Stretch(1, 0.2)})
    for generation, percent in ((5, 10), (6, 10), (7, 20)):
        put(store, report(side(90), side(10), generation=generation, percent=percent))
    found = collect(store, workers(store, worker("w0", 7)), watched, NOW_S)
    assert found.evidence.drawn(1) == (180, 20)
    assert "pi: got 0.2, expected 0.1" in found.fault


def test_what_was_read_before_is_not_taken_for_what_is_there_now(store: Store) -> None:
    live = workers(store, worker("w0"))
    put(store, report(side(90, 1), side(10)))
    assert collect(store, live, WATCHED, NOW_S).evidence.labels["errors"][0].k_stable == 1
    other = replace(WATCHED, baseline=replace(BASELINE, outputs=None))
    assert "outputs" not in collect(store, live, other, NOW_S).evidence.bins
    put(store, report(side(90, 2), side(10), at_s=NOW_S + 5))
    found = collect(store, live, WATCHED, NOW_S + 6)
    assert (found.evidence.labels["errors"][0].k_stable, found.age_s) == (2, 1.0)
    put(store, report(side(90, 2), side(10), at_s=NOW_S + 9))
    assert collect(store, live, WATCHED, NOW_S + 10).age_s == 1.0


def test_the_last_word_of_a_worker_counts_and_not_the_sum_of_its_words(store: Store) -> None:
    for n in (10, 20, 30):
        put(store, report(side(9 * n), side(n)))
    found = collect(store, workers(store, worker("w0")), WATCHED, NOW_S)
    assert found.evidence.drawn(1) == (270, 30)


def test_latencies_fall_into_bins_at_thresholds_exactly(store: Store) -> None:
    cells = {latency_cell_of(us): n for us, n in ((10, 1), (1023, 2), (1024, 4), (2047, 8), (2048, 16), (10**9, 32))}
    put(store, report(side(63, latency=cells), side(0)))
    found = collect(store, workers(store, worker("w0")), WATCHED, NOW_S)
    assert found.evidence.bins["latency"] == (BinnedStage(1, 0.1, (3, 12, 48), (0, 0, 0)),)


def test_each_epoch_has_its_own_thresholds_and_the_candidate_its_limit_of_each(store: Store) -> None:
    """2 ms are 1 ms and the floor; what is shown at the margin is counted beside it."""
    later = replace(LATENCY, thresholds_us=(16384, 32768))
    watched = replace(WATCHED, baseline=replace(BASELINE, later=((2, later),)))
    cells = {latency_cell_of(us): 1 for us in (1500, 2100, 17000, 40000)}
    put(store, report(side(4, latency=cells), side(4, latency=cells)))
    put(store, report(side(4, latency=cells), side(4, latency=cells), generation=6, percent=50))
    found = collect(store, workers(store, worker("w0", 6)), watched, NOW_S)
    first, second = found.evidence.bins["latency"]
    assert (first.stable, first.candidate) == ((0, 1, 3), (1, 1, 2))
    assert (second.stable, second.candidate) == ((2, 1, 1), (3, 0, 1))
    assert found.evidence.bins["latency/2"][1].candidate == (3, 1, 0)
    assert found.stable_latency is not None
    assert int(found.stable_latency.sum()) == 4  # of the newest epoch


def test_outputs_of_both_arms_fall_into_the_same_frozen_bins(store: Store) -> None:
    values = {value_cell_of(x): 1 for x in (0.1, 0.25, 0.49, 0.5, 7.0, -3.0, float("nan"))}
    put(store, report(side(7, values=values), side(1, values={value_cell_of(0.3): 1})))
    found = collect(store, workers(store, worker("w0")), WATCHED, NOW_S)
    assert found.evidence.bins["outputs"] == (BinnedStage(1, 0.1, (2, 2, 2, 1), (0, 1, 0, 0)),)


def test_an_arm_without_the_output_that_is_compared_is_a_fault(store: Store) -> None:
    put(store, report(side(9), side(1), columns=[["y"], ["z"]]))
    found = collect(store, workers(store, worker("w0")), WATCHED, NOW_S)
    assert found.fault == "generation 5: candidate's answers have no y, expected it beside z"
    assert found.evidence == Evidence()


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (report(side(9), side(1), versions=["1", "3"]), "versions: got ['1', '3'], expected 1 and 2"),
        (report(side(9), side(1), percent=20), "shares: got [8000, 2000], expected 0.1 for the candidate"),
        (replace(report(side(9), side(1)), body=b"{"), "unexpected end of data"),
        (replace(report(side(9), side(1)), body=report(side(9), side(1)).body[:-1]), "cut short"),
        (report(side(9), side(1, 2)), "k_candidate: got 2, expected at most n_candidate = 1"),
    ],
)
def test_what_cannot_be_is_a_fault_that_names_who_told_it(store: Store, broken: Any, text: str) -> None:
    put(store, broken, report(side(5), side(5), incarnation="w1", generation=6, percent=50))
    found = collect(store, workers(store, worker("w0"), worker("w1", 6, index=1)), WATCHED, NOW_S)
    assert "generation 5" in found.fault
    assert text in found.fault
    assert [stage.index for stage in found.evidence.split] == [2]  # what can be read is


def test_reports_of_other_rollouts_are_none_of_ours(store: Store) -> None:
    put(store, report(side(9), side(1), generation=4, versions=["7", "8"]))
    found = collect(store, workers(store, worker("w0", 4)), WATCHED, NOW_S)
    assert (found.evidence, found.fault, found.age_s) == (Evidence(), "", 0.0)


def test_a_worker_that_has_the_route_and_tells_nothing_makes_the_evidence_old(store: Store) -> None:
    put(store, report(side(9), side(1), at_s=NOW_S - 1))
    live = workers(store, worker("w0"), worker("w1", index=1))
    assert collect(store, live, WATCHED, NOW_S).age_s is None
    put(store, report(side(9), side(1), incarnation="w1", at_s=NOW_S - 40))
    assert collect(store, live, WATCHED, NOW_S).age_s == 40.0
    assert collect(store, [], WATCHED, NOW_S).age_s is None


def test_a_worker_that_has_just_taken_the_route_is_as_late_as_the_route_is_old(store: Store) -> None:
    for _ in range(5):
        store.put_route("m", {"versions": {"1": 100}}, None, "ada", "")
    published_s = store.routes()["m"].at
    assert collect(store, workers(store, worker("w0")), WATCHED, published_s + 0.3).age_s == pytest.approx(0.3)


def test_of_a_sticky_route_a_key_counts_once_however_many_workers_saw_it(store: Store) -> None:
    for name in ("w0", "w1", "w2"):
        put(store, report(side(90, 3), side(10, 3), incarnation=name, is_sticky=True))
    found = collect(store, workers(store, worker("w0")), WATCHED, NOW_S)
    assert found.evidence.labels["errors"] == (Stage(1, 0.1, 90, 10, 3, 3),)


def test_pairs_differ_in_their_decision_or_beyond_the_limit_or_when_the_copy_fails(store: Store) -> None:
    watched = replace(WATCHED, stages={5: Stretch(1, 0.0)})
    relative = [100, *[1] * 16, 7]  # equal, up to 1e-9, ..., up to 1e6, above
    shadow = {"answered": 200, "failed": 3, "late": 2, "other": 11, "relative": relative, "broken": 4}
    for name in ("w0", "w1"):
        put(
            store,
            replace(report({}, {}, incarnation=name), body=b'{"generation":5,"shadows":{"2":%b}}\n' % _json(shadow)),
        )
    found = collect(store, workers(store, worker("w0")), watched, NOW_S)
    beyond = 7 + 7  # 1, 10, ... 1e6, and above
    assert found.evidence.pairs["disagreement"] == (PairStage(1, 2 * 205, 2 * (11 + 3 + 2 + beyond)),)
    assert found.facts.broken_pairs == 8
    assert found.evidence.split == ()


def test_facts_are_of_all_and_runs_of_those_who_live(store: Store) -> None:
    def facts(n: int, run: int, same: int) -> dict[str, int]:
        return {"n": n, "failed": run, "broken": 1, "run": run, "same": same}

    put(store, report({}, {}, facts={"stable": facts(10, 0, 3), "candidate": facts(5, 4, 50)}, open=[1, 2]))
    put(store, report({}, {}, incarnation="dead", facts={"stable": facts(10, 9, 3), "candidate": facts(5, 5, 60)}))
    live = workers(store, worker("w0"))
    found = collect(store, live, WATCHED, NOW_S)
    assert (found.facts.n_stable, found.facts.n_candidate, found.facts.failed_candidate) == (20, 10, 9)
    assert (found.facts.run_stable, found.facts.run_candidate, found.facts.constant_candidate) == (0, 4, 60)
    assert found.facts.broken_candidate == 2
    assert found.in_flight == 2


@pytest.mark.parametrize(("fault", "crashes"), [("", 1), ("stopped", 0), ("draining", 0)])
def test_a_worker_that_is_gone_without_a_word_has_crashed(store: Store, fault: str, crashes: int) -> None:
    facts = {"stable": {}, "candidate": {"n": 1}}
    put(store, report({}, {}, incarnation="gone", facts=facts), report({}, {}, facts=facts))
    workers(store, worker("gone", fault=fault))
    assert collect(store, workers(store, worker("w0")), WATCHED, NOW_S).facts.crashes == crashes


def test_a_worker_that_never_met_the_candidate_has_not_crashed_of_it(store: Store) -> None:
    put(store, report({}, {}, incarnation="gone", facts={"stable": {"n": 9}, "candidate": {"n": 0}}))
    workers(store, worker("gone"))
    assert collect(store, [], WATCHED, NOW_S).facts.crashes == 0


def test_who_took_weight_by_himself_is_named_while_that_route_is_in_force(store: Store) -> None:
    put(store, report({}, {}, lowered="7 failures in a row"))
    assert collect(store, workers(store, worker("w0", 5)), WATCHED, NOW_S).lowered == {"w0": "7 failures in a row"}
    assert collect(store, workers(store, worker("w0", 6)), WATCHED, NOW_S).lowered == {}


def test_what_feedback_says_is_added(store: Store) -> None:
    further = Evidence(split=(Stage(9, 0.5, 1, 1, 0, 0),))
    found = collect(store, [], WATCHED, NOW_S, (lambda store, watched: further,))
    assert found.evidence == further


# --- bins


def test_counts_come_back_as_they_were_written() -> None:
    rng = random.Random(7)
    sides = [{rng.randrange(9706): rng.randrange(1, 2**40) for _ in range(300)} for _ in range(2)]
    found = read_counts(encoded(*sides))
    assert [{int(at): int(side[at]) for at in np.flatnonzero(side)} for side in found] == sides


def test_edges_of_values_are_moved_to_where_counting_is_exact() -> None:
    rng = np.random.default_rng(3)
    for edge in (*rng.normal(0, 3, 200), 0.1, -0.7, 1e-9, 300.0):
        moved = bins.on_grid(float(edge))
        assert abs(moved - edge) <= max(abs(edge) / 32 + 1e-12, 2.0**-16)
        frozen = OutputBaseline("y", (moved,))
        for value in (np.nextafter(moved, -np.inf), moved, np.nextafter(moved, np.inf), moved - 1.0, moved + 1.0):
            if (value == moved < 0) or (moved == 0 and abs(value) < 2.0**-16):
                continue  # below zero an edge itself lies in the cell on its left; nearly zero is zero
            cells = np.zeros(scales.VALUE_CELLS, np.int64)
            cells[value_cell_of(float(value))] = 1
            assert bins.value_bins(cells, frozen) == ((0, 1, 0) if value >= moved else (1, 0, 0)), (edge, moved, value)


def test_a_threshold_between_edges_is_moved_up() -> None:
    bounds = latency_bounds_us()
    assert bounds[bins.latency_cell(1000)] == 1008
    assert bounds[bins.latency_cell(1024)] == 1024


def test_costs_become_moments_of_the_cells_middles() -> None:
    metric = Metric(centre=100.0, unit=0.1, deviation=50.0, skewness=2.0, low=0.0, high=10_000.0)
    cells = np.zeros(737, np.int64)
    values_us = np.random.default_rng(1).lognormal(np.log(100), 0.5, 5000)
    for value in values_us:
        cells[latency_cell_of(int(value * 1000 / scales.COST_UNIT_NS))] += 1
    found = bins.cost_moments(cells, metric)
    assert found.n == 5000
    assert found.total / found.n * metric.unit + metric.centre == pytest.approx(values_us.mean(), rel=0.01)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()
