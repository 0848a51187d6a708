"""What ONNX Runtime itself answers, in this process, to the same inputs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tests.support.oip import as_bytes

Array = np.ndarray[Any, Any]


@functools.cache
def _session(file: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def answer(models: Path, model: str, inputs: Mapping[str, Array], version: int = 1) -> dict[str, Array]:
    """Outputs by name, in the model's order."""
    session = _session(models / model / str(version) / "model.onnx")
    feed = {
        name: values.astype(object) if values.dtype.kind in "US" else values.copy() for name, values in inputs.items()
    }
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def assert_same(got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Bit for bit, in the same order, with the same shapes and types; text compares as its bytes."""
    assert list(got) == list(expected)
    for name, values in expected.items():
        assert got[name].shape == values.shape, name
        if values.dtype.kind == "O":
            assert list(got[name].ravel()) == [as_bytes(text) for text in values.ravel()], name
        else:
            assert got[name].dtype == values.dtype, name
            assert got[name].tobytes() == np.ascontiguousarray(values).tobytes(), name


def assert_close(got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """As `assert_same`, but rounding may differ where other rows shared the batch."""
    assert list(got) == list(expected)
    for name, values in expected.items():
        assert got[name].shape == values.shape, name
        if values.dtype.kind == "f":
            np.testing.assert_allclose(got[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            assert_same({name: got[name]}, {name: values})
