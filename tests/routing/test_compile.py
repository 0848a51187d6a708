"""From a document to what the native side does: every field of a rule, a share and a key arrives."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.native.routetable import RouteTable
from gateway.routing.armbook import ArmBook
from gateway.routing.compile import compile_routes
from gateway.routing.route import parse
from tests.support.routetwin import Side, Twin, request

VERSIONS = dict.fromkeys(("1", "2", "3"), "not loaded")


def compiled(document: dict[str, Any], model: str = "m") -> RouteTable:
    return compile_routes({model: VERSIONS}, {model: parse(document)}, {model: 7}, ArmBook())


@pytest.mark.parametrize(
    ("match", "matching", "others"),
    [
        ({"exact": "acme"}, ["acme"], ["acme2", "Acme", ""]),
        ({"prefix": "acme"}, ["acme", "acme2"], ["acm", "2acme", ""]),
        ({"one_of": ["a", "bb", "é"]}, ["a", "bb", "é"], ["b", "abb", "e"]),
        ({"exact": ""}, [""], ["a"]),
    ],
)
@pytest.mark.parametrize("source", ["header", "parameter"])
def test_each_way_to_match_is_compiled(
    source: str, match: dict[str, Any], matching: list[str], others: list[str]
) -> None:
    rule = {"match": {source: "x-tenant", **match}, "versions": {"2": 100}}
    table = compiled({"versions": {"1": 100}, "rules": [rule]})

    def version(value: str) -> str:
        if source == "header":
            return table.target("m", "", {b"x-tenant": value.encode()}).version
        return table.target("m", "", {}, request(**{"x-tenant": value}).SerializeToString()).version

    assert {version(value) for value in matching} == {"2"}
    assert {version(value) for value in others} == {"1"}


@pytest.mark.parametrize("sticky", [{"header": "x-user"}, {"parameter": "x-user"}, {"header": "x-user", "salt": "s"}])
def test_a_key_is_hashed_under_the_salt_or_the_models_name(sticky: dict[str, str]) -> None:
    shares = {"1": 60, "2": 30, "3": 10}
    salt = sticky.get("salt", "fraud").encode()
    twin = Twin([Side(version, share * 100) for version, share in shares.items()], salt=salt)
    table = compiled({"versions": shares, "sticky": sticky}, "fraud")
    for user in range(200):
        key = f"user-{user}"
        headers = {b"x-user": key.encode()} if "header" in sticky else {}
        body = b"" if headers else request(**{"x-user": key}).SerializeToString()
        side = twin.by_key(twin.split, key.encode())
        assert table.target("fraud", "", headers, body).version == str(side + 1)


def test_an_arm_has_its_weight_and_its_stage() -> None:
    document: dict[str, Any] = {
        "versions": {"1": 99.99, "2": 0.01},
        "rules": [{"name": "beta", "match": {"header": "x", "exact": "a"}, "versions": {"2": 100}}],
        "shadows": [{"version": "3"}],
        "fallback": {"version": "3"},
    }
    book = ArmBook()
    compile_routes({"m": VERSIONS}, {"m": parse(document)}, {"m": 7}, book)
    arms = {(arm.version, arm.name): arm.weight for arm in book.arms() if arm.name != "pinned"}
    assert arms == {
        ("1", "stable"): 9_999,
        ("2", "candidate"): 1,
        ("2", "beta"): 10_000,
        ("3", "shadow"): 0,
        ("3", "fallback"): 0,
    }
    assert {arm.stage for arm in book.arms()} == {7}


def test_every_version_may_be_named_and_none_where_that_is_forbidden() -> None:
    table = compiled({"versions": {"1": 100}})
    for version in VERSIONS:
        target = table.target("m", version)
        assert target.arm
        assert (target.version, target.arm.name, target.route) == (version, "pinned", None)


def test_the_largest_route_there_may_be_is_compiled() -> None:
    values = [f"tenant-{number}" for number in range(1000)]
    rules = [
        {"match": {"header": f"x-{number % 31}", "one_of": values}, "versions": {"1": 50, "2": 50}}
        for number in range(256)
    ]
    table = compiled({"versions": {"1": 100}, "rules": rules, "sticky": {"header": "x-user"}})
    arm = table.target("m", "", {b"x-30": b"tenant-999"}).arm
    assert arm
    assert arm.name.startswith("rule-31/")
