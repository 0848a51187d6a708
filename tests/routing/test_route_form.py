"""A route's document: what may be written, what comes back, and what is refused by which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.routing.route import MAX_NAMES, MAX_RULES, Route, RouteError, load, parse, validate_against

WHOLE = {"1": 100}

EVERYTHING = """
versions: {"1": 95, "2": 5}
rules:
  - name: beta
    match: {header: X-Tenant, exact: acme}
    versions: {"2": 100}
  - match: {parameter: region, one_of: [eu, us]}
    versions: [{version: 2, weight: 33.33}, {version: "3", weight: 66.67, arm: b}]
sticky: {header: x-user, salt: fraud-2}
shadows: [{version: "3", percent: 10, max_rows: 10, max_bytes: 1MiB, max_concurrency: 6}]
fallback: {version: "1", on: [error, timeout]}
pinned: forbid
circuit: {failures: 7, open_for: 2s, probes: 3}
keep: 30m
"""


@pytest.fixture
def everything(tmp_path: Path) -> Route:
    file = tmp_path / "route.yaml"
    file.write_text(EVERYTHING)
    return load(file)


def test_everything_is_read_as_it_is_written(everything: Route) -> None:
    assert everything.sticky
    assert everything.sticky.source == (False, b"x-user")
    assert everything.rules[0].match.source == (False, b"x-tenant")
    assert everything.rules[1].match.source == (True, b"region")
    assert everything.rules[1].match.values == ("eu", "us")
    assert everything.shadows[0].max_bytes == 2**20
    assert everything.fallback
    assert everything.fallback.on == ("error", "timeout")
    circuit = everything.circuit_in_force()
    assert circuit
    assert (circuit.failures, circuit.open_for_us, circuit.probes) == (7, 2_000_000, 3)
    assert everything.keep_us == 30 * 60 * 10**6
    assert everything.versions_used() == {"1", "2", "3"}
    assert everything.versions_answering() == {"1", "2", "3"}
    assert everything.default_version() == "1"


def test_a_document_reads_back_as_the_same_route_whatever_becomes_of_the_order_of_its_keys(everything: Route) -> None:
    document = everything.document()
    assert parse(document) == everything
    shuffled = json.loads(json.dumps(document, sort_keys=True))
    assert parse(shuffled) == everything


def test_versions_whose_order_names_their_arms_are_a_list_in_the_document() -> None:
    route = parse({"versions": {"2": 95, "1": 5}})
    assert route.document() == {"versions": [{"version": "2", "weight": 95}, {"version": "1", "weight": 5}]}
    again = parse(json.loads(json.dumps(route.document(), sort_keys=True)))
    assert [share.arm for _, _, shares in again.splits() for share in shares] == ["stable", "candidate"]
    assert again.default_version() == "2"
    assert again.document() == route.document()


def test_equal_routes_have_equal_documents() -> None:
    written = [{"1": 100}, {"1": 100.0}, {1: 100}]
    assert parse({"versions": written[0]}).document() == parse({"versions": written[1]}).document()
    assert Route.only("1").document() == {"versions": {"1": 100}}


def test_a_default_is_not_in_the_document() -> None:
    document = {"versions": {"1": 100}, "fallback": {"version": "2", "on": ["error", "circuit_open", "timeout"]}}
    assert parse(document).document() == {"versions": {"1": 100}, "fallback": {"version": "2"}}


def test_a_circuit_comes_with_a_fallback_unless_it_is_told_otherwise() -> None:
    assert parse({"versions": WHOLE}).circuit_in_force() is None
    assert parse({"versions": WHOLE, "circuit": {}}).circuit_in_force() is not None
    assert parse({"versions": WHOLE, "fallback": {"version": "2"}}).circuit_in_force() is not None
    route = parse({"versions": WHOLE, "fallback": {"version": "2"}, "circuit": "none"})
    assert route.circuit_in_force() is None
    assert parse(route.document()) == route


def test_arms_are_named_by_their_place_and_their_rule() -> None:
    def arms(versions: Any, **rules: Any) -> list[str | None]:
        written = [
            {"match": {"header": "x", "exact": name}, "versions": split, "name": name} for name, split in rules.items()
        ]
        route = parse({"versions": versions, "rules": written})
        return [share.arm for _, _, shares in route.splits() for share in shares]

    assert arms({"7": 100}) == ["stable"]
    assert arms({"7": 50, "3": 50}) == ["stable", "candidate"]
    assert arms({"1": 40, "2": 30, "3": 30}) == ["version-1", "version-2", "version-3"]
    assert arms([{"version": "1", "weight": 50, "arm": "blue"}, {"version": "2", "weight": 50, "arm": "green"}]) == [
        "blue",
        "green",
    ]
    assert arms(WHOLE, beta={"2": 100}) == ["stable", "beta"]
    assert arms(WHOLE, beta={"2": 90, "3": 10}) == ["stable", "beta/stable", "beta/candidate"]
    assert arms(WHOLE, beta=[{"version": "2", "weight": 100, "arm": "x"}]) == ["stable", "beta/x"]


@pytest.mark.parametrize(
    ("document", "field", "text"),
    [
        ({}, "versions", "missing, expected a value"),
        (None, "", "got null, expected `field: value` lines"),
        ({"versions": "1"}, "versions", 'got "1", expected a list'),
        ({"versions": {}}, "versions", "got a mapping, expected at least 1 entries"),
        ({"versions": {"x": 100}}, "versions.x", 'got "x", expected the number of a version, such as "2"'),
        ({"versions": {"01": 100}}, "versions.01", 'got "01", expected the number of a version, such as "2"'),
        (
            {"versions": {"1": 99.999}},
            "versions.1",
            "got 99.999, expected a percentage with at most 2 decimals",
        ),
        ({"versions": {"1": 101}}, "versions.1", "got 101, expected a percentage from 0 to 100"),
        ({"versions": {"1": True}}, "versions.1", "got true, expected a percentage from 0 to 100"),
        ({"versions": {"1": float("nan")}}, "versions.1", "got NaN, expected a percentage from 0 to 100"),
        ({"versions": [{"version": "1"}]}, "versions[0].weight", "missing, expected a value"),
        (
            {"versions": [{"version": "1", "weight": 100, "arm": "no spaces"}]},
            "versions[0].arm",
            'got "no spaces", expected text that matches ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$',
        ),
        ({"versions": WHOLE, "stickey": {}}, "stickey", "unknown field, expected sticky"),
        (
            {"versions": WHOLE, "sticky": {}},
            "sticky",
            "names neither a header nor a parameter, or both; expected one of the two",
        ),
        (
            {"versions": WHOLE, "sticky": {"header": "x y"}},
            "sticky.header",
            'got "x y", expected the name of a header, such as x-user',
        ),
        (
            {"versions": WHOLE, "sticky": {"header": "User-Agent"}},
            "sticky.header",
            'got "User-Agent", expected a header of the application\'s own; HTTP and gRPC keep this one to themselves',
        ),
        (
            {"versions": WHOLE, "rules": [{"match": {"header": "x"}, "versions": WHOLE}]},
            "rules[0].match",
            "compares in no way, or in several; expected one of exact, prefix and one_of",
        ),
        (
            {"versions": WHOLE, "rules": [{"match": {"header": "x", "exact": "a", "prefix": "b"}, "versions": WHOLE}]},
            "rules[0].match",
            "compares in no way, or in several; expected one of exact, prefix and one_of",
        ),
        (
            {"versions": WHOLE, "rules": [{"match": {"header": "x", "one_of": ["a", "a"]}, "versions": WHOLE}]},
            "rules[0].match.one_of",
            'got ["a", "a"], expected each value once',
        ),
        (
            {"versions": WHOLE, "rules": [{"match": {"header": "x", "exact": "a"}, "versions": {"2": "all"}}]},
            "rules[0].versions.2",
            'got "all", expected a percentage from 0 to 100',
        ),
        (
            {"versions": WHOLE, "fallback": {"version": "2", "on": ["errors"]}},
            "fallback.on[0]",
            'got "errors", expected error, circuit_open or timeout',
        ),
        (
            {"versions": WHOLE, "shadows": [{"version": "2", "max_bytes": 0}]},
            "shadows[0].max_bytes",
            "got 0, expected a byte at least",
        ),
        ({"versions": WHOLE, "pinned": "no"}, "pinned", 'got "no", expected obey or forbid'),
        (
            {"versions": WHOLE, "circuit": {"open_for": "3 parsecs"}},
            "circuit.open_for",
            'got "3 parsecs", expected a duration such as 500us, 2ms or 1.5s',
        ),
        (
            {"versions": WHOLE, "keep": "a while"},
            "keep",
            'got "a while", expected a duration such as 500us, 2ms or 1.5s',
        ),
    ],
)
def test_what_is_no_route_is_refused_with_the_path_of_the_field(document: Any, field: str, text: str) -> None:
    with pytest.raises(RouteError) as caught:
        parse(document)
    assert (field, text) in caught.value.faults
    assert f"{field}: {text}" in str(caught.value) if field else text in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(RouteError) as caught:
        parse({"versions": {"1": -1}, "sticky": {}, "keep": "x"})
    assert [field for field, _ in caught.value.faults] == ["versions.1", "sticky", "keep"]


def test_no_route_is_so_large_that_choosing_would_take_long() -> None:
    rule = {"match": {"header": "x", "exact": "a"}, "versions": WHOLE}
    parse({"versions": WHOLE, "rules": [rule] * MAX_RULES})
    with pytest.raises(RouteError, match=f"at most {MAX_RULES} entries"):
        parse({"versions": WHOLE, "rules": [rule] * (MAX_RULES + 1)})
    assert MAX_NAMES == 32


def test_the_schema_says_what_may_be_written() -> None:
    schema = Route.json_schema()
    assert set(schema["properties"]) == {
        "versions",
        "rules",
        "sticky",
        "shadows",
        "fallback",
        "pinned",
        "circuit",
        "keep",
    }
    assert schema["required"] == ["versions"]
    json.dumps(schema)


def test_a_file_that_cannot_be_read_is_told_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "route.yaml"
    with pytest.raises(ConfigError, match=r"route\.yaml: no such file"):
        load(file)
    file.write_text("versions: {1: 100}")
    with pytest.raises(ConfigError, match="the key 1 is not text; put it in quotes"):
        load(file)


def test_the_route_in_the_documentation_is_one_without_fault(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/routes.md").read_text(encoding="utf-8")
    file = tmp_path / "route.yaml"
    file.write_text(text.split("```yaml")[1].split("```")[0])
    assert validate_against(load(file), dict.fromkeys("123", "READY")) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 200) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["versions", "rules", "sticky", "shadows", "fallback", "pinned", "circuit", "keep"])


@given(st.dictionaries(fields, json_values, max_size=4) | json_values)
def test_any_document_is_a_route_that_reads_back_or_is_refused_with_its_faults(document: Any) -> None:
    route, faults = None, [("", "")]
    try:
        route = parse(document)
    except RouteError as error:
        faults = error.faults
    if route is None:
        assert all(text for _, text in faults)
    else:
        assert parse(route.document()).document() == route.document()
