"""A model watched for drift, without a gateway: a real store, two workers' tiles, and a clock that the test moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gateway.control import drift
from gateway.control.drift import DriftWatch
from gateway.monitoring import alarms
from gateway.monitoring.baseline import Settings
from gateway.monitoring.profile import Calibration, Profile
from gateway.store import Store, VersionRecord
from tests.support import drifting
from tests.support.drifting import START_S
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


class DriftWorld:
    """A store, a version's folder, two workers and a clock."""

    def __init__(self, folder: Path, store: Store, start_s: int = START_S) -> None:
        self.store, self.profile = store, a_profile()
        self.path = put_profile(folder / "models", self.profile)
        store.register_version(VersionRecord("fraud", "1", "0" * 64, str(self.path)), "ada")
        self.start_s = start_s // 60 * 60
        self.now_s, self.minute = float(self.start_s), 0
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
            start_s = self.start_s + 60 * self.minute
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
