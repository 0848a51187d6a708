"""Which output is the prediction."""

from __future__ import annotations

import pytest

from gateway.backends.base import TensorSpec
from gateway.config.feedback import Feedback
from gateway.errors import LoadError
from gateway.feedback.prediction import Prediction, choose

SCORES = TensorSpec("p", "FP32", (-1, 3))
ONE = TensorSpec("y", "FP32", (-1, 1))
LABEL = TensorSpec("label", "INT64", (-1,))
NAME = TensorSpec("name", "BYTES", (-1, 1))
PICTURE = TensorSpec("picture", "FP32", (-1, 3, 224, 224))


@pytest.mark.parametrize(
    ("wish", "outputs", "expected"),
    [
        ({}, (SCORES,), Prediction(None, "p")),
        ({}, (ONE,), Prediction(None, "y", is_value=True)),
        ({}, (LABEL, SCORES), Prediction("label", "p")),
        ({}, (SCORES, NAME), Prediction("name", "p")),
        ({}, (PICTURE,), Prediction()),
        ({}, (PICTURE, SCORES), Prediction(None, "p")),
        ({"prediction": "none"}, (SCORES,), Prediction()),
        ({"prediction": "probability", "threshold": 0.3}, (ONE,), Prediction(None, "y", False, 0.3)),
        ({"prediction": "value", "output": "label"}, (LABEL, SCORES), Prediction(None, "label", is_value=True)),
        ({"output": "p"}, (LABEL, SCORES), Prediction(None, "p")),
        ({"output": "label", "scores": "p"}, (PICTURE, LABEL, SCORES), Prediction("label", "p")),
        ({"prediction": "class"}, (TensorSpec("p", "FP16", (-1, -1)),), Prediction(None, "p")),
    ],
)
def test_an_output_is_chosen(wish: dict[str, object], outputs: tuple[TensorSpec, ...], expected: Prediction) -> None:
    assert choose(Feedback.model_validate(wish), outputs, batched=True) == expected


@pytest.mark.parametrize(
    ("wish", "outputs", "text"),
    [
        ({"output": "q"}, (SCORES,), r"feedback.output: got 'q', expected one of the outputs: p"),
        ({"scores": "label"}, (LABEL,), "feedback.scores: output 'label' is INT64"),
        ({"prediction": "probability"}, (SCORES,), r"output 'p' is \[-1, 3\], expected one number a row"),
        ({"prediction": "class"}, (PICTURE,), "no output of this version can be a class"),
        ({"prediction": "value", "output": "name"}, (NAME,), "output 'name' is BYTES, which is no value"),
    ],
)
def test_what_cannot_be_is_refused_as_the_version_is_loaded(
    wish: dict[str, object], outputs: tuple[TensorSpec, ...], text: str
) -> None:
    with pytest.raises(LoadError, match=text):
        choose(Feedback.model_validate(wish), outputs, batched=True)


@pytest.mark.parametrize(("written", "enabled"), [(True, True), (False, False), (None, True), ({}, True)])
def test_the_section_may_be_one_word(written: object, enabled: bool) -> None:
    assert Feedback.model_validate(written).enabled is enabled
