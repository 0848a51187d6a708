"""Tiles in the store as a worker writes them: counted by the native monitor, told under the agent's keys."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gateway.monitoring.plan import plan_of
from gateway.monitoring.profile import Profile
from gateway.monitoring.tilekey import TileKey
from gateway.native.monitor import Monitor
from gateway.native.signature import Signature
from gateway.store import Report, Store


class TileWriter:
    """One worker's monitor of a version whose input is [rows, columns] of FP32 and whose output is `score`."""

    def __init__(self, profile: Profile, incarnation: str) -> None:
        self._profile, self._incarnation = profile, incarnation
        self._plan = plan_of(profile)
        n_columns = len(profile.columns)
        self._signature = Signature(
            profile.model, profile.version, [("input", "FP32", (-1, n_columns))], [("score", "FP32", (-1, 1))], True
        )

    def write(self, store: Store, start_s: int, rows: Any, scores: Any) -> None:
        """A minute, a request for each row."""
        monitor = Monitor(self._plan, self._signature)
        monitor.cut(float(start_s))
        inputs, outputs = np.asarray(rows, np.float32), np.asarray(scores, np.float32).reshape(-1, 1)
        for row, score in zip(inputs, outputs, strict=True):
            monitor.note_rows([row[None]], [score[None]])
        self._put(store, monitor.cut(start_s + 30.0), start_s + 60.0)

    def _put(self, store: Store, tiles: Iterable[tuple[str, int, int, bytes]], at: float) -> None:
        digest = self._plan.digest.hex()
        reports = [
            Report(
                "tile", self._profile.model, self._profile.version, str(TileKey(start, stage, digest, arm)), body, at
            )
            for arm, stage, start, body in tiles
        ]
        store.put_reports(self._incarnation, reports)


def put_profile(folder: Path, profile: Profile) -> Path:
    """In a version's folder of a repository."""
    version = folder / profile.model / profile.version
    version.mkdir(parents=True, exist_ok=True)
    (version / "profile.json").write_bytes(profile.to_json())
    return version
