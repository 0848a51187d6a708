"""A plan: how a candidate may become a model's stable version, as an operator writes it. Three lines are a safe one:

    model: fraud
    candidate: 2
    strategy: canary

Whatever is not written has a default that errs on the side of stable. What cannot be safe is refused when the plan is
read: no guardrails, a shadow without a comparison, steps that go down.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, field_validator, model_validator

from gateway.config.files import faults_of, read_mapping
from gateway.config.units import expected
from gateway.evidence.combine import Budget
from gateway.rollout.guardrail import DEFAULTS, Factor, Guardrail, Section, Share, share_of
from gateway.routing.fields import ArmName, Duration, Percent, Size, Version, as_tuple
from gateway.routing.route import SHARE_UNIT, RouteError, Sticky

MAX_STEPS = 50
MAX_GUARDRAILS = 50
HARD = "hard"
"""The name that facts which need no comparison have in the risk budget."""
HARD_SHARE = 0.1
"""Of the rollback risk: the rules in `hard` have a chance to fire on a healthy candidate too."""
SPLIT_RISK = 0.001
"""Of freezing a rollout whose split is sound: it costs a look by a person."""

RAISED = 2.0
"""How many times as wide margins are for a step that the policy `raise` lets pass. A bake, and with it the promotion,
keeps the plan's.
"""

_WIDTHS = ((1, 2.0), (5, 1.5), (10, 1.25))  # up to this weight, so wide
_US = 1_000_000
_MINUTE_US = 60 * _US
_DAY_US = 24 * 3600 * _US

Strategy = Literal["shadow", "canary", "blue_green"]
Gate = Literal["traffic", "bake", "promote"]
Count = Annotated[int, Field(ge=1, le=10**12)]


class PlanError(RouteError):
    """`faults`: (path of the field, what is wrong with it)."""


class Step(Section):
    """A stretch with a constant weight."""

    weight: Annotated[Percent, Field(gt=0, lt=100)]
    min_time_us: Annotated[Duration, Field(alias="min_time")] = 5 * _MINUTE_US
    min_requests: Count = 200
    """Settled ones at this weight, of either arm."""
    max_time_us: Annotated[Duration, Field(alias="max_time")] = _DAY_US
    """After it without an answer, `holds.insufficient_evidence` says what then."""
    relax: Factor | None = None
    """Margins are so many times as wide here: a hundredth of the requests needs less certainty than half of them.
    Default: 2 up to 1 %, 1.5 up to 5 %, 1.25 up to 10 %, then 1; and 1 in the last step.
    """
    gate: bool = False
    """An operator opens it."""

    @property
    def units(self) -> int:
        """Of SHARE_UNIT."""
        return round(self.weight * (SHARE_UNIT // 100))


class Shadow(Section):
    """Copies of so many of the requests."""

    percent: Annotated[Percent, Field(gt=0)] = 10
    min_time_us: Annotated[Duration, Field(alias="min_time")] = 5 * _MINUTE_US
    min_pairs: Count = 200
    max_time_us: Annotated[Duration, Field(alias="max_time")] = _DAY_US

    @property
    def units(self) -> int:
        return round(self.percent * (SHARE_UNIT // 100))


class Bake(Section):
    """The last stretch before the promotion, with everything but a control slice on the candidate."""

    time_us: Annotated[Duration, Field(alias="time")] = 10 * _MINUTE_US
    control: Annotated[Percent, Field(lt=50)] | None = None
    """Percent that stable goes on answering, to be compared with. Default: 5, and 0 in a blue-green rollout."""
    min_requests: Count = 200
    max_time_us: Annotated[Duration, Field(alias="max_time")] = _DAY_US


class Risk(Section):
    rollback: Share = 0.01
    """That a candidate which is no worse is ever taken back, over all guardrails and looks."""
    promote: Share = 0.05
    """That one which is worse by a margin is ever promoted."""
    looks: Annotated[int, Field(ge=1, le=10)] = 2
    """In a row that must say worse, before a guardrail takes the candidate back."""


class Holds(Section):
    """What to do when a rollout waits for long."""

    insufficient_evidence: Literal["ask", "extend", "raise", "rollback"] = "ask"
    """raise: a step, never the bake, is passed on margins twice as wide, still on evidence."""
    judge_unavailable: Literal["freeze", "rollback"] = "freeze"
    judge_unavailable_after_us: Annotated[Duration, Field(alias="judge_unavailable_after")] = 30 * _MINUTE_US


class Acceptance(Section):
    """What a version must do before it sees a request."""

    golden: Literal["if_any", "required"] = "if_any"
    tolerance: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-3
    """Largest relative difference of a golden example's outputs."""
    latency: Factor = 3.0
    """Times as slow as stable under a short load."""
    memory_bytes: Annotated[Size | None, Field(alias="memory")] = None
    """It may add to a worker. Default: no limit but the machine's."""
    max_time_us: Annotated[Duration, Field(alias="max_time")] = 10 * _MINUTE_US
    """For loading and for warming, each: later it is refused."""


