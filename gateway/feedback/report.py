"""One report: the token that says which answer, and what is told about it. Checked here, and taken apart into the facts
that are kept. Pure; the clock is a parameter.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.errors import Code
from gateway.native import receipt
from gateway.native.receipt import TokenError

MAX_REPORTS = 10_000
"""In one call: a second's work of the store."""
MAX_AGE_S = 30 * 24 * 3600.0
"""Of the answer. What is older is forgotten, and could be counted twice."""
MAX_VALUES = 32
MAX_GROUPS = 16
MAX_NAME = 100
MAX_LABEL = 200

LABEL, VALUE, GROUPS = "label", "value", "groups"
"""Kinds of facts. The last is that of a request's groups alone: what was predicted for whom."""


class Status(enum.IntEnum):
    """As in proto/feedback.proto."""

    ACCEPTED = 1
    DUPLICATE = 2
    MALFORMED = 3
    FORGED = 4
    UNKNOWN = 5
    LATE = 6
    INVALID = 7


HTTP_STATUS = {
    Status.ACCEPTED: 200,
    Status.DUPLICATE: 200,
    Status.MALFORMED: 400,
    Status.FORGED: 403,
    Status.UNKNOWN: 404,
    Status.LATE: 410,
    Status.INVALID: 422,
}
CODE = {
    Status.MALFORMED: Code.INVALID_ARGUMENT,
    Status.FORGED: Code.PERMISSION_DENIED,
    Status.UNKNOWN: Code.NOT_FOUND,
    Status.LATE: Code.OUT_OF_RANGE,
    Status.INVALID: Code.INVALID_ARGUMENT,
}
_OF_TOKEN = {"malformed": Status.MALFORMED, "forged": Status.FORGED, "unknown": Status.UNKNOWN}

Label = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Report:
    request: str
    row: int = 0
    label: Label | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    status: Status
    error: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing told about one row of one answer; the same (id, row, kind, name) is kept once."""

    id: bytes
    row: int
    kind: str
    name: str
    model: str
    version: str
    """That it was drawn for."""
    answered: str
    """Whose answer it was: another one's after a fallback."""
    arm: str
    stage: int
    weight: int
    """Of the arm, in 1/10,000."""
    unit: bytes | None
    """The sticky key, hashed."""
    arrived_at: float
    at: float
    predicted: str | None
    """A class, by number or name."""
    score: float | None
    """The confidence in that; without a class, the value."""
    label: str | None
    value: float | None
    groups: str
    """JSON list; empty: none."""

    @property
    def key(self) -> tuple[bytes, int, str, str]:
        return self.id, self.row, self.kind, self.name


def read(report: Report, key: bytes, now_s: float) -> list[Fact] | Result:
    """Its facts, or why it is refused."""
    try:
        said = receipt.read(key, report.request)
    except TokenError as error:
        return Result(_OF_TOKEN[error.reason], f"request: {error}")
    id, arrived_s, unit, model, version, arm, stage, weight, answered, n_rows, predictions = said
    if now_s - arrived_s > MAX_AGE_S:
        days = (now_s - arrived_s) / 86400.0
        return Result(
            Status.LATE, f"request: was answered {days:.0f} days ago, expected {MAX_AGE_S / 86400:.0f} at most"
        )
    if fault := _fault(report, n_rows):
        return Result(Status.INVALID, fault)
    told = predictions[report.row] if report.row < len(predictions) else None
    predicted = None if told is None or told[0] is None else str(told[0])
    score = None if told is None or math.isnan(told[1]) else told[1]
    groups = json.dumps(sorted(set(report.groups))) if report.groups else ""

    def fact(kind: str, name: str = "", label: str | None = None, value: float | None = None) -> Fact:
        drawn = (model, version, answered, arm, stage, weight, unit, arrived_s, now_s)
        return Fact(id, report.row, kind, name, *drawn, predicted, score, label, value, groups)

    facts = [fact(VALUE, name, value=float(value)) for name, value in report.values.items()]
    if report.label is not None:
        facts.append(fact(LABEL, label=text_of(report.label)))
    if groups:
        facts.append(fact(GROUPS))
    return facts


def text_of(label: Label) -> str:
    """As it is compared with a predicted class: true is 1, and 3.0 is 3."""
    if isinstance(label, bool):
        return str(int(label))
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return label if isinstance(label, str) else repr(label)


def _fault(report: Report, n_rows: int) -> str:
    """What is wrong with what it tells; "" when nothing is."""
    if not 0 <= report.row < n_rows:
        expected = f"0 to {n_rows - 1}: the request had {n_rows} rows" if n_rows > 1 else "0: the request had 1 row"
        return f"row: got {report.row}, expected {expected}"
    if report.label is None and not report.values and not report.groups:
        return "got neither label, values nor groups, expected one of them"
    if isinstance(report.label, float) and not math.isfinite(report.label):
        return f"label: got {report.label}, expected a finite number"
    if isinstance(report.label, str) and (fault := _text_fault("label", report.label, MAX_LABEL)):
        return fault
    if len(report.values) > MAX_VALUES:
        return f"values: got {len(report.values)}, expected {MAX_VALUES} at most"
    for name, value in report.values.items():
        if fault := _text_fault("values", name):
            return fault
        if not math.isfinite(value):
            return f"values.{name}: got {value}, expected a finite number; leave out what is not known"
    if len(report.groups) > MAX_GROUPS:
        return f"groups: got {len(report.groups)}, expected {MAX_GROUPS} at most"
    return next((fault for name in report.groups if (fault := _text_fault("groups", name))), "")


def _text_fault(field_name: str, text: str, limit: int = MAX_NAME) -> str:
    if not 0 < len(text) <= limit:
        return f"{field_name}: got {len(text)} characters, expected 1 to {limit}"
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        return f"{field_name}: got {text!r}, which holds a character that is no text"
    return ""
