"""Requests over HTTP/2 through a route: what they bring reaches the draw, and what they meet is counted on its arm."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gateway.native import dice
from gateway.native.lane import Lane
from gateway.native.noted import noted_is
from gateway.native.route import ON
from gateway.native.routetable import RouteTable
from gateway.routing.armbook import ArmBook
from gateway.routing.compile import compile_routes
from gateway.routing.route import parse
from tests.support.lanes import Harness, refused

ROUTE = {
    "versions": {"1": 100},
    "rules": [{"name": "beta", "match": {"header": "x-tenant", "exact": "acme"}, "versions": {"2": 100}}],
}


class Routed(Harness):
    """Versions 1, 2 and so on of the model m, and a route over them."""

    def serve(self, n: int = 2, *, why: dict[str, str] | None = None, **policy: Any) -> None:
        self.book = ArmBook()
        self.versions: dict[str, Lane | str] = {}
        for number in range(1, n + 1):
            name = str(number)
            self.versions[name] = (why or {}).get(name) or self.lane(self.answer(number), model=f"v{name}", **policy)

    @staticmethod
    def answer(number: int) -> Any:
        return lambda inputs: [array * 0 + number for array in inputs]

    def route(self, document: dict[str, Any] | None, generation: int = 1) -> RouteTable:
        routes = {} if document is None else {"m": parse(document)}
        self.plane.routes = compile_routes({"m": self.versions}, routes, {"m": generation}, self.book)
        self.book.retire()
        return self.plane.routes

    def counted(self) -> dict[str, int]:
        """Requests by arm, where there are any."""
        found = {}
        for arm in self.book.totals():
            statistics = arm.statistics()
            n = sum(statistics["requests"].values()) + statistics["cancelled"]
            if n:
                found[f"{arm.version} {arm.name}"] = n
        return found


def test_metadata_reaches_the_rules() -> None:
    with Routed() as harness:
        harness.serve()
        harness.route(ROUTE)
        calls = [harness.send(0.0, metadata=metadata) for metadata in ([], [("x-tenant", "acme")], [("x-tenant", "b")])]
        harness.turn()
        harness.finish_all()
        assert [call.rows for call in calls] == [[1.0], [2.0], [1.0]]
        assert harness.counted() == {"1 stable": 2, "2 beta": 1}
        harness.book.retire()


def test_of_a_header_that_comes_twice_the_first_counts() -> None:
    with Routed() as harness:
        harness.serve()
        harness.route(ROUTE)
        first = harness.send(0.0, metadata=[("x-tenant", "acme"), ("x-tenant", "b")])
        second = harness.send(0.0, metadata=[("x-tenant", "b"), ("x-tenant", "acme")])
        harness.turn()
        harness.finish_all()
        assert (first.rows, second.rows) == ([2.0], [1.0])


@pytest.mark.parametrize(
    "name",
    [
        ":path",
        "te",
        "content-type",
        "content-length",
        "user-agent",
        "grpc-timeout",
        "grpc-encoding",
        "accept-encoding",
        "traceparent",
        "host",
        "connection",
        "transfer-encoding",
    ],
)
def test_headers_of_http_and_grpc_are_not_kept(name: str) -> None:
    assert not noted_is(name.encode())


@pytest.mark.parametrize("name", [b"x-user", b"authorization", b"cookie", b"tenant", b"g", b"a", b"u", b"connections"])
def test_headers_of_the_application_are_kept(name: bytes) -> None:
    assert noted_is(name)


def test_a_route_that_is_swapped_between_headers_and_message_sees_headers_that_the_old_one_did_not_ask_for() -> None:
    with Routed() as harness:
        harness.serve()
        harness.route({"versions": {"1": 100}})
        call = harness.send(0.0, metadata=[("x-tenant", "acme")], between=lambda: harness.route(ROUTE, 2))
        harness.turn()
        harness.finish_all()
        assert call.rows == [2.0]


def test_many_and_large_headers_are_kept_and_given_back() -> None:
    with Routed() as harness:
        harness.serve()
        harness.route(ROUTE)
        metadata = [*((f"x-{i}", "v" * 100) for i in range(60)), ("x-tenant", "acme")]
        call = harness.send(0.0, metadata=metadata)
        left = harness.send(0.0, metadata=metadata)
        harness.cancel(left)
        harness.turn()
        harness.finish_all()
        assert call.rows == [2.0]


def test_a_sticky_key_finds_its_version_over_all_tables_that_keep_its_weight() -> None:
    document: dict[str, Any] = {"versions": {"1": 50, "2": 50}, "sticky": {"header": "x-user"}}
    with Routed() as harness:
        harness.serve()
        seen: dict[str, set[float]] = {}
        for generation in range(1, 6):
            harness.route(document, generation)
            for user in range(20):
                call = harness.send(0.0, metadata=[("x-user", f"user-{user}")])
                harness.turn()
                harness.finish_all()
                seen.setdefault(f"user-{user}", set()).add(call.rows[0])
        assert {len(versions) for versions in seen.values()} == {1}
        assert {version for versions in seen.values() for version in versions} == {1.0, 2.0}
        assert harness.book.tally("m").unkeyed == 0


def test_what_is_drawn_for_a_version_that_does_not_serve_counts_against_its_arm() -> None:
    with Routed() as harness:
        harness.serve(why={"2": "UNAVAILABLE no memory"})
        harness.route({"versions": {"1": 50, "2": 50}})
        dice.seed(1)
        calls = [harness.send(0.0) for _ in range(100)]
        harness.turn()
        harness.finish_all()
        codes = Counter(call.code for call in calls)
        assert codes[0] + codes[14] == 100
        assert min(codes.values()) > 25
        assert harness.counted() == {"1 stable": codes[0], "2 candidate": codes[14]}
        text = next(call.text for call in calls if call.code)
        assert text == "model 'm' version '2' does not serve: UNAVAILABLE no memory"


def test_the_fallback_answers_for_a_version_that_does_not_serve() -> None:
    with Routed() as harness:
        harness.serve(why={"2": "LOADING"})
        harness.route({"versions": {"2": 100}, "fallback": {"version": "1", "on": ["error"]}})
        call = harness.send(0.0)
        harness.turn()
        harness.finish_all()
        assert call.rows == [1.0]
        assert harness.counted() == {"2 stable": 1, "1 fallback": 1}


@pytest.mark.parametrize("conditions", [["timeout"], ["circuit_open"], ["circuit_open", "timeout"]])
def test_a_fallback_for_other_reasons_does_not_answer_for_it(conditions: list[str]) -> None:
    with Routed() as harness:
        harness.serve(why={"2": "LOADING"})
        harness.route({"versions": {"2": 100}, "fallback": {"version": "1", "on": conditions}})
        call = harness.send(0.0)
        harness.turn()
        assert call.code == 14


def test_a_pinned_request_gets_its_version_and_nobody_in_its_place() -> None:
    with Routed() as harness:
        harness.serve(3, why={"3": "LOADING"})
        harness.route({"versions": {"1": 100}, "fallback": {"version": "2"}})
        messages = [harness.request(0.0) for _ in range(2)]
        for message, version in zip(messages, "23", strict=True):
            message.model_version = version
        calls = [harness.send(message=message) for message in messages]
        harness.turn()
        harness.finish_all()
        assert calls[0].rows == [2.0]
        assert (calls[1].code, calls[1].text) == (14, "model 'm' version '3' does not serve: LOADING")
        assert harness.counted() == {"2 pinned": 1, "3 pinned": 1}


def test_a_pin_that_the_route_forbids_is_a_failed_precondition() -> None:
    with Routed() as harness:
        harness.serve()
        harness.route({"versions": {"1": 100}, "pinned": "forbid"}, generation=4)
        message = harness.request(0.0)
        message.model_version = "1"
        call = harness.send(message=message)
        harness.turn()
        assert call.code == 9
        assert "(generation 4) forbids" in call.text
        assert harness.plane.refused == {9: 1}


def test_a_request_that_cannot_be_admitted_counts_on_its_arm_too() -> None:
    with Routed() as harness:
        harness.serve(max_queue_rows=1)
        harness.route({"versions": {"2": 100}})
        good, full = harness.send(0.0), harness.send(0.0)
        bad = harness.send(0.0, names=["nobody"])
        harness.turn()
        harness.finish_all()
        assert (good.code, full.code, bad.code) == (0, 8, 3)
        (arm,) = [arm for arm in harness.book.totals() if arm.name == "stable"]
        assert arm.statistics()["requests"] == {0: 1, 8: 1, 3: 1}
        assert arm.statistics()["requests"] == harness.lanes["v2"].statistics()["requests"]


def test_an_arm_goes_on_counting_over_tables_that_change_other_models() -> None:
    with Routed() as harness:
        harness.serve()
        for _ in range(10):
            harness.route(ROUTE, generation=3)
            harness.send(0.0)
            harness.turn()
            harness.finish_all()
        (arm,) = [arm for arm in harness.book.arms() if arm.name == "stable"]
        assert (arm.stage, arm.weight, arm.statistics()["requests"]) == (3, 10_000, {0: 10})


def test_an_arm_that_no_table_has_is_kept_until_its_last_request_is_answered() -> None:
    with Routed() as harness:
        harness.serve()
        harness.route({"versions": {"1": 100}}, generation=1)
        call = harness.send(0.0)
        harness.turn()
        harness.route({"versions": {"2": 100}}, generation=2)
        assert sorted({arm.stage for arm in harness.book.arms()}) == [1, 2]
        harness.finish_all()
        assert call.rows == [1.0]
        harness.route({"versions": {"2": 100}}, generation=2)
        assert {arm.stage for arm in harness.book.arms()} == {2}
        assert harness.counted() == {"1 stable": 1}


def test_no_request_is_lost_or_led_astray_by_a_thousand_changes_of_route() -> None:
    """Each answer comes from a version that the table in force at its admission names."""
    documents: list[dict[str, Any]] = [
        {"versions": {"1": 100}},
        {"versions": {"3": 100}},
        {"versions": {"1": 50, "2": 50}},
        {"versions": {"2": 1, "3": 99}, "sticky": {"header": "x-user"}},
        {"versions": {"1": 100}, "rules": [{"match": {"header": "x-user", "prefix": "user"}, "versions": {"2": 100}}]},
    ]
    allowed = [{1.0}, {3.0}, {1.0, 2.0}, {2.0, 3.0}, {2.0}]
    with Routed() as harness:
        harness.serve(3, max_batch_size=4)
        expected: list[tuple[Any, set[float]]] = []
        for generation in range(1000):
            which = generation * 7 % len(documents)
            harness.route(documents[which], generation)
            for user in range(3):
                call = harness.send(0.0, metadata=[("x-user", f"user-{user}")])
                expected.append((call, allowed[which]))
            harness.turn()
            if generation % 3 == 0:
                harness.finish_all()
        harness.turn()
        harness.finish_all()
        assert all(call.rows[0] in versions for call, versions in expected)
        assert sum(harness.counted().values()) == len(expected) == 3000
        harness.book.retire()
        assert {arm.stage for arm in harness.book.arms()} == {999}


def test_conditions_of_a_fallback_have_the_bits_that_the_native_side_knows() -> None:
    assert ON == {"error": 1, "circuit_open": 2, "timeout": 4}
    assert refused(RouteTable({}).target, "m").code == 5
