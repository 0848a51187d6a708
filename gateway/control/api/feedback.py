"""/v1/feedback: how answers turned out, handed in and shown."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from gateway.control.answers import Refusal
from gateway.control.api.common import Shared, models_here, refusals
from gateway.control.problems import Problem
from gateway.feedback import form
from gateway.feedback.form import ReportsForm, ResultsAnswer
from gateway.feedback.scores import Scores, refused, scores
from gateway.feedback.tally import hour_of

router = APIRouter(prefix="/v1/feedback", tags=["feedback"])

Since = Annotated[
    float | None,
    Query(
        gt=0, description="Of answers asked for in the last so many seconds; whole hours. Default: all that is kept."
    ),
]
_NOT_TAKEN: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": f"Nothing was taken; the first report is {what}."}
    for status, what in ((400, "no token"), (403, "forged"), (404, "another gateway's"), (410, "too late"))
}


@router.post(
    "",
    summary="Report how answers turned out: one, or many at once",
    response_model=ResultsAnswer,
    responses={**_NOT_TAKEN, **refusals(422)},
)
def report(plane: Shared, response: Response, body: form.OneOrMany) -> object:
    """Each report has its own result, in order; 200 when any of them was taken. What came before counts once."""
    reports = body.all() if isinstance(body, ReportsForm) else [body.report()]
    status, document = form.answer(plane.desk.ask(reports))
    if status != 200:
        raise Problem(status, document["error"], results=document["results"])
    return document


@router.get("", summary="How the versions of all models do", responses=refusals())
def list_feedback(plane: Shared, since: Since = None) -> list[Scores]:
    sums = plane.store.feedback_sums(since_hour=_hour(since))
    models = sorted({model for model, _, _, _ in sums if model})
    return [scores(model, sums) for model in models]


@router.get("/{model}", summary="How the versions of a model do", responses=refusals(404))
def show_feedback(plane: Shared, model: str, since: Since = None) -> Scores:
    sums = plane.store.feedback_sums(model, _hour(since))
    found = scores(model, sums)
    if not found.versions and not any(record.model == model for record in plane.store.versions(model)):
        raise Problem(404, f"model {model!r}: there is none; models here: {models_here(plane)}")
    return found.model_copy(update={"refused": refused(sums)})


def _hour(since: float | None) -> int | None:
    return None if since is None else hour_of(time.time() - since)
