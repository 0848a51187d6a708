"""What the control plane decides from records alone: who counts, who is late, first routes, what is kept no longer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.control import automatic, fleet, keep
from gateway.control.diff import diff
from gateway.control.fleet import Expected, Silent
from gateway.store import RouteRecord, WorkerRecord

START = WorkerRecord(
    incarnation="a",
    index=0,
    host="h",
    pid=1,
    started_at=100.0,
    seen_at=110.0,
    revision=1,
    generations={"m": 1},
    versions={},
    faults={},
    is_ready=True,
)


def worker(index: int = 0, versions: dict[str, str] | None = None, **more: Any) -> WorkerRecord:
    """`versions` of the model m, with their states."""
    known = {"m": {version: {"state": state, "reason": ""} for version, state in (versions or {}).items()}}
    return replace(START, index=index, incarnation=f"{index}", versions=known, **more)


def route(generation: int, document: dict[str, Any], at: float = 0.0, is_automatic: bool = False) -> RouteRecord:
    return RouteRecord("m", generation, document, is_automatic, "ada", "", at)


def only(version: str, **more: Any) -> dict[str, Any]:
    return {"versions": {version: 100}, **more}


def test_a_worker_that_another_replaced_does_not_count_and_two_that_overlap_both_do() -> None:
    old = replace(START, seen_at=110.0)
    successor = replace(START, incarnation="b", started_at=111.0, seen_at=112.0)
    assert fleet.living([successor, old]) == [successor]
    alongside = replace(START, incarnation="b", started_at=105.0, seen_at=112.0)
    assert fleet.living([alongside, old]) == [old, alongside]


@pytest.mark.parametrize("word", fleet.LEAVING)
def test_a_worker_on_its_way_out_does_not_count(word: str) -> None:
    assert fleet.living([replace(START, faults={"": word})]) == []


def test_who_is_behind_is_named_with_a_reason_also_a_place_that_nobody_has_taken() -> None:
    live = [worker(0), worker(1, generations={"m": 2}), worker(2, faults={"": "cannot be applied"})]
    assert fleet.behind(live, Expected("h", 4), "m", 2) == [
        Silent("h/0", "still at generation 1"),
        Silent("h/2", "cannot be applied"),
        Silent("h/3", "is being started"),
    ]
    assert fleet.behind(live, Expected(), "m", 1) == []


def test_the_first_route_waits_until_every_version_has_settled_everywhere() -> None:
    loading = [worker(0, {"1": "READY", "2": "READY"}), worker(1, {"1": "READY", "2": "LOADING"})]
    assert automatic.decide(loading, {}) == []
    settled = [worker(0, {"1": "READY", "2": "READY"}), worker(1, {"1": "READY", "2": "UNAVAILABLE"})]
    (wish,) = automatic.decide(settled, {})
    assert (wish.version, wish.expected_generation) == ("1", 0)  # it serves everywhere; 2 only somewhere
    (wish,) = automatic.decide([worker(0, {"9": "READY", "10": "READY"})], {})
    assert (wish.version, wish.document) == ("10", {"versions": {"10": 100}})
    assert automatic.decide([worker(0, {"1": "UNAVAILABLE"})], {}) == []


def test_an_automatic_route_follows_a_repository_load_and_an_operators_does_not() -> None:
    live = [worker(0, {"1": "READY", "2": "READY"})]
    assert automatic.decide(live, {"m": route(4, only("1"), is_automatic=True)}) == []
    live[0].versions["m"]["2"]["is_repinned"] = True
    (wish,) = automatic.decide(live, {"m": route(4, only("1"), is_automatic=True)})
    assert (wish.version, wish.expected_generation) == ("2", 4)
    assert automatic.decide(live, {"m": route(5, only("2"), is_automatic=True)}) == []
    assert automatic.decide(live, {"m": route(4, only("1"))}) == []


def test_a_version_is_kept_for_as_long_as_the_route_in_force_says_since_it_lost_its_last_traffic() -> None:
    history = [route(3, only("2", keep="10s"), 200.0), route(2, only("2", keep="1s"), 100.0), route(1, only("1"), 50.0)]
    assert keep.expired(history, {"1", "2"}, 109.9) == []
    assert keep.expired(history, {"1", "2"}, 110.0) == ["1"]  # since 100, when 2 took over; not since 200
    assert keep.expired(history, {"2"}, 999.0) == []  # nobody has asked for 1
    assert keep.expired([route(2, only("2"), 100.0), *history[2:]], {"1"}, 999.0) == []  # no keep: for ever
    shadowed = [route(2, only("2", keep="1s", shadows=[{"version": "1"}]), 100.0), *history[2:]]
    assert keep.expired(shadowed, {"1"}, 999.0) == []
    assert keep.expired([], {"1"}, 999.0) == []


def test_a_difference_is_told_by_the_path_of_each_place() -> None:
    before = {"versions": {"1": 95, "2": 5}, "rules": [{"name": "a"}], "pinned": "obey"}
    after = {"versions": {"1": 90, "2": 5, "3": 5}, "rules": [{"name": "b"}, {"name": "c"}]}
    assert diff(before, after) == [
        {"path": "versions.1", "before": 95, "after": 90},
        {"path": "versions.3", "before": None, "after": 5},
        {"path": "rules[0].name", "before": "a", "after": "b"},
        {"path": "rules[1]", "before": None, "after": {"name": "c"}},
        {"path": "pinned", "before": "obey", "after": None},
    ]
    assert diff(before, before) == []
