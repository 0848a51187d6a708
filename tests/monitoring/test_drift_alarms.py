"""The life of an alarm, and what is told of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.monitoring import alarms
from gateway.monitoring.alarms import CALM, Alarm, State
from gateway.monitoring.driftreport import ColumnDrift, Distance, DriftReport, Level

LEVEL = Level(n=400, missing=0.0, strange=0.0, mean=5.0, std=1.0)
WINDOWS = {name: Distance(level=LEVEL, is_enough=True, psi=0.9) for name in ("1m", "10m", "1h", "1d")}


def a_column(name: str, side: str = "input", score: float = 9.0) -> ColumnDrift:
    return ColumnDrift(
        name=name, side=side, kind="numeric", status="alarm", sentence="mean 5, was 4", score=score, per_hour=None,
        since=1000.0, evidence=20.0, least_n=439, baseline=LEVEL, windows=WINDOWS, labels=(), shape_baseline=(),
        shape_now=(), trend=(), n_like=0,
    )  # type: ignore[arg-type] # fmt: skip


def a_report(
    *columns: ColumnDrift, pages: tuple[str, ...] = (), named: tuple[str, ...] = (), at: float = 1060.0
) -> Any:
    return DriftReport(
        model="fraud", version="1", at=at, judged_until=at, sentence="", threshold=14.0, budget_days=30.0,
        tolerance=0.1, major=0.25, source="data", rows=1000, requests={}, columns=columns, pages=pages, named=named,
    )  # fmt: skip


def opened() -> Alarm:
    (alarm,), _ = alarms.advance([], a_report(a_column("x"), pages=("x",)), {})
    return alarm


def test_many_columns_that_drift_together_are_one_page_with_who_is_named_beside() -> None:
    columns = [a_column(f"x{at}", score=float(at)) for at in range(5)]
    now, events = alarms.advance([], a_report(*columns, pages=("x1", "x2", "x3", "x4"), named=("x0",)), {})
    assert [event.change for event in events] == ["opened"]
    assert len(now) == 1
    assert set(now[0].columns) == {"x0", "x1", "x2", "x3", "x4"}
    assert now[0].sentence == "x4: mean 5, was 4; x3: mean 5, was 4; x2: mean 5, was 4; and 2 more columns"
    assert now[0].since == 1000.0


def test_inputs_outputs_and_the_schema_have_an_alarm_each() -> None:
    columns = [a_column("x"), a_column("y", "output"), a_column("(schema)", "schema")]
    now, events = alarms.advance([], a_report(*columns, pages=("x", "y", "(schema)")), {})
    assert sorted(alarm.side for alarm in now) == ["input", "output", "schema"]
    assert len({event.id for event in events}) == len({alarm.id for alarm in now}) == 3


def test_who_is_only_named_opens_nothing_and_who_joins_later_is_added() -> None:
    assert alarms.advance([], a_report(a_column("x"), named=("x",)), {}) == ([], [])
    now, events = alarms.advance([opened()], a_report(a_column("x"), a_column("z"), pages=("z",), at=1120.0), {})
    assert [event.change for event in events] == ["grown"]
    assert now[0].columns == ("x", "z")
    assert alarms.advance(now, a_report(a_column("x"), a_column("z"), at=1180.0), {}) == (now, [])


def test_it_closes_by_itself_when_all_its_columns_have_been_calm() -> None:
    alarm = opened()
    assert alarms.advance([alarm], a_report(), {"x": CALM - 1}) == ([alarm], [])
    now, events = alarms.advance([alarm], a_report(at=2000.0), {"x": CALM})
    assert [event.change for event in events] == ["closed"]
    assert (now[0].state, now[0].actor, now[0].accepted) == (State.CLOSED, "gateway", False)
    assert alarms.held(now) == frozenset()


def test_another_versions_alarm_is_left_alone() -> None:
    other = opened().model_copy(update={"version": "2"})
    assert alarms.advance([other], a_report(), {"x": CALM}) == ([], [])


def test_an_operator_acknowledges_and_closes_and_a_close_means_that_it_is_normal() -> None:
    seen = alarms.acknowledge(opened(), 1100.0, "ada", "looking").alarm
    assert (seen.state, seen.actor, seen.reason) == (State.ACKNOWLEDGED, "ada", "looking")
    assert alarms.held([seen]) == {"x"}
    done = alarms.close(seen, 1200.0, "ada", "new price list").alarm
    assert (done.state, done.accepted) == (State.CLOSED, True)


def test_every_move_is_either_in_the_table_or_refused_with_both_states() -> None:
    legal = {("open", "acknowledged"), ("open", "closed"), ("acknowledged", "closed")}
    for before, after in itertools.product(State, State):
        alarm = opened().model_copy(update={"state": before})
        if (before, after) in legal:
            assert alarm.moved(after, 1.0, "ada", "").state is after
        else:
            with pytest.raises(GatewayError, match=f"is {before}, got {after}; expected "):
                alarm.moved(after, 1.0, "ada", "")


def test_the_same_change_has_the_same_event_id_and_another_has_another() -> None:
    report = a_report(a_column("x"), pages=("x",))
    assert alarms.advance([], report, {})[1][0].id == alarms.advance([], report, {})[1][0].id
    seen = alarms.acknowledge(opened(), 1.0, "ada", "")
    assert seen.id != alarms.close(seen.alarm, 2.0, "ada", "").id


def test_a_cloud_event_has_what_the_specification_asks() -> None:
    _, (event,) = alarms.advance([], a_report(a_column("x"), pages=("x",)), {})
    told = alarms.cloud_event(event, "/v1/drift/fraud/1")
    assert told["specversion"] == "1.0"
    assert told["type"] == "gateway.drift.opened"
    assert told["source"] == "/v1/drift/fraud/1"
    assert told["subject"] == "fraud/1/input"
    assert told["time"] == "1970-01-01T00:17:40.000Z"
    assert told["datacontenttype"] == "application/json"
    assert told["data"]["findings"][0] | {} == {
        "column": "x", "sentence": "mean 5, was 4", "since": 1000.0, "found": 1060.0, "score": 9.0, "psi": 0.9,
        "evidence": 20.0,
    }  # fmt: skip
