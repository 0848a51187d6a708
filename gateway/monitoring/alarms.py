"""Alarms: what somebody is told, once, and what becomes of it.

An alarm is about one version and one side (input, output, schema): fifty columns that drift together are one page, not
fifty. Columns that join later are added to it. It closes by itself when all its columns have been within what is
tolerated for CALM windows, or by an operator, who thereby calls what is seen normal. Pure: `advance` and the operator's
moves give new alarms and the events that tell of it.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from gateway.errors import Code, GatewayError
from gateway.monitoring.driftreport import ColumnDrift, DriftReport, Side

CALM = 10
"""Windows in a row within what is tolerated, until an alarm closes by itself."""

Change = Literal["opened", "grown", "acknowledged", "closed"]


class State(enum.StrEnum):
    """opened -> OPEN -> ACKNOWLEDGED -> CLOSED, or at once to CLOSED. CLOSED is for good: a relapse is a new alarm."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"


_MOVES: Mapping[State, frozenset[State]] = {
    State.OPEN: frozenset((State.ACKNOWLEDGED, State.CLOSED)),
    State.ACKNOWLEDGED: frozenset((State.CLOSED,)),
    State.CLOSED: frozenset(),
}


class IllegalMove(GatewayError):
    """The alarm is in no state for that."""

    code = Code.FAILED_PRECONDITION


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Part):
    """One column as it was when it was found."""

    column: str
    sentence: str
    since: float | None
    found: float
    score: float | None
    psi: float | None
    evidence: float

    @classmethod
    def of(cls, column: ColumnDrift, now_s: float) -> Finding:
        nearest = column.windows["1m"] if column.windows["1m"].level.n else column.windows["10m"]
        return cls(
            column=column.name, sentence=column.sentence, since=column.since, found=now_s, score=column.score,
            psi=nearest.psi, evidence=column.evidence,
        )  # fmt: skip


class Alarm(_Part):
    id: str
    model: str
    version: str
    side: Side
    state: State
    opened: float
    since: float
    """When the first column began to drift, as far as the evidence says."""
    findings: tuple[Finding, ...]
    sentence: str
    updated: float
    actor: str = ""
    """Who acknowledged or closed it; "gateway" when traffic came back by itself."""
    reason: str = ""
    accepted: bool = False
    """Closed by an operator: what was seen is normal from now on."""

    @property
    def is_live(self) -> bool:
        return self.state is not State.CLOSED

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(finding.column for finding in self.findings)

    def moved(self, state: State, now_s: float, actor: str, reason: str, accepted: bool = False) -> Alarm:
        if state not in _MOVES[self.state]:
            may = " or ".join(sorted(_MOVES[self.state])) or "nothing else: it is over"
            raise IllegalMove(f"alarm {self.id}: is {self.state}, got {state}; expected {may}")
        return self.model_copy(
            update={"state": state, "updated": now_s, "actor": actor, "reason": reason, "accepted": accepted}
        )


class Event(_Part):
    """What is told: to the log, the audit log and every webhook."""

    change: Change
    alarm: Alarm
    at: float

    @property
    def id(self) -> str:
        """The same for the same change, however often it is computed: who receives may drop a second one."""
        text = f"{self.alarm.id} {self.change} {self.alarm.state} {len(self.alarm.findings)}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def advance(alarms: Iterable[Alarm], report: DriftReport, calm: Mapping[str, int]) -> tuple[list[Alarm], list[Event]]:
    """The live alarms of the report's version after it, closed ones included once, and what there is to tell.

    `calm`: windows in a row that a column was within what is tolerated.
    """
    live = {alarm.side: alarm for alarm in alarms if alarm.is_live and _is_of(alarm, report)}
    events: list[Event] = []
    for side in ("input", "output", "schema"):
        found = [c for c in report.columns if c.side == side and c.name in (*report.pages, *report.named)]
        alarm = live.get(side)
        new = [column for column in found if alarm is None or column.name not in alarm.columns]
        if alarm is None and any(column.name in report.pages for column in new):
            live[side] = _open(report, side, new)
            events.append(Event(change="opened", alarm=live[side], at=report.at))
        elif alarm is not None and new:
            findings = (*alarm.findings, *(Finding.of(column, report.at) for column in new))
            update = {"findings": findings, "updated": report.at, "sentence": _sentence(findings)}
            live[side] = alarm.model_copy(update=update)
            events.append(Event(change="grown", alarm=live[side], at=report.at))
        elif alarm is not None and all(calm.get(column, 0) >= CALM for column in alarm.columns):
            reason = f"within what is tolerated for {CALM} windows"
            live[side] = alarm.moved(State.CLOSED, report.at, "gateway", reason)
            events.append(Event(change="closed", alarm=live[side], at=report.at))
    return list(live.values()), events


def acknowledge(alarm: Alarm, now_s: float, actor: str, reason: str) -> Event:
    """Somebody looks after it: it stays, and pages nobody again."""
    return Event(change="acknowledged", alarm=alarm.moved(State.ACKNOWLEDGED, now_s, actor, reason), at=now_s)


def close(alarm: Alarm, now_s: float, actor: str, reason: str) -> Event:
    """What is seen is normal: it is tolerated from now on, until the version has another profile."""
    return Event(change="closed", alarm=alarm.moved(State.CLOSED, now_s, actor, reason, accepted=True), at=now_s)


def held(alarms: Iterable[Alarm]) -> frozenset[str]:
    """Columns whose detector waits."""
    return frozenset(column for alarm in alarms if alarm.is_live for column in alarm.columns)


def _open(report: DriftReport, side: Side, columns: Sequence[ColumnDrift]) -> Alarm:
    findings = tuple(Finding.of(column, report.at) for column in columns)
    since = min((f.since for f in findings if f.since is not None), default=report.at)
    name = f"{report.model}\0{report.version}\0{side}\0{report.at:.6f}"
    return Alarm(
        id=hashlib.sha256(name.encode()).hexdigest()[:12], model=report.model, version=report.version, side=side,
        state=State.OPEN, opened=report.at, since=since, findings=findings, sentence=_sentence(findings),
        updated=report.at,
    )  # fmt: skip


def _sentence(findings: Sequence[Finding]) -> str:
    worst = sorted(findings, key=lambda each: -(each.score or 0.0))
    more = f"; and {len(worst) - 3} more columns" if len(worst) > 3 else ""
    return "; ".join(f"{each.column}: {each.sentence}" for each in worst[:3]) + more


def _is_of(alarm: Alarm, report: DriftReport) -> bool:
    return (alarm.model, alarm.version) == (report.model, report.version)


def cloud_event(event: Event, source: str) -> dict[str, Any]:
    """CloudEvents 1.0, structured JSON. `source`: where to read more, a URI reference."""
    from datetime import UTC, datetime

    alarm = event.alarm
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": source,
        "type": f"gateway.drift.{event.change}",
        "subject": f"{alarm.model}/{alarm.version}/{alarm.side}",
        "time": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": alarm.model_dump(mode="json"),
    }
