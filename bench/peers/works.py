"""What is asked of every peer: four models, rows for them from fixed seeds, and what ONNX Runtime itself answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench import models

WORDS = 200
TEXTS = 4
LARGE = (512, 1024, 1024, 10)


@dataclass(frozen=True, slots=True)
class Work:
    """One model with one input `input` and one output `output`, and its rows."""

    name: str
    title: str
    row_shape: tuple[int, ...]
    datatype: str  # of the input; the output is FP32 [-1, outputs]
    outputs: int
    n_rows: int  # different ones, sent in turn
    quick: tuple[int, ...]
    kept: tuple[int, ...]
    full: tuple[int, ...]  # requests at once

    def onnx(self) -> bytes:
        return _onnx(self.name)

    def rows(self) -> list[np.ndarray]:
        """Each [1, *row_shape]: float32, or bytes as objects."""
        rng = np.random.default_rng(7)
        if self.datatype == "BYTES":
            drawn = rng.integers(0, WORDS + 10, (self.n_rows, *self.row_shape))  # some are not in the vocabulary
            texts = np.array([f"word-{i:03}".encode() for i in range(WORDS + 10)], object)
            return [texts[row][np.newaxis] for row in drawn]
        return [rng.random((1, *self.row_shape), dtype=np.float32) for _ in range(self.n_rows)]

    def expected(self) -> list[np.ndarray]:
        """The right answer to each row, [1, outputs]."""
        session = onnxruntime.InferenceSession(self.onnx(), providers=["CPUExecutionProvider"])
        text = self.datatype == "BYTES"
        return [session.run(None, {"input": row.astype(str).astype(object) if text else row})[0] for row in self.rows()]


def write_repository(root: Path, works: tuple[Work, ...]) -> Path:
    """root/<work>/1/model.onnx for each; returns root."""
    for work in works:
        folder = root / work.name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(work.onnx())
    return root


@cache
def _onnx(name: str) -> bytes:
    made = {
        "small": models.make_small_mlp,
        "large": _make_large,
        "image": models.make_image_conv,
        "text": _make_text,
    }[name]()
    return bytes(made.SerializeToString())


def _make_large() -> onnx.ModelProto:
    """512-1024-1024-10: 1.6 million weights, 6.3 MB, read once per batch."""
    return models.make_mlp("large", LARGE)


def _make_text() -> onnx.ModelProto:
    """Four words a row; each is looked up, becomes eight numbers, and an MLP 32-16-1 reads them."""
    rng = np.random.default_rng(3)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32), name)

    words = [f"word-{i:03}" for i in range(WORDS)]
    nodes = [
        helper.make_node(
            "LabelEncoder", ["input"], ["ids"], domain="ai.onnx.ml", keys_strings=words,
            values_int64s=list(range(WORDS)), default_int64=WORDS,
        ),
        helper.make_node("Gather", ["table", "ids"], ["looked_up"]),
        helper.make_node("Reshape", ["looked_up", "flat"], ["features"]),
        helper.make_node("Gemm", ["features", "w0", "b0"], ["g0"]),
        helper.make_node("Relu", ["g0"], ["r0"]),
        helper.make_node("Gemm", ["r0", "w1", "b1"], ["g1"]),
        helper.make_node("Sigmoid", ["g1"], ["output"]),
    ]  # fmt: skip
    initializers = [
        numpy_helper.from_array(rng.standard_normal((WORDS + 1, 8)).astype(np.float32), "table"),
        numpy_helper.from_array(np.array([-1, 8 * TEXTS], np.int64), "flat"),
        weights("w0", 8 * TEXTS, 16), numpy_helper.from_array(np.zeros(16, np.float32), "b0"),
        weights("w1", 16, 1), numpy_helper.from_array(np.zeros(1, np.float32), "b1"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info("input", TensorProto.STRING, ["n", TEXTS])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 1])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


SMALL = Work(
    "small", "30 floats, MLP 30-128-128-1", (30,), "FP32", 1, 64, (16,), (1, 16, 128, 1024), (1, 16, 128, 1024)
)
LARGE_MLP = Work(
    "large", "512 floats, MLP 512-1024-1024-10", (512,), "FP32", 10, 64, (16,), (1, 16, 128), (1, 16, 128, 1024)
)
IMAGE = Work("image", "602 kB image, convolution", models.IMAGE, "FP32", 10, 8, (4,), (1, 16), (1, 16, 128))
TEXT = Work("text", "4 strings, embedding and MLP", (TEXTS,), "BYTES", 1, 64, (16,), (1, 16, 128), (1, 16, 128, 1024))
ALL = (SMALL, LARGE_MLP, IMAGE, TEXT)
