"""What was measured, kept after every row, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import environments, results
from bench.peers.drive import Load

FOLDER = Path(__file__).parent / "results"
FORMAT = 1
_SAME = ("commit", "dirty", "cpu", "cores", "mode")


@dataclass(slots=True)
class Record:
    """One run: `stamp` of machine and code, `peers` with version and settings, rows, and what could not be measured."""

    stamp: dict[str, Any]
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def has(self, peer: str, time: int, load: Load) -> bool:
        return any(_key(row) == (peer, time, load.protocol, load.work, load.at_once, load.of_peak) for row in self.rows)

    def peak_per_s(self, peer: str, time: int, load: Load) -> float | None:
        """The best rate of a closed loop of the same peer, protocol and work."""
        rates = [
            row["requests_per_s"]
            for row in self.rows
            if _key(row)[:4] == (peer, time, load.protocol, load.work) and row["at_once"]
        ]
        return max(rates, default=None)

    def document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "stamp": self.stamp,
            "peers": self.peers,
            "rows": self.rows,
            "problems": self.problems,
        }


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["peer"], row["time"], row["protocol"], row["work"], row["at_once"], row["of_peak"]


def unfinished(mode: str) -> Path:
    return environments.folder("peers") / f"unfinished-{mode}.json"


def begin(mode: str, *, fresh: bool) -> tuple[Record, bool]:
    """The run that was stopped, if it is of this machine and this code; else a new one. And whether it goes on."""
    stamp = results.stamp(mode, "peers")
    stamp["command"] = stamp["command"].replace("-m bench", "-m bench.peers")
    path = unfinished(mode)
    if path.exists() and not fresh:
        found = read(path)
        if all(found.stamp[key] == stamp[key] for key in _SAME):
            return found, True
    return Record(stamp), False


def read(path: Path) -> Record:
    document = json.loads(path.read_text())
    if document.get("format") != FORMAT:
        raise ValueError(f"{path} is no result of bench.peers")
    return Record(document["stamp"], document["peers"], document["rows"], document["problems"])


def checkpoint(record: Record) -> None:
    """Replaces the file at once, so that it is whole whenever the run is stopped."""
    path = unfinished(record.stamp["mode"])
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, record)


def finish(record: Record, *, save: bool) -> Path:
    """Kept as <date>-<commit>[-mode].json; with `save` off as last-<mode>.json outside the tree. What failed can be
    tried again by the same command, which then writes the same file.
    """
    if not record.problems:
        unfinished(record.stamp["mode"]).unlink(missing_ok=True)
    if not save:
        path = unfinished(record.stamp["mode"]).with_name(f"last-{record.stamp['mode']}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, record)
        return path
    FOLDER.mkdir(exist_ok=True)
    date = re.sub(r"[-:]", "", record.stamp["date"])
    suffix = "" if record.stamp["mode"] == "kept" else f"-{record.stamp['mode']}"
    path = FOLDER / f"{date}-{record.stamp['commit']}{suffix}.json"
    _write(path, record)
    return path


def _write(path: Path, record: Record) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(record.document(), indent=1) + "\n")
    os.replace(new, path)
