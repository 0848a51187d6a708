"""A guardrail: what is measured, how much worse is too much, what then. Fixed before the rollout starts.

Each kind has its own words for "too much", all relative to the stable version that answers at the same time:
`tolerated` is what the candidate may be worse by without being taken back, `margin` what it must be shown to stay below
before it gets more traffic. In between nothing is decided. `weight` is its share of the risk of going back for nothing.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.config.units import expected
from gateway.routing.fields import Duration, as_tuple

Action = Literal["rollback", "pause", "alert"]
G = TypeVar("G")


def share_of(value: Any) -> float:
    """0.005 or "0.5 %"."""
    number = value
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value, re.ASCII)):
        number = float(found[1]) / 100.0
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0.0 < number < 1.0:
        raise expected('a share between 0 and 1, such as 0.005 or "0.5 %"')
    return float(number)


def _number(value: Any) -> Any:
    return float(value) if type(value) is int else value


Share = Annotated[float, BeforeValidator(share_of)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Factor = Annotated[Number, Field(ge=1.0, le=100.0)]
Above = Annotated[Number, Field(gt=0.0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Guardrail(Section):
    action: Action = "rollback"
    weight: Annotated[Number, Field(gt=0.0, le=1000.0)] = 1.0
    required: bool = False
    """It must be shown good before the candidate gets more traffic."""

    compares_arms: ClassVar[bool] = True
    """It reads requests that were drawn for one of the arms: nothing to say in shadow."""
    is_late: ClassVar[bool] = False
    """Its values come after the answer, perhaps long after: it is read on after the promotion too."""


class Errors(_Guardrail):
    """Requests that the version failed: backend errors, what its run refused, timeouts, broken answers. Callers' faults
    that show before a run do not count, nor does load that is shed.
    """

    kind: Literal["errors"] = "errors"
    required: bool = True
    tolerated: Factor = 1.1
    """Times as often as stable."""
    margin: Factor = 2.0
    negligible: Share = 0.005
    """Fewer failures than this share are good enough whatever stable's are: else a service without any never went on.
    """

    @model_validator(mode="after")
    def _ordered(self) -> Errors:
        return _margin_above(self, self.tolerated, self.margin)


class Broken(_Guardrail):
    """Answers with NaN or infinity, of a wrong shape, or the same for everybody."""

    kind: Literal["broken"] = "broken"
    tolerated: Factor = 1.0


class Latency(_Guardrail):
    """How long the version takes to answer, at stable's own quantiles."""

    kind: Literal["latency"] = "latency"
    required: bool = True
    tolerated: Factor = 1.1
    """Times as slow as stable."""
    margin: Factor = 1.5
    floor_us: Annotated[Duration, Field(alias="floor", ge=0)] = 1000
    """Who is slower by less is not slower: twice as slow is nothing to callers where it is 0.2 ms instead of 0.1."""
    quantiles: Annotated[
        tuple[Share, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=8)
    ] = (0.5, 0.9, 0.95, 0.99, 0.999)  # fmt: skip
    shown: Share = 0.95
    """Up to this quantile it must be shown not to be slower by the margin. Further out it would take days."""

    @model_validator(mode="after")
    def _ordered(self) -> Latency:
        if list(self.quantiles) != sorted(set(self.quantiles)):
            raise ValueError("quantiles: got values out of order, expected them ascending, each once")
        if self.required and self.shown < self.quantiles[0]:
            raise ValueError(f"shown: got {self.shown:g}, expected at least the first quantile, {self.quantiles[0]:g}")
        return _margin_above(self, self.tolerated, self.margin)


class Distribution(_Guardrail):
    """How the answers spread over their bins or classes, against stable at the same time."""

    kind: Literal["distribution"] = "distribution"
    tolerated: Factor = 1.5
    """In every bin the candidate's share is between 1/tolerated and tolerated times stable's."""
    output: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Which value of an answer: the name of its tensor, or `tensor[2]`. Default: the one that says most."""
    required: Literal[False] = False  # that a distribution is the same cannot be shown, only that it is not


class Disagreement(_Guardrail):
    """Shadow pairs whose answers differ: in the class, or else by more than `difference` in some value."""

    kind: Literal["disagreement"] = "disagreement"
    required: bool = True
    limit: Share = 0.2
    difference: Above = 0.1
    """Relative. A retrained model never gives the same digits."""

    compares_arms: ClassVar[bool] = False


class Correctness(_Guardrail):
    """Shadow pairs that got a label by feedback: the accuracy that the candidate loses."""

    kind: Literal["correctness"] = "correctness"
    loss: Share = 0.01

    compares_arms: ClassVar[bool] = False
    is_late: ClassVar[bool] = True


class Metric(_Guardrail):
    """A number that feedback reports for a request: conversion (0 or 1), rating, revenue up to a cap."""

    kind: Literal["metric"] = "metric"
    centre: Number
    """What stable has, about: a bad guess costs time, never the guarantee."""
    low: Number = 0.0
    high: Number = 1.0
    better: Literal["higher", "lower"] = "higher"
    tolerated: Annotated[Number, Field(ge=0.0)]
    """In the metric's units."""
    margin: Above | None = None
    """Default: twice what is tolerated."""

    is_late: ClassVar[bool] = True

    @model_validator(mode="after")
    def _ordered(self) -> Metric:
        if not self.low <= self.centre <= self.high or self.low >= self.high:
            raise ValueError(f"centre: got {self.centre:g}, expected low <= centre <= high, low < high")
        if not self.tolerated < self.limit < self.high - self.low:
            raise ValueError(
                f"margin: got {self.limit:g}, expected more than tolerated ({self.tolerated:g})"
                f" and less than high - low ({self.high - self.low:g})"
            )
        return self

    @property
    def limit(self) -> float:
        return 2.0 * self.tolerated if self.margin is None else self.margin


class Cost(_Guardrail):
    """Execution time per row, by its mean."""

    kind: Literal["cost"] = "cost"
    action: Action = "alert"
    tolerated: Annotated[Number, Field(ge=0.0, le=100.0)] = 0.5
    """Of stable's mean before the start: 0.5 is half as much again."""
    required: Literal[False] = False


class Fairness(_Guardrail):
    """An event (a positive answer, a failure) by group of callers: in no group more often than stable, beyond what is
    tolerated.
    """

    kind: Literal["fairness"] = "fairness"
    action: Action = "pause"
    event: Annotated[str, Field(min_length=1, max_length=100)] = "is refused"
    groups: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=2, max_length=50)]
    tolerated: Factor = 1.25
    required: Literal[False] = False


Guardrail = Annotated[
    Errors | Broken | Latency | Distribution | Disagreement | Correctness | Metric | Cost | Fairness,
    Field(discriminator="kind"),
]

DEFAULTS: dict[str, dict[str, Any]] = {
    "errors": {"kind": "errors", "weight": 3.0},
    "latency": {"kind": "latency", "weight": 2.0},
    "broken": {"kind": "broken", "weight": 2.0},
    "outputs": {"kind": "distribution", "weight": 2.0},
    "disagreement": {"kind": "disagreement", "weight": 1.0},
}
"""What a plan has that says nothing: each may be changed field by field, or be `off`."""


def _margin_above(guardrail: G, tolerated: float, margin: float) -> G:
    if margin <= tolerated:
        raise ValueError(f"margin: got {margin:g}, expected more than tolerated ({tolerated:g})")
    return guardrail
