"""The models that are measured, made here from fixed seeds: the same weights on every machine and every day.

`small_mlp` is so small that the wire is most of a request. `image_mean` reads a 602 kB tensor once, so that moving it
is most of a request; `image_conv` does a little real work on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 30
WIDE = 1000
IMAGE = (3, 224, 224)


@dataclass(frozen=True, slots=True)
class Model:
    """One model: how it is made, and one request's worth of rows for it."""

    name: str
    make: Callable[[], onnx.ModelProto]
    row_shape: tuple[int, ...]
    tolerance: float = 1e-5

    def rows(self, count: int, seed: int = 0) -> np.ndarray:
        """float32 [count, *row_shape], uniform in 0..1."""
        return np.random.default_rng(seed).random((count, *self.row_shape), dtype=np.float32)


def make_small_mlp() -> onnx.ModelProto:
    """30-128-128-1, ReLU between, sigmoid at the end."""
    return make_mlp("small_mlp", (FEATURES, 128, 128, 1))


def make_wide_mlp() -> onnx.ModelProto:
    """30-1024-1024-1024-1: so much work that it runs off the loop thread, on as small a message."""
    return make_mlp("wide_mlp", (FEATURES, 1024, 1024, 1024, 1))


def make_mlp(name_of_model: str, sizes: tuple[int, ...]) -> onnx.ModelProto:
    """ReLU between, sigmoid at the end."""
    rng, nodes, weights, name = np.random.default_rng(0), [], [], "input"
    for i, (a, b) in enumerate(pairwise(sizes)):
        w = (rng.standard_normal((a, b)) / np.sqrt(a)).astype(np.float32)
        weights += [numpy_helper.from_array(w, f"w{i}"), numpy_helper.from_array(np.zeros(b, np.float32), f"b{i}")]
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [f"g{i}"]))
        name = f"g{i}"
        if i < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [name], [f"r{i}"]))
            name = f"r{i}"
    nodes.append(helper.make_node("Sigmoid", [name], ["output"]))
    return _model(name_of_model, nodes, weights, sizes[:1], sizes[-1:])


def make_wide_mean() -> onnx.ModelProto:
    """The mean of 1,000 numbers: a request of some 8 kB of JSON, and no work behind it."""
    nodes = [helper.make_node("ReduceMean", ["input"], ["output"], axes=[1], keepdims=1)]
    return _model("wide_mean", nodes, [], (WIDE,), (1,))


def make_image_mean() -> onnx.ModelProto:
    """The mean of each of the three planes: every byte is read once, and nothing else happens."""
    nodes = [helper.make_node("ReduceMean", ["input"], ["output"], axes=[2, 3], keepdims=0)]
    return _model("image_mean", nodes, [], IMAGE, (3,))


def make_image_conv() -> onnx.ModelProto:
    """One 7x7 convolution with stride 4 to 8 planes, ReLU, mean, 10 outputs."""
    rng = np.random.default_rng(1)
    kernel = (rng.standard_normal((8, 3, 7, 7)) / 12).astype(np.float32)
    dense = (rng.standard_normal((8, 10)) / 3).astype(np.float32)
    weights = [
        numpy_helper.from_array(kernel, "kernel"),
        numpy_helper.from_array(dense, "dense"),
        numpy_helper.from_array(np.zeros(10, np.float32), "bias"),
    ]
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["planes"], kernel_shape=[7, 7], strides=[4, 4]),
        helper.make_node("Relu", ["planes"], ["lit"]),
        helper.make_node("GlobalAveragePool", ["lit"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense", "bias"], ["output"]),
    ]
    return _model("image_conv", nodes, weights, IMAGE, (10,))


def _model(name: str, nodes: list, weights: list, row: tuple[int, ...], answer: tuple[int, ...]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", *row])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", *answer])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


SMALL_MLP = Model("small_mlp", make_small_mlp, (FEATURES,))
WIDE_MLP = Model("wide_mlp", make_wide_mlp, (FEATURES,))
WIDE_MEAN = Model("wide_mean", make_wide_mean, (WIDE,))
IMAGE_MEAN = Model("image_mean", make_image_mean, IMAGE, tolerance=1e-4)
IMAGE_CONV = Model("image_conv", make_image_conv, IMAGE, tolerance=1e-4)
ALL = (SMALL_MLP, WIDE_MEAN, IMAGE_MEAN, IMAGE_CONV)


def write_repository(root: Path, models: tuple[Model, ...] = ALL) -> Path:
    """Writes root/<model>/1/model.onnx for each model; returns root."""
    for model in models:
        folder = root / model.name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(model.make().SerializeToString())
    return root
