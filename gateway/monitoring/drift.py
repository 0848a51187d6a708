"""Whether a version's traffic is still what it was built for: `assess`, pure, from tiles to report and next state.

Windows are judged once, when all workers have had time to report; what comes later still counts in the sliding windows
that people read. Input drift, output drift and violations of the schema are told apart: each has its own sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gateway.evidence.numeric import Floats
from gateway.monitoring import detector, driftreport, weighing
from gateway.monitoring.baseline import Baseline, Integers
from gateway.monitoring.driftreport import DriftReport
from gateway.monitoring.windows import DAY_S, MINUTE_S, Counted, MinuteTile, Ring

GRACE_S = 10
"""After a minute's end, for workers to report: they do every 5 seconds."""
WINDOWS_PER_DAY = DAY_S // MINUTE_S
RECENT = 60
"""Judged windows whose scores are shown as a trend."""
ACCEPTED_ROOM = 1.25
"""Above what was seen when an operator called it normal."""


@dataclass(frozen=True, slots=True, eq=False)
class DriftState:
    """All that `assess` remembers of one version. Immutable."""

    fingerprint: str
    ring: Ring
    judged_until_s: int
    pending: Counted
    """Minutes that were over, and too quiet to be judged alone."""
    pending_from_s: int
    before: Integers
    """The last judged window."""
    detector: detector.State
    recent: tuple[tuple[int, Floats], ...] = ()
    held: frozenset[str] = frozenset()
    accepted: Floats = field(default_factory=lambda: np.zeros(0))
    """In tolerances, what an operator called normal; 0 is nothing."""
    as_of_s: float = 0.0
    """When it was last brought up to date."""

    @classmethod
    def new(cls, baseline: Baseline) -> DriftState:
        n = len(baseline.judged)
        none = Counted.none(baseline)
        return cls(baseline.fingerprint, Ring(), 0, none, 0, none.cells, detector.State.new(n), accepted=np.zeros(n))


def assess(
    baseline: Baseline,
    tiles: Iterable[MinuteTile],
    state: DriftState | None,
    now_s: float,
    held: frozenset[str] = frozenset(),
    accepted: frozenset[str] = frozenset(),
) -> tuple[DriftReport, DriftState]:
    """`tiles`: new or grown since the last time. `held`: columns of open alarms, which wait. `accepted`: columns whose
    alarm was closed as normal since the last time. A state of another profile is dropped.
    """
    if state is None or state.fingerprint != baseline.fingerprint:
        state = DriftState.new(baseline)
    names = [column.name for column in baseline.judged]
    state = _release(state, names, held, accepted)
    ring = state.ring.with_tiles(baseline, tiles).at(baseline, now_s)
    state = replace(state, ring=ring, as_of_s=now_s)
    until_s = int(now_s - GRACE_S) // MINUTE_S * MINUTE_S
    for start in sorted(ring.minutes):
        if not state.judged_until_s <= start < until_s:
            continue
        minute = ring.minute(baseline, start)
        pending = state.pending + minute
        pending_from = state.pending_from_s or start
        state = replace(state, judged_until_s=start + MINUTE_S, pending=pending, pending_from_s=pending_from)
        if sum(weighing.requests_of(baseline, pending.cells)) >= baseline.settings.least_requests:
            state = _judge(baseline, state)
    threshold = detector.log_threshold(len(names), WINDOWS_PER_DAY, baseline.settings.budget_days)
    return driftreport.write(baseline, state, now_s, threshold), state


def _judge(baseline: Baseline, state: DriftState) -> DriftState:
    cells, names = state.pending.cells, [column.name for column in baseline.judged]
    well_formed, violations = weighing.requests_of(baseline, cells)
    weighed = [
        weighing.weigh(column, baseline.allowed(column, room), cells[column.cells], state.before[column.cells],
                       well_formed + violations if column.side == "schema" else well_formed)
        for column, room in zip(baseline.judged, state.accepted.tolist(), strict=True)
    ]  # fmt: skip
    tolerated, major, score = (np.array([float(each[part]) for each in weighed]) for part in range(3))
    held = np.array([name in state.held for name in names])
    start_s = state.pending_from_s
    chance = detector.uniforms(baseline.fingerprint, names, start_s)
    moved, _ = detector.step(state.detector, start_s, detector.Evidence(score, tolerated, major), held, chance)
    return replace(
        state, detector=moved, before=cells, pending=Counted.none(baseline), pending_from_s=0,
        recent=(*state.recent, (start_s, score))[-RECENT:],
    )  # fmt: skip


def _release(state: DriftState, names: Sequence[str], held: frozenset[str], accepted: frozenset[str]) -> DriftState:
    """Columns whose alarm has ended begin anew, with more room where an operator called it normal."""
    room = state.accepted
    if accepted:
        scores = np.array([each for _, each in state.recent[-10:]] or [np.zeros(len(names))])
        seen = ACCEPTED_ROOM * np.nan_to_num(scores, nan=0.0).max(0) * np.maximum(room, 1.0)
        room = np.where([name in accepted for name in names], np.maximum(room, seen), room)
    ended = np.array([name in accepted or (name in state.held and name not in held) for name in names], bool)
    return replace(state, detector=state.detector.restarted(ended), held=held, accepted=room)
