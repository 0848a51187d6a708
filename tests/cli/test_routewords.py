"""What people type, laid over the route in force."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.cli.routewords import changed
from gateway.errors import ConfigError

CURRENT: dict[str, Any] = {
    "versions": {"1": 100},
    "rules": [{"match": {"header": "x-tenant", "exact": "acme"}, "versions": {"2": 100}}],
    "sticky": {"header": "x-user", "salt": "spring"},
    "shadows": [{"version": "2", "percent": 10, "max_rows": 64}],
    "fallback": {"version": "1", "on": ["error"]},
    "keep": "30min",
}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"versions": ["1=95", "2=5"]}, {"versions": {"1": 95, "2": 5}}),
        ({"versions": ["1=99.99", "2=0.01%"]}, {"versions": {"1": 99.99, "2": 0.01}}),
        ({"versions": ["2"]}, {"versions": {"2": 100}}),
        ({"shadows": ["2"]}, {"shadows": [{"version": "2", "percent": 100, "max_rows": 64}]}),
        ({"shadows": ["3=5"]}, {"shadows": [{"version": "3", "percent": 5}]}),
        (
            {"shadows": ["3=5", "2=1"]},
            {"shadows": [{"version": "3", "percent": 5}, {"version": "2", "percent": 1, "max_rows": 64}]},
        ),
        ({"sticky": "parameter:session"}, {"sticky": {"parameter": "session", "salt": "spring"}}),
        ({"fallback": "2"}, {"fallback": {"version": "2", "on": ["error"]}}),
        ({"pinned": "forbid"}, {"pinned": "forbid"}),
        ({"keep": "1h"}, {"keep": "1h"}),
    ],
)
def test_what_is_named_changes_and_the_rest_stays(words: dict[str, Any], expected: dict[str, Any]) -> None:
    assert changed(CURRENT, **words) == CURRENT | expected


@pytest.mark.parametrize("part", ["sticky", "fallback", "keep"])
def test_none_takes_a_part_away(part: str) -> None:
    assert changed(CURRENT, **{part: "none"}) == {name: CURRENT[name] for name in CURRENT if name != part}


def test_none_takes_the_shadows_away_and_what_is_not_there_is_no_fault() -> None:
    assert "shadows" not in changed(CURRENT, shadows=["none"])
    assert changed({"versions": {"1": 100}}, shadows=["none"], sticky="none") == {"versions": {"1": 100}}


def test_the_route_in_force_is_not_written_on() -> None:
    before = repr(CURRENT)
    changed(CURRENT, ["2"], ["3"], "header:a", "2", "forbid", "none")
    assert repr(CURRENT) == before


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ({"versions": ["1=x"]}, "VERSION=PERCENT: got '1=x', expected a percentage from 0 to 100 such as 1=5"),
        ({"versions": ["1=101"]}, "VERSION=PERCENT: got '1=101', expected a percentage from 0 to 100"),
        ({"versions": ["1=nan"]}, "VERSION=PERCENT: got '1=nan', expected a percentage from 0 to 100"),
        ({"versions": ["1", "2"]}, "VERSION=PERCENT: got '1', expected such as 1=95, or one version alone"),
        ({"versions": ["=5"]}, "VERSION=PERCENT: got '=5', expected such as 1=95"),
        ({"versions": ["1=50", "1=50"]}, "VERSION=PERCENT: version 1 stands there twice"),
        ({"shadows": ["none", "2"]}, "--shadow: got 'none', expected VERSION, VERSION=PERCENT, or none alone"),
        ({"shadows": ["2=much"]}, "--shadow: got '2=much', expected a percentage"),
        ({"sticky": "x-user"}, "--sticky: got 'x-user', expected header:NAME, parameter:NAME or none"),
        ({"sticky": "cookie:a"}, "--sticky: got 'cookie:a', expected header:NAME"),
        ({"sticky": "header:"}, "--sticky: got 'header:', expected header:NAME"),
    ],
)
def test_what_is_no_word_of_a_route_is_refused_by_its_flag(words: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(CURRENT, **words)
    assert str(caught.value).startswith(fault)