class Timing(Section):
    """How soon things must happen; the defaults suit one machine and a fleet."""

    stale_us: Annotated[Duration, Field(alias="stale")] = 10 * _US
    """Evidence without a report from every worker for so long is no evidence."""
    rollback_us: Annotated[Duration, Field(alias="rollback")] = _MINUTE_US
    """To weight 0 in every worker; later an operator is called."""
    drain_us: Annotated[Duration, Field(alias="drain")] = 30 * _US
    """For the requests that the candidate has still to answer, when nobody counts them."""


def _guardrails(value: Any) -> Any:
    """What is written, on top of the defaults."""
    if value is None or not isinstance(value, Mapping):
        raise expected("guardrails by name; without any a rollout would go on whatever happens. Leave the field out")
    if not value:
        raise expected("at least one; without any a rollout would go on whatever happens. Leave the field out")
    merged: dict[str, Any] = {}
    for name in (*DEFAULTS, *(name for name in value if name not in DEFAULTS)):
        written = value.get(name, {})
        if written is False or written == "off":
            continue
        usual = DEFAULTS.get(name, {})
        if not isinstance(written, Mapping):
            merged[name] = written
        elif written.get("kind", usual.get("kind")) == usual.get("kind"):
            merged[name] = {**usual, **written}
        else:
            merged[name] = written
    return merged


def _share_or_off(value: Any) -> float | None:
    return None if value in (None, False, "off") else share_of(value)


def _off_if_none(value: float | None) -> float | str:
    return "off" if value is None else value


