"""Routes in force: what the loader says and what the operator says, in whichever order."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.native.lane import Lane
from gateway.native.refusal import Refusal
from gateway.native.routetable import RouteTable
from gateway.native.signature import Signature
from gateway.native.timers import Timers
from gateway.routing.route import Route, parse
from gateway.serving.routing import RouteInForce, Routing


def lane(version: str) -> Lane:
    signature = Signature("m", version, [("x", "FP32", (-1, 1))], [("y", "FP32", (-1, 1))], True)
    return Lane(signature, None, None, None, Timers(), [], max_batch_size=1)


LANES: dict[str, Lane | str] = {version: lane(version) for version in ("1", "2", "10")}


class Tables:
    """Every table that was put in force."""

    def __init__(self) -> None:
        self.all: list[RouteTable] = []
        self.defaults: dict[str, str] = {}
        self.routing = Routing(self.all.append, self.defaults)

    def version(self, model: str = "m", version: str = "") -> str:
        return self.all[-1].lookup(model, version).signature.version

    def apply(self, document: dict[str, Any], generation: int = 1, automatic: bool = False) -> dict[str, str]:
        return self.routing.apply({"m": RouteInForce(parse(document), generation, automatic)}, generation)


@pytest.fixture
def tables() -> Tables:
    return Tables()


def test_a_change_is_one_swap(tables: Tables) -> None:
    tables.routing.publish({"m": LANES})
    tables.apply({"versions": {"1": 100}})
    tables.apply({"versions": {"2": 100}}, 2)
    assert len(tables.all) == tables.routing.n_swaps == 3
    assert (tables.routing.revision, tables.routing.generations) == (2, {"m": 2})


def test_routes_may_come_before_the_versions(tables: Tables) -> None:
    assert tables.apply({"versions": {"2": 100}}) == {"m": "no such model here"}
    tables.routing.publish({"m": {"2": "LOADING"}})
    assert tables.routing.faults() == {"m": "version 2: LOADING"}
    with pytest.raises(Refusal, match="version '2' does not serve: LOADING"):
        tables.version()
    tables.routing.publish({"m": {"2": LANES["2"]}})
    assert tables.routing.faults() == {}
    assert tables.version() == "2"


def test_without_a_route_the_highest_that_is_ready_answers_by_number(tables: Tables) -> None:
    tables.routing.publish({"m": LANES})
    assert tables.version() == "10"
    tables.routing.publish({"m": {**LANES, "10": "UNAVAILABLE broken", "11": "LOADING"}})
    assert tables.version() == "2"
    with pytest.raises(Refusal, match="version '11' does not serve: LOADING"):
        tables.version("m", "11")


def test_a_model_that_has_nothing_ready_says_why_for_each_version(tables: Tables) -> None:
    tables.routing.publish({"m": {"2": "UNAVAILABLE broken", "10": "LOADING"}, "empty": {}})
    with pytest.raises(Refusal, match="'m' does not serve: version 2 is UNAVAILABLE broken; version 10 is LOADING"):
        tables.version()
    with pytest.raises(Refusal, match="'empty' does not serve: it has no version"):
        tables.version("empty")


def test_a_route_that_is_taken_away_leaves_the_highest_version(tables: Tables) -> None:
    tables.routing.publish({"m": LANES})
    tables.apply({"versions": {"1": 100}})
    assert tables.version() == "1"
    tables.routing.apply({}, 2)
    assert tables.version() == "10"


def test_the_version_that_speaks_for_a_model_is_the_heaviest_of_its_route(tables: Tables) -> None:
    tables.routing.publish({"m": LANES})
    assert tables.defaults == {}
    tables.apply({"versions": {"2": 5, "1": 95}})
    assert tables.defaults == {"m": "1"}
    tables.routing.apply({}, 2)
    assert tables.defaults == {}


def test_a_version_that_is_drawn_is_no_shadow_and_no_rescue_of_itself(tables: Tables) -> None:
    tables.routing.publish({"m": LANES})
    rules = [{"match": {"header": "x", "exact": "a"}, "versions": {"2": 100}}]
    tables.apply({"versions": {"1": 100}, "rules": rules, "shadows": [{"version": "2"}], "fallback": {"version": "1"}})
    stable, beta = tables.all[-1].target("m"), tables.all[-1].target("m", "", {b"x": b"a"})
    assert stable.route
    assert beta.route
    assert [shadow.version for shadow in stable.route.shadows or ()] == ["2"]
    assert stable.route.fallback is None
    assert beta.route.shadows is None
    assert beta.route.fallback
    assert (beta.route.fallback.version, beta.route.fallback_on) == ("1", 7)
    assert beta.route.fallback.route is None
    assert (beta.route.circuit_failures, beta.route.circuit_open_us, beta.route.circuit_probes) == (5, 5_000_000, 1)
    assert tables.all[-1].target("m", "1").route is None


def test_a_shadow_keeps_its_load_over_swaps(tables: Tables) -> None:
    tables.routing.publish({"m": LANES})
    document = {"versions": {"1": 100}, "shadows": [{"version": "2", "percent": 10, "max_rows": 7}]}
    loads = []
    for generation in (1, 2):
        tables.apply(document, generation)
        route = tables.all[-1].target("m").route
        assert route
        assert route.shadows
        (shadow,) = route.shadows
        assert (shadow.share, shadow.max_rows, shadow.max_bytes, shadow.lane) == (1_000, 7, 64 * 2**20, LANES["2"])
        loads.append(shadow.load)
    assert loads[0] is loads[1]


def test_a_repository_load_moves_only_what_nobody_routed(tables: Tables) -> None:
    tables.routing.publish({"m": {"1": LANES["1"]}})
    tables.apply({"versions": {"1": 100}}, automatic=True)
    tables.routing.publish({"m": LANES})
    assert tables.version() == "1"
    tables.routing.repin("m")
    assert (tables.version(), tables.routing.repinned, tables.defaults) == ("10", {"m": "10"}, {"m": "10"})
    tables.routing.publish({"m": {"1": LANES["1"]}})
    tables.routing.repin("m")
    assert (tables.version(), tables.routing.repinned) == ("1", {})


@pytest.mark.parametrize(("generation", "automatic", "version"), [(1, True, "10"), (2, True, "1"), (1, False, "1")])
def test_a_moved_route_stays_until_a_newer_or_an_operators_comes(
    tables: Tables, generation: int, automatic: bool, version: str
) -> None:
    tables.routing.publish({"m": LANES})
    tables.apply({"versions": {"1": 100}}, automatic=True)
    tables.routing.repin("m")
    tables.apply({"versions": {"1": 100}}, generation, automatic)
    assert tables.version() == version
    assert tables.routing.routes["m"].route == Route.only(version)


def test_a_model_without_a_route_cannot_be_moved_and_need_not(tables: Tables) -> None:
    tables.routing.publish({"m": LANES})
    tables.routing.repin("m")
    tables.routing.repin("unknown")
    assert (tables.version(), tables.routing.repinned) == ("10", {})


def test_what_has_not_changed_is_used_again(tables: Tables) -> None:
    tables.routing.publish({"m": LANES, "other": {"1": LANES["1"]}})
    tables.apply({"versions": {"1": 100}})
    first, other = tables.all[-1].target("m"), tables.all[-1].target("other")
    tables.apply({"versions": {"1": 100}})
    assert tables.all[-1].target("m") is first
    tables.apply({"versions": {"1": 100}}, 2)
    assert tables.all[-1].target("m") is not first
    assert tables.all[-1].target("other") is other
    tables.routing.publish({"m": {**LANES, "1": lane("1")}, "other": {"1": LANES["1"]}})
    assert tables.all[-1].target("m").lane is not LANES["1"]
    assert tables.all[-1].target("other") is other
