"""The duty on a real store, from the workers' tiles to report, alarm, audit log, webhook and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.core import Metric

from gateway.config.alerts import Webhook
from gateway.control import drift, driftmetrics
from gateway.control.webhooks import Courier
from gateway.monitoring import alarms
from gateway.monitoring.alarms import CALM
from gateway.store import Store, url_of_folder
from tests.support.drifting import START_S
from tests.support.driftworld import N_COLUMNS, N_ROWS, DriftWorld, a_profile
from tests.support.receiver import receiving


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DriftWorld]:
    with Store.open(url_of_folder(tmp_path / "state")) as store:
        yield DriftWorld(tmp_path, store)


def test_undisturbed_traffic_stays_silent_and_is_counted_over_workers(world: DriftWorld) -> None:
    world.feed(12)
    assert world.live == []
    assert world.report.requests["10m"] == 10 * N_ROWS
    assert world.report.sentence == f"nothing drifted in {N_COLUMNS + 2} columns"
    assert world.report.column("x1").windows["10m"].level.mean == pytest.approx(1.0, abs=0.2)
    assert world.store.deliveries() == []


def test_a_drifted_column_is_told_everywhere_within_a_window(world: DriftWorld) -> None:
    world.feed(3)
    world.feed(1, shift=4.0)
    (alarm,) = world.live
    assert (alarm.side, alarm.columns, alarm.since) == ("input", ("x2",), START_S + 180)
    assert alarm.sentence.startswith("x2: mean 5.9") or alarm.sentence.startswith("x2: mean 6")
    assert world.report.column("x2").status == "alarm"
    (entry,) = world.store.audit_log(action="drift")
    assert (entry.action, entry.actor, entry.subject) == ("drift.opened", "gateway", "fraud/1")
    with receiving() as receiver:
        Courier([Webhook(name="pager", url=receiver.url)], lambda: world.now_s).run(world.store)
    (told,) = receiver.received
    event = json.loads(told.body)
    assert (event["type"], event["subject"]) == ("gateway.drift.opened", "fraud/1/input")
    assert event["data"]["findings"][0]["column"] == "x2"
    gauges = {metric.name: metric for metric in driftmetrics.families([world.report], world.live)}
    assert value(gauges["gateway_drift_alarm"], side="input") == 1.0
    assert value(gauges["gateway_drift_alarm"], side="output") == 0.0
    assert value(gauges["gateway_drift_score"], column="x2") > 10.0
    assert value(gauges["gateway_drift_columns"], status="alarm") == 1.0


def value(metric: Metric, **labels: str) -> float:
    (found,) = (s.value for s in metric.samples if labels.items() <= s.labels.items())
    return float(found)


def test_an_open_alarm_pages_once_and_closes_by_itself_when_traffic_is_back(world: DriftWorld) -> None:
    world.feed(2)
    world.feed(5, shift=4.0)
    world.feed(CALM + 4)
    assert world.live == []
    actions = [entry.action for entry in world.store.audit_log(action="drift")]
    assert actions == ["drift.closed", "drift.opened"]
    assert len(world.store.deliveries()) == 2
    world.feed(1, shift=4.0)
    assert len(world.live) == 1


def test_what_an_operator_closes_is_normal_from_then_on(world: DriftWorld) -> None:
    world.feed(2)
    world.feed(3, shift=3.0)
    (alarm,) = world.live
    event = alarms.close(alarm, world.now_s + 1, "ada", "new customers")
    assert drift.record_event(world.store, event, "open", "ada", "new customers", ["pager"])
    world.feed(10, shift=3.0)
    assert world.live == []
    world.feed(2, shift=9.0)
    assert len(world.live) == 1


def test_a_control_process_that_takes_over_comes_to_the_same_report(world: DriftWorld) -> None:
    world.feed(25, shift=0.6)
    first = world.report
    other = world.another_watch()
    other.run(world.store)
    assert world.report.column("x2").evidence == pytest.approx(first.column("x2").evidence)
    assert world.report == first
    world.watch = other
    world.feed(2, shift=4.0)
    assert len(world.live) == 1


def test_who_was_slower_tells_nobody(world: DriftWorld) -> None:
    world.feed(2)
    other = world.another_watch()
    other.run(world.store)
    world.feed(1, shift=4.0)
    other.run(world.store)
    assert [entry.action for entry in world.store.audit_log(action="drift")] == ["drift.opened"]
    assert len(world.store.deliveries()) == 1


def test_tiles_of_another_plan_and_damaged_ones_are_left_out(world: DriftWorld) -> None:
    world.feed(1)
    good = world.report.requests["10m"]
    (report, *_) = world.store.reports("tile")
    damaged = replace(report, body=report.body[:-3])
    other = replace(report, key=report.key.replace(report.key.split("/")[2], "ab" * 32))
    odd = replace(report, key="no key at all")
    world.store.put_reports("worker-9", [replace(damaged, at=world.now_s), replace(other, at=world.now_s)])
    world.store.put_reports("worker-9", [replace(odd, at=world.now_s)])
    world.feed(1)
    assert world.report.requests["10m"] == good + N_ROWS


def test_a_profile_of_another_version_or_a_broken_one_is_not_used_and_a_mended_one_is(world: DriftWorld) -> None:
    path = world.path / "profile.json"
    for content in (b"{}", a_profile("other").to_json()):
        path.write_bytes(content)
        watch = world.another_watch()
        watch.run(world.store)
        assert drift.reports(world.store) == []
    path.write_bytes(world.profile.to_json())
    watch.run(world.store)
    assert len(drift.reports(world.store)) == 1


def test_a_new_profile_begins_anew(world: DriftWorld) -> None:
    world.feed(3)
    (world.path / "profile.json").write_bytes(a_profile(digest="1" * 64).to_json())
    world.watch.run(world.store)
    assert {column.status for column in world.report.columns} <= {"waiting", "ok"}


def test_tiles_are_forgotten_after_a_day(world: DriftWorld) -> None:
    world.feed(2)
    assert len(world.store.reports("tile")) == 4
    world.now_s += drift.FORGET_TILES_AFTER_S + 3600
    world.watch.run(world.store)
    assert world.store.reports("tile") == []
