"""Where a rollout stands: the whole of what is stored between two looks, apart from the evidence.

Times are absolute, in seconds of the wall clock, so that they outlive whoever looks. When the wall clock is found to
have jumped, they are moved along: what is measured is the time that passed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from gateway.rollout.phase import Hold, Stage

JUMP_S = 5.0
"""By which wall and monotonic clock may part between two looks: a clock that is being slewed stays far below."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A guardrail that said worse at the last look."""

    name: str
    looks: int
    counted_s: float  # wall time of the last look that was counted


@dataclass(frozen=True, slots=True)
class Cursor:
    plan: str  # digest of the plan it was moved by: with another plan it means nothing
    stage: Stage = Stage.LOADING
    step: int = -1  # of the plan's steps, in STEP; the last one that was begun afterwards
    epoch: int = 0  # of the traffic in force; evidence is kept by it
    units: int = 0  # the candidate's weight that is wanted, of SHARE_UNIT
    shadow_units: int = 0
    entered_s: float = 0.0
    acknowledged_s: float | None = None  # when the last worker had the epoch's traffic in force: clocks start here
    not_before_s: float | None = None
    deadline_s: float | None = None
    looked_s: float = 0.0
    holds: tuple[tuple[Hold, float], ...] = ()  # with the time since when, in the order of Hold
    suspicions: tuple[Suspicion, ...] = ()
    cause: str = ""  # of going back: guardrail, fact, abort, superseded, policy
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        document: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return document

    @classmethod
    def from_dict(cls, document: Any) -> Cursor:
        """Of `as_dict`, also after a way through JSON. pydantic.ValidationError (a ValueError) names what is wrong."""
        return _ADAPTER.validate_python(document)

    def held_since(self, hold: Hold) -> float | None:
        return dict(self.holds).get(hold)

    def moved_along(self, jump_s: float) -> Cursor:
        """With all times later by so much: the wall clock was set, not the world."""

        def later(at: float | None) -> float | None:
            return None if at is None else at + jump_s

        return replace(
            self,
            entered_s=self.entered_s + jump_s,
            acknowledged_s=later(self.acknowledged_s),
            not_before_s=later(self.not_before_s),
            deadline_s=later(self.deadline_s),
            looked_s=self.looked_s + jump_s,
            holds=tuple((hold, since + jump_s) for hold, since in self.holds),
            suspicions=tuple(replace(one, counted_s=one.counted_s + jump_s) for one in self.suspicions),
        )

    def jump(self, wall_s: float, passed_s: float | None) -> float:
        """How far the wall clock is from where it should be; 0 when it is where it should.

        `passed_s`: monotonic time since the last look, None when somebody else looked last. Then only a clock that
        went backwards can be noticed.
        """
        if not self.looked_s:
            return 0.0
        seen = wall_s - self.looked_s
        jump = min(seen, 0.0) if passed_s is None else seen - passed_s
        return jump if abs(jump) > JUMP_S or seen < 0.0 else 0.0


_ADAPTER = TypeAdapter(Cursor)
