"""Arrays bound beforehand: the same answers, for those models only of which that is certain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.backends.base import Backend
from gateway.backends.onnx import load
from gateway.config.model import ModelConfig
from tests.support import onnxmodels


def warmed(folder: Path, content: bytes, settings: ModelConfig | None = None) -> Backend:
    backend = load(onnxmodels.store(folder, "fraud", 3, content), settings or ModelConfig())
    backend.warm_up()
    return backend


def test_a_run_in_its_own_arrays_answers_as_any_other(tmp_path: Path) -> None:
    backend = warmed(tmp_path, onnxmodels.linear())
    rng = np.random.default_rng(0)
    assert sorted(backend.buffers()) == list(range(1, 9))
    for _ in range(3):
        for rows, inputs in backend.buffers().items():
            values = rng.random((rows, 4), dtype=np.float32)
            (expected,) = backend.run([values])
            inputs[0][...] = values
            (got,) = backend.run(inputs)
            assert got.shape == expected.shape
            assert (got == expected).all()


def test_two_inputs_and_outputs_of_another_datatype(tmp_path: Path) -> None:
    backend = warmed(tmp_path, onnxmodels.sum_and_difference())
    inputs = backend.buffers()[1]
    inputs[0][...], inputs[1][...] = 7, 5
    assert [array.tolist() for array in backend.run(inputs)] == [[[12] * 16], [[2] * 16]]


def test_no_more_sizes_than_a_batch_may_have(tmp_path: Path) -> None:
    settings = ModelConfig.model_validate({"batching": {"max_batch_size": 2}})
    assert sorted(warmed(tmp_path, onnxmodels.linear(), settings).buffers()) == [1, 2]


def test_without_a_batch_dimension_there_is_one(tmp_path: Path) -> None:
    backend = warmed(tmp_path, onnxmodels.identity("INT64", shape=(3,)))
    assert list(backend.buffers()) == [1]
    inputs = backend.buffers()[1]
    inputs[0][...] = [1, 2, 3]
    assert backend.run(inputs)[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "content",
    [
        onnxmodels.identity("BYTES"),
        onnxmodels.identity("BF16"),
        onnxmodels.identity("FP32", shape=("N", "M")),
        onnxmodels.identity("FP32", shape=("N", 1 << 18)),
    ],
    ids=["text", "BF16", "free size", "large"],
)
def test_what_cannot_be_bound_runs_as_before(tmp_path: Path, content: bytes) -> None:
    assert warmed(tmp_path, content).buffers() == {}


def test_a_failing_bound_run_is_tried_as_any_other(tmp_path: Path) -> None:
    backend = warmed(tmp_path, onnxmodels.linear())
    inputs = backend.buffers()[1]
    inputs[0][...] = 1
    (expected,) = backend.run([inputs[0]])

    class Broken:
        def run(self) -> None:
            raise RuntimeError("ONNX Runtime wants another shape")

    backend._bound[id(inputs)] = Broken()  # type: ignore[attr-defined]
    assert (backend.run(inputs)[0] == expected).all()


def test_a_closed_version_holds_none(tmp_path: Path) -> None:
    backend = warmed(tmp_path, onnxmodels.linear())
    backend.close()
    assert backend.buffers() == {}
