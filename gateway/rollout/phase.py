"""Where a rollout stands, what keeps it there, and how healthy its candidate looks: three things, never mixed.

    LOADING ──▶ WARMING ──▶ SHADOW ──▶ STEP ⟲ ──▶ BAKING ──▶ PROMOTED
       │           │
       ▼           ▼        what comes between WARMING and BAKING is the plan's strategy: any of the two, both, none
    REFUSED     REFUSED

    every stage above but REFUSED ──▶ ROLLING_BACK ──▶ ROLLED_BACK or SUPERSEDED      PROMOTED: by late labels only
                                        │      ▲
                                        ▼      │
                                     NEEDS_OPERATOR

One stage at a time; holds are a set beside it, because one may wait for a person and be unhealthy at once; the judge
runs in every live stage whatever holds there are.
"""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    LOADING = "loading"  # the candidate is loaded by every worker
    WARMING = "warming"  # golden examples, signature, NaN, latency, memory: nothing of a caller's yet
    SHADOW = "shadow"  # it answers copies of requests, for nobody
    STEP = "step"  # it answers the share of the requests that the step says
    BAKING = "baking"  # it answers nearly all of them, stable is kept beside it
    PROMOTED = "promoted"  # it is stable now; the version before is kept until `retain` is over
    ROLLING_BACK = "rolling_back"  # its weight goes to 0 and its requests end
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"  # it never answered anybody
    SUPERSEDED = "superseded"  # taken back because another attempt for the model came
    NEEDS_OPERATOR = "needs_operator"  # neither forward nor back is safe: whoever serves keeps serving


class Event(StrEnum):
    LOADED = "loaded"
    REFUSE = "refuse"
    START_SHADOW = "start_shadow"
    START_STEPS = "start_steps"
    NEXT_STEP = "next_step"
    START_BAKING = "start_baking"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    SUPERSEDE = "supersede"  # another attempt: back first, then out of its way
    DRAINED = "drained"
    CLEARED = "cleared"  # drained, for another attempt
    GIVE_UP = "give_up"


class Hold(StrEnum):
    """Why a rollout does not go on. None of them keeps it from going back."""

    MANUAL = "manual"  # an operator paused it
    GATE = "gate"  # the plan wants an operator's word here
    INSUFFICIENT_EVIDENCE = "insufficient_evidence"  # the step's longest time is over without an answer
    JUDGE_UNAVAILABLE = "judge_unavailable"  # the evidence is missing, late or has holes
    SPLIT = "split"  # requests do not fall on the arms as drawn: no comparison can be believed
    SUSPECT = "suspect"  # a guardrail says worse and is looked at once more
    GUARDRAIL = "guardrail"  # a guardrail whose action is `pause` says worse
    ACKNOWLEDGEMENT = "acknowledgement"  # some worker has not taken the weight yet
    CLOCK = "clock"  # the wall clock jumped: deadlines were moved along, nothing fires at this look
    ROUTE = "route"  # somebody else's route is in force
    CAPACITY = "capacity"  # the candidate is not ready everywhere, or cannot carry the next weight
    STABLE_LOST = "stable_lost"  # stable cannot serve: traffic must not be shifted to it


class Health(StrEnum):
    UNKNOWN = "unknown"
    OK = "ok"
    SUSPECT = "suspect"
    BAD_SOFT = "bad_soft"  # shown worse by the evidence, at two looks
    BAD_HARD = "bad_hard"  # a fact that needs no second look


class IllegalMove(ValueError):
    """A stage and an event that do not go together: a defect, never an operator's mistake."""

    def __init__(self, stage: Stage, event: Event) -> None:
        possible = ", ".join(sorted(TABLE[stage])) or "nothing, it is over"
        super().__init__(f"event: got {event} in stage {stage}, expected {possible}")
        self.stage, self.event = stage, event


_BACK = {Event.ROLL_BACK: Stage.ROLLING_BACK, Event.SUPERSEDE: Stage.ROLLING_BACK}
_NOTHING_SERVED = {
    Event.REFUSE: Stage.REFUSED,
    Event.ROLL_BACK: Stage.ROLLING_BACK,
    Event.SUPERSEDE: Stage.SUPERSEDED,
}

TABLE: dict[Stage, dict[Event, Stage]] = {
    Stage.LOADING: {Event.LOADED: Stage.WARMING, **_NOTHING_SERVED},
    Stage.WARMING: {
        Event.START_SHADOW: Stage.SHADOW,
        Event.START_STEPS: Stage.STEP,
        Event.START_BAKING: Stage.BAKING,
        **_NOTHING_SERVED,
    },
    Stage.SHADOW: {Event.START_STEPS: Stage.STEP, Event.START_BAKING: Stage.BAKING, **_BACK},
    Stage.STEP: {Event.NEXT_STEP: Stage.STEP, Event.START_BAKING: Stage.BAKING, **_BACK},
    Stage.BAKING: {Event.PROMOTE: Stage.PROMOTED, **_BACK},
    Stage.PROMOTED: {Event.ROLL_BACK: Stage.ROLLING_BACK},
    Stage.ROLLING_BACK: {
        Event.DRAINED: Stage.ROLLED_BACK,
        Event.CLEARED: Stage.SUPERSEDED,
        Event.GIVE_UP: Stage.NEEDS_OPERATOR,
    },
    Stage.NEEDS_OPERATOR: {
        Event.ROLL_BACK: Stage.ROLLING_BACK,
        Event.DRAINED: Stage.ROLLED_BACK,
        Event.CLEARED: Stage.SUPERSEDED,
        Event.START_BAKING: Stage.BAKING,  # stable is gone for good and an operator keeps the candidate
    },
    Stage.ROLLED_BACK: {},
    Stage.REFUSED: {},
    Stage.SUPERSEDED: {},
}

_SERVING = frozenset({Stage.STEP, Stage.BAKING, Stage.PROMOTED})
_JUDGED = _SERVING | {Stage.SHADOW}


def move(stage: Stage, event: Event) -> Stage:
    """The stage after the event. IllegalMove names both."""
    try:
        return TABLE[stage][event]
    except KeyError:
        raise IllegalMove(stage, event) from None


def is_over(stage: Stage) -> bool:
    """Nothing will ever happen to it again."""
    return not TABLE[stage]


def is_judged(stage: Stage) -> bool:
    """The candidate sees requests, so the judge looks at it."""
    return stage in _JUDGED


def is_serving(stage: Stage) -> bool:
    """The candidate's answers go to callers."""
    return stage in _SERVING


def wants_acknowledgement(stage: Stage) -> bool:
    """The stage's clock starts when every worker has its traffic in force."""
    return stage in _JUDGED or stage in (Stage.ROLLING_BACK, Stage.NEEDS_OPERATOR)
