"""Right and wrong answers told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway import pb
from gateway.loadtest import check
from gateway.loadtest.measure import frame


def response(values: list[float], version: str = "1", shape: tuple[int, ...] = (1, 2)) -> Any:
    made = pb.inference.ModelInferResponse(model_name="m", model_version=version)
    made.outputs.add(name="out", datatype="FP32", shape=shape)
    made.raw_output_contents.append(np.array(values, np.float32).tobytes())
    return made


def verdict_of(*answers: tuple[int, Any, int], unkept: int = 0) -> check.Verdict:
    seen = [(which, frame(answer.SerializeToString()), count) for which, answer, count in answers]
    references = {("1"): response([0.5, 0.5]), "2": response([0.1, 0.9], "2")}
    return check.answers(
        seen, unkept, pb.inference.ModelInferResponse.FromString, lambda which, version: references.get(version)
    )


def test_last_bits_of_a_float_are_no_fault_and_more_is() -> None:
    verdict = verdict_of((0, response([0.5, 0.50001]), 7), (0, response([0.5, 0.6]), 2))
    assert (verdict.right, verdict.wrong) == (7, 2)
    assert verdict.example == "request 0, version 1: output 'out': got 0.6, expected 0.5"


def test_each_answer_is_held_against_its_own_version() -> None:
    verdict = verdict_of((0, response([0.5, 0.5]), 3), (0, response([0.1, 0.9], "2"), 4))
    assert (verdict.right, verdict.wrong, verdict.by_version) == (7, 0, {"1": 3, "2": 4})


def test_a_version_that_cannot_be_asked_leaves_its_answers_unchecked() -> None:
    verdict = verdict_of((0, response([0.5, 0.5], "9"), 3), unkept=2)
    assert (verdict.right, verdict.wrong, verdict.unchecked) == (0, 0, 5)


def test_another_shape_is_wrong() -> None:
    assert verdict_of((0, response([0.5, 0.5], shape=(2, 1)), 1)).wrong == 1


@pytest.mark.parametrize("framed", [b"", b"\0\0\0\0\x09abc", b"\1\0\0\0\0"])
def test_bytes_that_are_no_answer_are_wrong(framed: bytes) -> None:
    verdict = check.answers([(0, framed, 1)], 0, pb.inference.ModelInferResponse.FromString, lambda *_: None)
    assert verdict.wrong == 1


def test_nan_equals_nan() -> None:
    assert check.difference(response([float("nan"), 1.0]), response([float("nan"), 1.0])) == ""
    assert check.difference(response([float("nan"), 1.0]), response([0.0, 1.0])) != ""
