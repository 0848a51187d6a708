"""A report as JSON, on either port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
)

from gateway.config.files import faults_in
from gateway.errors import InvalidArgument
from gateway.feedback.report import HTTP_STATUS, MAX_REPORTS, Report, Result, Status

MAX_TOKEN = 8192


class ReportForm(BaseModel):
    """How one answer turned out."""

    model_config = ConfigDict(extra="forbid")

    request: Annotated[str, Field(max_length=MAX_TOKEN)]
    """The answer's parameter `gateway_request`, as it came."""
    row: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of a request with several rows: which."""
    label: StrictBool | StrictInt | StrictFloat | StrictStr | None = None
    """What is true: a class by number or name, or a number."""
    values: dict[str, StrictInt | StrictFloat | StrictBool] = {}
    """What came of it: converted, rating, revenue."""
    groups: list[str] = []
    """Whom it was about, for fairness."""

    def report(self) -> Report:
        values = {name: float(value) for name, value in self.values.items()}
        return Report(self.request, self.row, self.label, values, tuple(self.groups))


class ReportsForm(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reports: Annotated[list[ReportForm], Field(min_length=1, max_length=MAX_REPORTS)]

    def all(self) -> list[Report]:
        return [form.report() for form in self.reports]


class ResultAnswer(BaseModel):
    status: str
    error: str = ""


class ResultsAnswer(BaseModel):
    """In the order of the reports."""

    results: list[ResultAnswer]


def _which(document: Any) -> str:
    """What is wrong is said of the form that was meant, not of both."""
    return (
        "many" if isinstance(document, ReportsForm) or (isinstance(document, dict) and "reports" in document) else "one"
    )


OneOrMany = Annotated[Annotated[ReportsForm, Tag("many")] | Annotated[ReportForm, Tag("one")], Discriminator(_which)]


def parse(body: bytes) -> list[Report]:
    """{"reports": [...]}, or one report alone. InvalidArgument names the field."""
    try:
        if b'"reports"' in body:
            return ReportsForm.model_validate_json(body).all()
        return [ReportForm.model_validate_json(body).report()]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise InvalidArgument(f"body: is no JSON: {first.get('ctx', {}).get('error', first['msg'])}") from None
        ((field, text),) = faults_in([first], orjson.loads(body))
        raise InvalidArgument(f"{field or 'body'}: {text.replace('`field: value` lines', 'an object')}") from None


def answer(results: Sequence[Result]) -> tuple[int, dict[str, Any]]:
    """HTTP status and body: 200 unless nothing was taken; then what the first was refused for."""
    document: dict[str, Any] = {"results": [{"status": r.status.name.lower(), "error": r.error} for r in results]}
    if any(r.status in (Status.ACCEPTED, Status.DUPLICATE) for r in results):
        return 200, document
    first = results[0]
    return HTTP_STATUS[first.status], {"error": first.error, **document}
