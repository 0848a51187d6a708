"""A route against the versions that there are: each fault by the path of its field."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.routing.route import parse, validate_against

KNOWN = {"1": "READY", "2": "LOADING", "10": "READY", "3": "retired"}


def faults(document: dict[str, Any]) -> list[tuple[str, str]]:
    return validate_against(parse({"versions": {"1": 100}, **document}), KNOWN)


def rule(name: str | None = None, versions: Any = None) -> dict[str, Any]:
    written = {"match": {"header": "x", "exact": "a"}, "versions": versions or {"2": 100}}
    return written if name is None else {"name": name, **written}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"versions": {"1": 33.33, "2": 33.33, "10": 33.34}},
        {"versions": {"1": 100, "2": 0}},
        {"versions": {"1": 99, "2": 1}, "shadows": [{"version": "2"}], "fallback": {"version": "1"}},
        {"shadows": [{"version": "2"}, {"version": "10"}]},
        {"rules": [rule("beta"), rule("gamma", {"1": 100})]},
        {"rules": [rule()], "shadows": [{"version": "1"}], "fallback": {"version": "1"}},
    ],
)
def test_a_route_without_fault_has_none(document: dict[str, Any]) -> None:
    assert faults(document) == []


@pytest.mark.parametrize(
    ("document", "field", "text"),
    [
        ({"versions": {"7": 100}}, "versions.7", "no such version; versions here: 1, 2, 10"),
        ({"versions": {"3": 100}}, "versions.3", "version 3 is retired; versions here: 1, 2, 10"),
        (
            {"versions": [{"version": "7", "weight": 100}]},
            "versions[0].version",
            "no such version; versions here: 1, 2, 10",
        ),
        ({"rules": [rule(None, {"7": 100})]}, "rules[0].versions.7", "no such version; versions here: 1, 2, 10"),
        ({"shadows": [{"version": "7"}]}, "shadows[0].version", "no such version; versions here: 1, 2, 10"),
        ({"fallback": {"version": "3"}}, "fallback.version", "version 3 is retired; versions here: 1, 2, 10"),
        ({"versions": {"1": 95, "2": 4}}, "versions", "the weights add up to 99, expected 100"),
        ({"versions": {"1": 99.99, "2": 0.02}}, "versions", "the weights add up to 100.01, expected 100"),
        ({"rules": [rule(None, {"2": 50})]}, "rules[0].versions", "the weights add up to 50, expected 100"),
        (
            {"shadows": [{"version": "1"}]},
            "shadows[0].version",
            "version 1 would shadow itself: it answers every request of this route",
        ),
        (
            {"versions": {"1": 100, "2": 0}, "rules": [rule(None, {"1": 100})], "shadows": [{"version": "1"}]},
            "shadows[0].version",
            "version 1 would shadow itself: it answers every request of this route",
        ),
        (
            {"shadows": [{"version": "2"}, {"version": "10"}, {"version": "2"}]},
            "shadows[2].version",
            "version 2 is a shadow already, expected once",
        ),
        (
            {"fallback": {"version": "1"}},
            "fallback.version",
            "version 1 would fall back to itself: it answers every request of this route",
        ),
        (
            {"rules": [rule("beta"), rule("beta", {"1": 100})]},
            "rules[1].name",
            '"beta" is the name of rules[0] already, expected another',
        ),
        (
            {"rules": [rule("rule-2"), rule()]},
            "rules[1].name",
            '"rule-2" is the name of rules[0] already, expected another',
        ),
        (
            {"rules": [rule("stable", {"1": 100})]},
            "rules[0].versions",
            'the arm "stable" is in versions already, expected another name',
        ),
        (
            {"versions": [{"version": v, "weight": 50, "arm": "blue"} for v in "12"]},
            "versions",
            'the arm "blue" is in versions already, expected another name',
        ),
        *(
            (
                {"versions": [{"version": "1", "weight": 100, "arm": arm}]},
                "versions",
                f'the arm "{arm}" is the gateway\'s own, expected another name',
            )
            for arm in ("pinned", "fallback", "shadow")
        ),
        (
            {"rules": [rule("pinned")]},
            "rules[0].versions",
            'the arm "pinned" is the gateway\'s own, expected another name',
        ),
        (
            {
                "rules": [
                    {"name": f"r{i}", "match": {"header": f"x-{i}", "exact": "a"}, "versions": {"1": 100}}
                    for i in range(33)
                ]
            },
            "rules",
            "look at 33 different headers and parameters, expected 32 at most",
        ),
    ],
)
def test_a_fault_is_told_with_the_path_of_its_field(document: dict[str, Any], field: str, text: str) -> None:
    assert faults(document) == [(field, text)]


def test_all_faults_are_told_at_once() -> None:
    found = faults({"versions": {"7": 50}, "shadows": [{"version": "8"}], "fallback": {"version": "9"}})
    assert [field for field, _ in found] == ["versions.7", "versions", "shadows[0].version", "fallback.version"]


def test_where_there_is_no_version_at_all_that_is_said() -> None:
    assert validate_against(parse({"versions": {"1": 100}}), {}) == [
        ("versions.1", "no such version; versions here: none")
    ]
