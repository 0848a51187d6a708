"""Who of the workers counts, and what they have in force. Pure: records in, answers out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.store import WorkerRecord

LIVE_S = 3.0
"""A worker says something every second; one that was silent for so long is not waited for."""

READY = "READY"
LEAVING = ("draining", "stopped")
"""What a worker on its way out has as its own fault."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The workers that a supervisor keeps, whether they have reported or not."""

    host: str = ""
    n: int = 0


@dataclass(frozen=True, slots=True)
class Silent:
    """A worker that has not done what was asked, and why."""

    worker: str
    reason: str


def name(record: WorkerRecord) -> str:
    return f"{record.host}/{record.index}"


def living(records: Iterable[WorkerRecord]) -> list[WorkerRecord]:
    """Of those seen lately, without those that leave, and without those that another has replaced."""
    kept: list[WorkerRecord] = []
    for record in sorted(records, key=lambda each: each.started_at):
        kept = [
            other
            for other in kept
            if (other.host, other.index) != (record.host, record.index) or other.seen_at > record.started_at
        ]
        kept.append(record)
    return sorted(
        (record for record in kept if record.faults.get("") not in LEAVING),
        key=lambda each: (each.host, each.index, each.started_at),
    )


def absent(live: Sequence[WorkerRecord], expected: Expected) -> list[Silent]:
    """Places of the supervisor's whose worker is not here."""
    here = {record.index for record in live if record.host == expected.host}
    return [Silent(f"{expected.host}/{index}", "is being started") for index in range(expected.n) if index not in here]


def behind(live: Sequence[WorkerRecord], expected: Expected, model: str, generation: int) -> list[Silent]:
    """Who does not have that generation of the model's route in force, or a later one."""
    late = [
        Silent(name(record), str(record.faults.get("") or f"still at generation {record.generations.get(model, 0)}"))
        for record in live
        if record.generations.get(model, 0) < generation
    ]
    return late + absent(live, expected)


def state(record: WorkerRecord, model: str, version: str) -> tuple[str, str]:
    """State and reason of a version in a worker; ("", "") when it does not know it."""
    known = record.versions.get(model, {}).get(version)
    return (known["state"], known.get("reason", "")) if known else ("", "")


def unready(live: Sequence[WorkerRecord], model: str, version: str) -> tuple[list[Silent], list[Silent]]:
    """Who does not serve that version: those that gave up on it, and those that may still get there."""
    failed, pending = [], []
    for record in live:
        word, reason = state(record, model, version)
        if word == "UNAVAILABLE":
            failed.append(Silent(name(record), reason or "it is unavailable"))
        elif word != READY:
            pending.append(Silent(name(record), f"it is {word}" if word else "it does not know it yet"))
    return failed, pending


def reported(live: Iterable[WorkerRecord], model: str | None = None) -> dict[tuple[str, str], dict[str, int]]:
    """By (model, version), in how many workers it is in each state."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for record in live:
        for each, versions in record.versions.items():
            if model in (None, each):
                for version, known in versions.items():
                    states = counts.setdefault((each, version), {})
                    states[known["state"]] = states.get(known["state"], 0) + 1
    return counts
