"""model.yaml's `feedback:` section: whether answers carry a token by which callers report how they turned out, and what
of the outputs is the prediction that a label is compared with. `feedback: true` is enough for a classifier.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Kind = Literal["auto", "class", "probability", "value", "none"]


def _number(value: Any) -> Any:
    return float(value) if type(value) is int else value


class Feedback(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    enabled: bool = True

    prediction: Kind = "auto"
    """class: the highest of a row of scores, or an output that names it. probability: one number a row, of class 1.
    value: a number, for regression. none: the token says nothing of the outputs. auto: an output of whole numbers or
    text with one element a row is the class; else more than one score a row are classes; else it is a value.
    """

    output: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The output that names the class, or has the scores or the value. By default the first that fits."""

    scores: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Beside an output that names the class, the one with the probabilities: for calibration."""

    threshold: Annotated[float, BeforeValidator(_number), Field(ge=0.0, le=1.0)] = 0.5
    """With `probability`: from here on the class is 1."""

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, data: Any) -> Any:
        return {"enabled": data} if isinstance(data, bool) else {} if data is None else data
