"""The ways back that are seldom gone: stable is gone, a rollback gets stuck, the promotion was long ago."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.control import rolloutorders
from gateway.control.rolloutroute import faults, promoted, stable_of, staged, withdrawn
from gateway.rollout.baseline import CostBaseline
from gateway.rollout.plan import parse as parse_plan
from gateway.rollout.room import Room
from gateway.routing.route import parse
from gateway.store import Report, Store
from tests.control.test_rollout_crashes import CANARY, order
from tests.support.carried import Carried, open_store
from tests.support.rollouts import Version, plan

QUICK_STEP = {"steps": [{"weight": 50, "min_time": "1s", "max_time": "10min"}]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path) as one:
        yield one


def test_traffic_is_not_shifted_to_a_stable_version_that_cannot_serve_and_it_is_brought_up_first(store: Store) -> None:
    carried = Carried(store, CANARY)
    carried.start()
    carried.until(lambda: carried.record().stage == "promoted")
    assert ("fraud", "1") in store.wanted()
    for _ in range(40):  # `keep` passes, looks are a minute apart
        carried.turn(60.0, requests=False)
    assert ("fraud", "1") not in store.wanted()
    carried.stable_ready = False
    carried.report()
    order(carried, "abort")
    carried.turn()
    assert (carried.record().stage, carried.record().cursor["units"]) == ("rolling_back", 10_000)
    assert "stable_lost" in [hold for hold, _ in carried.record().cursor["holds"]]
    assert ("fraud", "1") in store.wanted()
    assert store.routes()["fraud"].document == {"versions": {"2": 100}}
    carried.stable_ready = True
    carried.report()
    carried.until(lambda: carried.record().stage == "rolled_back")
    assert store.routes()["fraud"].document == {"versions": {"1": 100}}
    good = store.last_good("fraud")
    assert good
    assert good.version == "1"
    carried.check(again=True)


def stuck(store: Store) -> Carried:
    """Taken back while it bakes, and stable cannot serve: an operator is called."""
    carried = Carried(store, CANARY)
    carried.start()
    carried.until(lambda: carried.record().stage == "baking")
    carried.stable_ready = False
    carried.report()
    order(carried, "abort")
    carried.turn()
    carried.turn(61.0)
    assert carried.record().stage == "needs_operator"
    return carried


def test_a_rollback_that_gets_stuck_calls_an_operator_who_may_try_again(store: Store) -> None:
    carried = stuck(store)
    assert carried.record().cursor["units"] == 9500  # whoever serves keeps serving
    assert [each.body for each in store.deliveries() if b"needs_operator" in each.body]
    carried.stable_ready = True
    carried.report()
    order(carried, "retry")
    carried.until(lambda: carried.record().stage == "rolled_back")
    assert carried.record().orders["retry"] is False
    carried.check(again=True)


def test_an_operator_may_keep_a_candidate_whose_stable_is_gone_for_good(store: Store) -> None:
    carried = stuck(store)
    with pytest.raises(Exception, match="expected why fraud keeps version 2"):
        rolloutorders.promote(carried.record(), "", to_end=False)
    order(carried, "promote")
    carried.turn()
    assert (carried.record().stage, carried.record().cursor["units"]) == ("baking", 10_000)


def test_what_was_taken_back_by_a_guardrail_does_not_start_again(store: Store) -> None:
    carried = Carried(store, CANARY, Version(failing=0.3))
    carried.start()
    carried.until(lambda: carried.record().stage == "rolled_back")
    with pytest.raises(Exception, match="these files were taken back by rollout fraud-1"):
        carried.start()
    told = [each.body for each in store.deliveries() if b"gateway.rollout.rolled_back" in each.body]
    assert len(told) == 1
    assert b'"digest_blocked": true' in told[0]


def test_a_guardrail_that_only_tells_tells_once_and_does_not_stop_it(store: Store) -> None:
    rules = plan(
        steps=[{"weight": 50, "min_time": "20s", "max_time": "10min"}],
        guardrails={"outputs": {"action": "alert"}},
    )
    carried = Carried(store, rules, Version(outputs=(0.7, 0.1, 0.1, 0.1)))
    carried.start()
    carried.until(lambda: carried.record().stage == "baking")
    assert carried.record().status["alerts"] == ["outputs"]
    assert len([each for each in store.deliveries() if b"gateway.rollout.alert" in each.body]) == 1


def test_a_candidate_gets_no_more_than_its_executors_can_carry_and_more_when_there_are_more(store: Store) -> None:
    """2,000 requests a second; the first step is 20 %."""

    def tell(executors: int) -> None:
        for worker in ("w0", "w1"):
            body = Room(executors, 10, 20_000.0).body()  # 500 rows a second each
            store.put_reports(worker, [Report("room", "fraud", "2", "", body, carried.world.wall_s)])

    carried = Carried(store, CANARY)
    tell(1)
    carried.start()
    carried.until(lambda: "capacity" in carried.record().status.get("holds", ()) and carried.record().stage == "step")
    assert carried.record().cursor["units"] == 2000
    assert any("the candidate can carry 3" in reason for reason in carried.record().status["reasons"])
    waiting = [each.body for each in store.deliveries() if b"gateway.rollout.waiting" in each.body]
    assert len(waiting) == 1
    tell(10)
    carried.until(lambda: carried.record().stage == "promoted")
    carried.check(again=True)


@pytest.mark.parametrize("is_told", [True, False])
def test_what_stable_costs_is_waited_for_where_a_guardrail_asks_but_not_for_ever(store: Store, is_told: bool) -> None:
    carried = Carried(store, plan(**QUICK_STEP, guardrails={"cost": {"kind": "cost"}}))
    carried.start()
    began_s = carried.world.wall_s
    for _ in range(10):
        carried.turn()
    assert carried.record().stage == "warming"
    assert any("what a row of stable's costs is not known yet" in text for text in carried.record().status["reasons"])
    if is_told:
        carried.world.baseline = replace(carried.world.baseline, cost=CostBaseline(100.0, 10.0))
    carried.until(lambda: carried.record().stage == "step")
    took_s = carried.world.wall_s - began_s
    assert took_s < 25.0 if is_told else 30.0 <= took_s < 40.0
    assert carried.record().baseline is not None
    assert (carried.record().baseline["cost"] is not None) == is_told


FULL = {
    "versions": {"1": 100},
    "rules": [{"name": "vip", "match": {"header": "x-vip", "exact": "1"}, "versions": {"1": 100}}],
    "sticky": {"header": "x-user"},
    "shadows": [{"version": "3", "percent": 5}, {"version": "2", "percent": 50}],
    "keep": "600s",
}


def test_a_published_route_is_the_operators_with_two_arms_and_is_given_back(store: Store) -> None:
    rules = parse_plan({"model": "m", "candidate": 2, "strategy": "canary"})
    made = parse(staged(FULL, rules, "m-1", "1", 500, 1000)).document()
    assert made["versions"] == [
        {"version": "1", "weight": 95, "arm": "stable"},
        {"version": "2", "weight": 5, "arm": "candidate"},
    ]
    assert (made["rules"], made["keep"]) == (parse(FULL).document()["rules"], "600s")
    assert made["sticky"] == {"header": "x-user", "salt": "m-1"}
    assert [(each["version"], each["percent"]) for each in made["shadows"]] == [("2", 10), ("3", 5)]
    alone = parse(staged(FULL, rules, "m-1", "1", 10_000, 0))
    assert alone.versions_used() >= {"1", "2"}  # the way back stays loaded
    after = promoted(FULL, "2")
    assert (after["versions"], after["sticky"]) == ({"2": 100}, {"header": "x-user"})
    assert [each["version"] for each in after["shadows"]] == ["3"]


def test_a_foreign_route_loses_the_candidate_and_nothing_else() -> None:
    rule = {"name": "beta", "match": {"header": "x-beta", "exact": "1"}, "versions": {"2": 100}}
    foreign = {"versions": {"1": 20, "2": 30, "3": 50}, "rules": [rule], "fallback": {"version": "2"}}
    left = parse(withdrawn(foreign, "1", "2"))
    assert left.versions_used() == {"1", "3"}
    assert sum(share["weight"] for share in left.document()["versions"]) == 100
    assert stable_of(parse(FULL)) == "1"
    assert [field for field, _ in faults(parse(foreign), "1", "2")] == [
        "versions",
        "rules[0].versions",
        "fallback.version",
    ]