def _steps(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    return tuple({"weight": step} if isinstance(step, (int, float)) else step for step in value)


def _sequence(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


class Plan(Section):
    """See the module; `describe` in `forecast` says what one will do."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    candidate: Version
    stable: Version | None = None
    """Default: the version that answers when the rollout starts."""
    strategy: Annotated[tuple[Strategy, ...], BeforeValidator(_sequence), Field(min_length=1, max_length=2)]
    steps: Annotated[tuple[Step, ...], BeforeValidator(_steps), Field(min_length=1, max_length=MAX_STEPS)] = (
        Step(weight=1), Step(weight=5), Step(weight=10), Step(weight=25), Step(weight=50),
    )  # fmt: skip
    shadow: Shadow = Shadow()
    bake: Bake = Bake()
    guardrails: Annotated[
        dict[ArmName, Guardrail], BeforeValidator(_guardrails), Field(max_length=MAX_GUARDRAILS, validate_default=True)
    ] = Field(default_factory=lambda: dict(DEFAULTS))  # type: ignore[arg-type]
    sticky: Sticky | None = None
    """Requests with one key stay on one arm. Default: the route's, if it has one."""
    risk: Risk = Risk()
    holds: Holds = Holds()
    acceptance: Acceptance = Acceptance()
    timing: Timing = Timing()
    capacity: Annotated[float | None, BeforeValidator(_share_or_off), PlainSerializer(_off_if_none)] = 0.8
    """Of their time that the candidate's executors may be busy, as reckoned before it gets more traffic; or `off`."""
    gates: Annotated[tuple[Gate, ...], BeforeValidator(as_tuple)] | None = None
    """Where an operator's word is needed: before the first answer for a caller, before baking, before the promotion.
    Default: traffic, when nothing would have been compared by then (blue-green without a shadow, or a shadow alone).
    """
    retain_us: Annotated[Duration, Field(alias="retain")] = _DAY_US
    """How long the version before can be brought back after the promotion."""
    keep_us: Annotated[Duration, Field(alias="keep")] = 30 * _MINUTE_US
    """Of that, how long it stays loaded."""
    breaking: bool = False
    """The candidate's signature may differ from stable's: only blue-green, since nothing can be compared."""
    mode: Literal["act", "observe"] = "act"
    """observe: decides and records, touches nothing."""

    @field_validator("strategy")
    @classmethod
    def _order(cls, strategy: tuple[Strategy, ...]) -> tuple[Strategy, ...]:
        if strategy not in {("shadow",), ("canary",), ("blue_green",), ("shadow", "canary"), ("shadow", "blue_green")}:
            raise expected("shadow, canary or blue_green, or [shadow, canary] or [shadow, blue_green]")
        return strategy

    @model_validator(mode="after")
    def _safe(self) -> Plan:
        if self.stable == self.candidate:
            raise ValueError(f"candidate: got {self.candidate}, which is stable already, expected another version")
        weights = [step.units for step in self.steps]
        if any(a >= b for a, b in pairwise(weights)):
            raise ValueError("steps: got weights that do not rise, expected each above the one before")
        if self.does("canary") and weights[-1] > self.bake_units:
            raise ValueError(
                f"steps: got {weights[-1] / 100:g} % as the last, expected at most the"
                f" {self.bake_units / 100:g} % of the bake: 100 less bake.control"
            )
        if self.does("canary") and self.width(len(self.steps) - 1) > 1.0:
            raise ValueError("steps: got a last one that relaxes the margins, expected relax: 1 there, or none")
        if not self.guardrails:
            raise ValueError("guardrails: all are off; a rollout without any would go on whatever happens")
        if not any(guardrail.action == "rollback" for guardrail in self.guardrails.values()):
            raise ValueError("guardrails: none has the action rollback; one at least must be able to take it back")
        if HARD in self.guardrails:
            raise ValueError(f"guardrails.{HARD}: is the name of the facts that need no comparison, expected another")
        if self.does("shadow") and not self.required(shadow=True):
            raise ValueError("guardrails: a shadow without a required comparison shows nothing; leave disagreement on")
        if not self.required(shadow=False):
            raise ValueError("guardrails: none that is required compares the arms; leave errors or latency on")
        if self.breaking and self.strategy != ("blue_green",):
            raise ValueError("breaking: answers of another form cannot be compared, expected strategy: blue_green")
        for where, low, high in (
            *((f"steps[{i}]", step.min_time_us, step.max_time_us) for i, step in enumerate(self.steps)),
            ("shadow", self.shadow.min_time_us, self.shadow.max_time_us),
            ("bake", self.bake.time_us, self.bake.max_time_us),
        ):
            if low >= high:
                raise ValueError(f"{where}.max_time: is over before the least time is, expected more")
        return self

    # --- questions

    def does(self, part: Strategy) -> bool:
        return part in self.strategy

    @property
    def bake_units(self) -> int:
        """The candidate's weight while it bakes, of SHARE_UNIT."""
        control = self.bake.control
        if control is None:
            control = 0 if self.does("blue_green") else 5
        return SHARE_UNIT - round(control * (SHARE_UNIT // 100))

    @property
    def bakes_alone(self) -> bool:
        """No stable beside it then: what is judged is judged against what stable was before the start."""
        return self.bake_units == SHARE_UNIT

    def width(self, index: int) -> float:
        """How many times as wide margins are in a step."""
        step = self.steps[index]
        if step.relax is not None:
            return step.relax
        if index == len(self.steps) - 1:
            return 1.0
        return next((width for weight, width in _WIDTHS if step.weight <= weight), 1.0)

    def widths(self) -> tuple[float, ...]:
        """All that margins may ever be multiplied by, ascending."""
        found = {1.0, *(self.width(i) for i in range(len(self.steps)))}
        return tuple(sorted({*found, *(RAISED * width for width in found)}))

    def gates_in_force(self) -> tuple[Gate, ...]:
        if self.gates is not None:
            return self.gates
        return ("traffic",) if self.strategy in (("blue_green",), ("shadow",)) else ()

    def required(self, *, shadow: bool) -> tuple[str, ...]:
        """Guardrails that must be shown good, before leaving the shadow or a stage that serves."""
        return tuple(
            name
            for name, guardrail in self.guardrails.items()
            if guardrail.required and guardrail.compares_arms is not shadow
        )

    def budget(self) -> Budget:
        """The risk of going back for nothing, shared out."""
        total = sum(guardrail.weight for guardrail in self.guardrails.values())
        shares = {name: (1.0 - HARD_SHARE) * rail.weight / total for name, rail in self.guardrails.items()}
        return Budget.of(self.risk.rollback, {**shares, HARD: HARD_SHARE})

    def document(self) -> dict[str, Any]:
        """As JSON, with everything that is in force; reading it gives this plan again."""
        document = self.model_dump(mode="json", by_alias=True)
        return {**document, "guardrails": {**dict.fromkeys(DEFAULTS, "off"), **document["guardrails"]}}

    def digest(self) -> str:
        """Of all that is in force: a plan that changes is another plan."""
        text = json.dumps(self.document(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def parse(document: Any) -> Plan:
    """PlanError names each faulty field, what came and what was expected."""
    try:
        return Plan.model_validate(document)
    except ValidationError as error:
        raise PlanError(faults_of(error, document, Plan)) from None


def load(path: Path) -> Plan:
    """A YAML or JSON file. ConfigError or PlanError."""
    return parse(read_mapping(path))
