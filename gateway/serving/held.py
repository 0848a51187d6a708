"""One loaded version as its worker holds it: what runs it, and what it was loaded from."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from gateway.backends.base import Backend
from gateway.batching.policy import LanePolicy
from gateway.config.model import ModelConfig
from gateway.feedback.prediction import Prediction
from gateway.native.lane import Lane
from gateway.serving.catalog import ServedVersion
from gateway.serving.executors import Runs
from gateway.serving.monitors import Watch

Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Source:
    """What a version is loaded from. Equal sources give equal versions: such a one is not loaded again."""

    path: Path
    config: ModelConfig
    fingerprint: Fingerprint
    watch: Watch | None = field(default=None, compare=False)
    """How its values are watched; known once it is open."""
    prediction: Prediction | None = field(default=None, compare=False)
    """What its answers' receipts tell; None: they carry none."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A version in service, or one that finishes what it has begun."""

    lane: Lane
    executor: Runs
    backend: Backend
    policy: LanePolicy
    source: Source
    background: Runs
    """Runs shadow work, from the lane's twin."""

    @property
    def is_idle(self) -> bool:
        """Nobody waits for an answer, and no shadow runs."""
        twin = self.lane.twin
        return self.lane.is_idle and (twin is None or twin.is_idle)


Holdings = dict[ServedVersion, Held]
"""What is in service. The loader alone changes it."""


def fingerprint(folder: Path) -> Fingerprint:
    """(name, inode, size, modification time in ns) of each file in a version's folder, below it too: a model may keep
    its weights in other files. A folder that cannot be read has none; loading it will say why.
    """
    found = []
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            found.append((os.path.relpath(path, folder), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))
