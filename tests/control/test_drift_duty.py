"""The duty on a real store, from the workers' tiles to report, alarm, audit log, webhook and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.core import Metric

from gateway.config.alerts import Webhook
from gateway.control import drift, driftmetrics
from gateway.control.drift import DriftWatch
from gateway.control.webhooks import Courier
from gateway.monitoring import alarms
from gateway.monitoring.alarms import CALM
from gateway.monitoring.baseline import Settings
from gateway.monitoring.profile import Calibration, Profile
from gateway.store import Store, VersionRecord, url_of_folder
from tests.support import drifting
from tests.support.drifting import START_S
from tests.support.receiver import receiving
from tests.support.storedtiles import TileWriter, put_profile

N_COLUMNS = 4
N_ROWS = 300


def a_profile(model: str = "fraud", digest: str = "0" * 64) -> Profile:
    rng = np.random.default_rng(1)
    columns = [drifting.numeric(f"x{at}", rng.normal(at, 2.0, size=4000), at) for at in range(N_COLUMNS)]
    score = rng.beta(2, 5, size=4000)
    calibration = Calibration(
        name="score.calibration", tensor="score", counts=tuple(np.histogram(score, Calibration.EDGES)[0].tolist())
    )
    outputs = [drifting.numeric("score", score, None, "score"), calibration]
    return drifting.profile(columns, outputs, model, digest)


def plan_of(profile: Profile) -> tuple[str, Any]:
    """As the duty reads tiles, with a request for each row: rows that are noted by hand belong to none."""
    digest, read = drift.native_plan(profile)

    def counted(blob: bytes) -> Any:
        found = read(blob)
        return replace(found, n_requests=found.n_rows)

    return digest, counted


class World:
    """A store, a version's folder, two workers and a clock."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.store, self.profile = store, a_profile()
        self.path = put_profile(folder / "models", self.profile)
        store.register_version(VersionRecord("fraud", "1", "0" * 64, str(self.path)), "ada")
        self.now_s, self.minute = float(START_S), 0
        self.rng = np.random.default_rng(2)
        self.workers = [TileWriter(self.profile, f"worker-{at}") for at in range(2)]
        self.watch = self.another_watch()

    def another_watch(self) -> DriftWatch:
        return DriftWatch(Settings(), ["pager"], lambda: self.now_s, plan_of)

    def feed(self, n_minutes: int = 1, shift: float = 0.0, n_rows: int = N_ROWS) -> None:
        """Minutes of which both workers tell half, each judged as soon as it may be; x2 is off by `shift`."""
        for _ in range(n_minutes):
            rows = self.rng.normal(np.arange(N_COLUMNS), 2.0, size=(n_rows, N_COLUMNS))
            rows[:, 2] += shift
            scores = self.rng.beta(2, 5, size=n_rows)
            start_s = START_S + 60 * self.minute
            for at, worker in enumerate(self.workers):
                worker.write(self.store, start_s, rows[at::2], scores[at::2])
            self.minute += 1
            self.now_s = start_s + 71.0
            self.watch.run(self.store)

    @property
    def report(self) -> Any:
        (found,) = drift.reports(self.store, "fraud", "1")
        return found

    @property
    def live(self) -> list[alarms.Alarm]:
        return [drift.alarm_of(record) for record in self.store.alarms(states=drift.LIVE)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Store.open(url_of_folder(tmp_path / "state")) as store:
        yield World(tmp_path, store)


def test_undisturbed_traffic_stays_silent_and_is_counted_over_workers(world: World) -> None:
    world.feed(12)
    assert world.live == []
    assert world.report.requests["10m"] == 10 * N_ROWS
    assert world.report.sentence == f"nothing drifted in {N_COLUMNS + 2} columns"
    assert world.report.column("x1").windows["10m"].level.mean == pytest.approx(1.0, abs=0.2)
    assert world.store.deliveries() == []


def test_a_drifted_column_is_told_everywhere_within_a_window(world: World) -> None:
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


def test_an_open_alarm_pages_once_and_closes_by_itself_when_traffic_is_back(world: World) -> None:
    world.feed(2)
    world.feed(5, shift=4.0)
    world.feed(CALM + 4)
    assert world.live == []
    actions = [entry.action for entry in world.store.audit_log(action="drift")]
    assert actions == ["drift.closed", "drift.opened"]
    assert len(world.store.deliveries()) == 2
    world.feed(1, shift=4.0)
    assert len(world.live) == 1


def test_what_an_operator_closes_is_normal_from_then_on(world: World) -> None:
    world.feed(2)
    world.feed(3, shift=3.0)
    (alarm,) = world.live
    event = alarms.close(alarm, world.now_s + 1, "ada", "new customers")
    assert drift.record_event(world.store, event, "open", "ada", "new customers", ["pager"])
    world.feed(10, shift=3.0)
    assert world.live == []
    world.feed(2, shift=9.0)
    assert len(world.live) == 1


def test_a_control_process_that_takes_over_comes_to_the_same_report(world: World) -> None:
    world.feed(25, shift=0.6)
    first = world.report
    other = world.another_watch()
    other.run(world.store)
    assert world.report.column("x2").evidence == pytest.approx(first.column("x2").evidence)
    assert world.report == first
    world.watch = other
    world.feed(2, shift=4.0)
    assert len(world.live) == 1


def test_who_was_slower_tells_nobody(world: World) -> None:
    world.feed(2)
    other = world.another_watch()
    other.run(world.store)
    world.feed(1, shift=4.0)
    other.run(world.store)
    assert [entry.action for entry in world.store.audit_log(action="drift")] == ["drift.opened"]
    assert len(world.store.deliveries()) == 1


def test_tiles_of_another_plan_and_damaged_ones_are_left_out(world: World) -> None:
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


def test_a_profile_of_another_version_or_a_broken_one_is_not_used_and_a_mended_one_is(world: World) -> None:
    path = world.path / "profile.json"
    for content in (b"{}", a_profile("other").to_json()):
        path.write_bytes(content)
        watch = world.another_watch()
        watch.run(world.store)
        assert drift.reports(world.store) == []
    path.write_bytes(world.profile.to_json())
    watch.run(world.store)
    assert len(drift.reports(world.store)) == 1


def test_a_new_profile_begins_anew(world: World) -> None:
    world.feed(3)
    (world.path / "profile.json").write_bytes(a_profile(digest="1" * 64).to_json())
    world.watch.run(world.store)
    assert {column.status for column in world.report.columns} <= {"waiting", "ok"}


def test_tiles_are_forgotten_after_a_day(world: World) -> None:
    world.feed(2)
    assert len(world.store.reports("tile")) == 4
    world.now_s += drift.FORGET_TILES_AFTER_S + 3600
    world.watch.run(world.store)
    assert world.store.reports("tile") == []
