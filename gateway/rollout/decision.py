"""What was decided at one look: an event or none, the traffic that is wanted, and everything that was thought of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.evidence.verdict import Verdict
from gateway.rollout.baseline import Baseline
from gateway.rollout.cursor import Cursor
from gateway.rollout.judge import GuardrailVerdict
from gateway.rollout.phase import Event, Health, Hold, Stage
from gateway.rollout.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Decision:
    """To be applied in this order: store it with its snapshot, publish the traffic if it is new, mark that as done.

    All of it may be done again after a crash: the cursor is absolute, and traffic is named by its epoch.
    """

    event: Event | None
    new_units: int | None  # the candidate's weight to publish, of SHARE_UNIT; None: as it is
    cursor: Cursor  # to be stored in place of the one that was read
    health: Health
    guardrails: tuple[GuardrailVerdict, ...]
    split: Verdict | None  # do requests fall on the arms as drawn
    combined: Verdict | None  # all guardrails that may take it back, under one risk
    promotion: Verdict | None  # all that must be shown good before it goes on
    reasons: tuple[str, ...]  # for people: what was decided or what is waited for, the weightiest first
    next_look_s: float | None  # None: it is over, nobody needs to look again
    changes_traffic: bool = False  # the cursor's epoch is new: publish its units and shadow_units under it
    blocks_digest: bool = False  # the candidate's digest may not be tried again without an override

    @property
    def holds(self) -> tuple[Hold, ...]:
        return tuple(hold for hold, _ in self.cursor.holds)

    def baseline_after(self, snapshot: Snapshot) -> Baseline:
        """For the epoch that begins, thresholds are where stable's answers were in the one that ends."""
        cursor = self.cursor
        if not self.changes_traffic or not cursor.units or cursor.stage not in (Stage.STEP, Stage.BAKING):
            return snapshot.baseline
        return snapshot.baseline.renewed(cursor.epoch, snapshot.latency)

    def changes(self, before: Cursor) -> bool:
        """Whether there is something to store and to tell: more than that somebody looked."""
        was = (before.stage, before.epoch, before.acknowledged_s, before.units, [hold for hold, _ in before.holds])
        now = self.cursor
        is_ = (now.stage, now.epoch, now.acknowledged_s, now.units, list(self.holds))
        return self.event is not None or self.changes_traffic or was != is_ or before.suspicions != now.suspicions

    def as_dict(self) -> dict[str, Any]:
        """Plain types that any JSON writer takes; equal decisions have equal documents."""
        return {
            "event": self.event and self.event.value,
            "new_units": self.new_units,
            "cursor": self.cursor.as_dict(),
            "health": self.health.value,
            "guardrails": [_verdict_of(guardrail) for guardrail in self.guardrails],
            "split": _plain(self.split),
            "combined": _plain(self.combined),
            "promotion": _plain(self.promotion),
            "reasons": list(self.reasons),
            "next_look_s": self.next_look_s,
            "changes_traffic": self.changes_traffic,
            "blocks_digest": self.blocks_digest,
        }


def _plain(verdict: Verdict | None) -> dict[str, Any] | None:
    return None if verdict is None else verdict.as_dict()


def _verdict_of(guardrail: GuardrailVerdict) -> dict[str, Any]:
    return {
        "name": guardrail.name,
        "kind": guardrail.kind,
        "action": guardrail.action,
        "required": guardrail.required,
        "rollback": _plain(guardrail.rollback),
        "promote": _plain(guardrail.promote),
        "fault": guardrail.fault,
    }
