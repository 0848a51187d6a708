"""What one rollout is doing, asked of the control plane, and what its callers met, told by the stream."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.rollouts.host import Host
from demo.rollouts.models import Model

OVER = ("promoted", "rolled_back", "refused", "superseded", "needs_operator")


class Stream:
    """`python -m demo.rollouts.stream` for one model; `last` is what it said last. Nothing is sent before `begin`."""

    def __init__(self, model: str, rows: Path, port: int, rate: float) -> None:
        words = [sys.executable, "-m", "demo.rollouts.stream", model, str(rows), str(port), str(rate)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.is_ready = False
        self.last: dict[str, Any] = {"answered": {}, "wrong": {}, "said": {}, "failed": 0}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.is_ready = True
            with contextlib.suppress(ValueError):
                self.last = json.loads(line)

    def begin(self) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("go\n")
            self._process.stdin.close()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def n(self) -> int:
        return int(sum(self.last["answered"].values()) + self.last["failed"])

    def share_wrong(self, version: str) -> float:
        """Of its answers, how many were not the truth."""
        return float(self.last["wrong"].get(version, 0) / max(self.last["answered"].get(version, 0), 1))

    def share_said(self, version: str, label: str) -> float:
        """Of its answers, how many were this label."""
        found = self.last["said"].get(version, {})
        return float(found.get(label, 0) / max(sum(found.values()), 1))

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(2.0)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()


@dataclass(slots=True)
class Followed:
    """One rollout. `now` is /v1/rollouts/ID as it was asked last; `decisions` all that were kept so far."""

    model: Model
    stream: Stream
    id: str = ""
    now: dict[str, Any] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, host: Host) -> list[dict[str, Any]]:
        """The decisions that are new."""
        self.now = host.ask("GET", "v1", "rollouts", self.id, may_fail=True) or self.now
        if int(self.now.get("decisions", 0)) <= len(self.decisions):
            return []
        seen = self.decisions[-1]["seq"] if self.decisions else 0
        answer = host.ask("GET", "v1", "rollouts", self.id, "decisions", query={"after": seen}, may_fail=True)
        new: list[dict[str, Any]] = answer["decisions"] if answer else []
        self.decisions += new
        return new

    @property
    def stage(self) -> str:
        return str(self.now.get("stage", "loading"))

    @property
    def is_over(self) -> bool:
        return self.stage in OVER

    @property
    def ended(self) -> dict[str, Any] | None:
        """The decision that said what becomes of it; None while there is none."""
        found = [each for each in self.decisions if each["event"] in ("promote", "roll_back", "refuse")]
        return found[-1] if found else None

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.now.get("status") or {}
        return found

    @property
    def weight(self) -> float:
        return float(self.now.get("weight_percent", 0.0))

    def counted(self, what: str) -> tuple[int, int]:
        """answered or failed: of stable, of the release."""
        found = self.status.get(what) or {}
        return int(found.get("stable", 0)), int(found.get("candidate", 0))

    @property
    def began_s(self) -> float:
        return float(self.now.get("created_at", 0.0))
