"""The repository behind the fixture `server`, and models whose cost and failures a test can command."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.support import onnxmodels as models
from tests.support.onnxmodels import build, node, store, tensor

IDENTITIES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")

TABLE_SIZE = 1000
"""Entries of `patient`'s table: a row with a larger index makes the whole batch fail."""

N_DRAWS = 8
"""Random numbers per run: so many that no two runs are alike, as a gateway that looks for rows that mix would think."""


def store_odd_models(root: Path) -> None:
    """One model per behaviour; demo models come beside them."""
    for datatype in IDENTITIES:
        store(root, f"identity_{datatype.lower()}", 1, models.identity(datatype))
    store(root, "identity_bytes", 1, models.identity("BYTES", ("N", 2)))
    store(root, "bf16_double", 1, models.bf16_double())
    store(root, "sum_and_difference", 1, models.sum_and_difference())
    store(root, "linear", 1, models.linear())
    store(root, "linear_of_8", 1, models.linear(), "batching: {max_batch_size: 8}")
    store(root, "lookup", 1, models.lookup())
    store(root, "parse_number", 1, models.parse_number())
    store(root, "no_batch", 1, models.identity("FP32", (2, 3)), "batching: {max_batch_size: 0}")
    store(root, "scalar", 1, models.identity("FP32", ()))
    store(root, "fixed_batch", 1, models.identity("FP32", (3, 4)))
    store(root, "total", 1, models.total())
    store(root, "row_sums", 1, row_sums())
    store(root, "wide", 1, many_inputs(6))
    store(root, "zipmap", 1, zipmap())
    store(root, "versions", 1, models.linear(4, 2))
    store(root, "versions", 3, models.linear(4, 5))
    store(root, "named", 1, constant(), "batching: {max_batch_size: 0}")
    store(root, "identity_wide", 1, models.identity("FP32", ("N", "length")))


def copy_demo_models(demo: Path, root: Path) -> None:
    for folder in demo.glob("[!.]*"):
        shutil.copytree(folder, root / folder.name)


def row_sums(kind: str = "ReduceSum") -> bytes:
    """y[N] = the sum of each row of x[N, any length]: the inner dimension is free, so only equal lengths may join."""
    return build(
        [node(kind, ["x", "axis"], ["y"], keepdims=0)],
        [tensor("x", shape=("N", "length"))],
        [tensor("y", shape=("N",))],
        {"axis": np.array([1], np.int64)},
    )


def many_inputs(n: int) -> bytes:
    """y0 = x0, y1 = x1 + x0, y2 = x2 + x1, ...: more tensors than any object holds inline."""
    first = [node("Identity", ["x0"], ["y0"])]
    return build(
        first + [node("Add", [f"x{i}", f"x{i - 1}"], [f"y{i}"]) for i in range(1, n)],
        [tensor(f"x{i}", shape=("N", 2)) for i in range(n)],
        [tensor(f"y{i}", shape=("N", 2)) for i in range(n)],
    )


def constant() -> bytes:
    """Text in, several texts out: "" and text with NUL and beyond ASCII come from the model itself."""
    return build(
        [node("Identity", ["x"], ["y"]), node("Identity", ["texts"], ["z"])],
        [tensor("x", "BYTES", (1,))],
        [tensor("y", "BYTES", (1,)), tensor("z", "BYTES", (3,))],
        {"texts": np.array(["", "a\0b", "Füße 語"], object)},
    )


def zipmap() -> bytes:
    """A classifier as skl2onnx exports it by default: probabilities as a list of maps."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    rows = np.array([[0, 0], [0, 1], [4, 4], [4, 5]], np.float32)
    classifier = LogisticRegression().fit(rows, [3, 3, 8, 8])
    converted = convert_sklearn(
        classifier, initial_types=[("x", FloatTensorType([None, 2]))], target_opset={"": 17, "ai.onnx.ml": 3}
    )
    return bytes(converted.SerializeToString())


def patient(base_turns: int = 400, is_ragged: bool = False) -> bytes:
    """A model on command: `turns` makes it slow, `index` makes it fail, `run` tells who ran together.

    turns[N], index[N] INT64 -> y[N] = index, run[N, N_DRAWS] = numbers drawn once for each run. The run takes as long
    as the largest of `turns` says, on top of base_turns (some 2 us each), which keep it off the loop's own thread. An
    index of TABLE_SIZE or more makes the batch fail (INVALID_ARGUMENT). `is_ragged` adds x[N, any length] FP32, whose
    sum over each row is added to y.
    """
    ragged = [node("ReduceSum", ["x", "last"], ["total"], keepdims=0), node("Add", ["entry", "total"], ["sum_of_row"])]
    x = [tensor("x", shape=("N", "length"))]
    width = 32
    shape = (width, width)
    body = helper.make_graph(
        [node("MatMul", ["before", "rotation"], ["after"]), node("Identity", ["go_on"], ["still"])],
        "turn",
        [tensor("i", "INT64", ()), tensor("go_on", "BOOL", ()), tensor("before", "FP32", shape)],
        [tensor("still", "BOOL", ()), tensor("after", "FP32", shape)],
    )
    return build(
        [
            node("Gather", ["table", "index"], ["entry"]),
            *(ragged if is_ragged else []),
            node("ReduceMax", ["turns"], ["most"], keepdims=0),
            node("Add", ["most", "base"], ["count"]),
            node("Loop", ["count", "true", "start"], ["end"], body=body),
            node("ReduceSum", ["end", "axes"], ["sum"], keepdims=0),
            node("Sub", ["sum", "width"], ["nothing"]),
            node("Add", ["sum_of_row" if is_ragged else "entry", "nothing"], ["y"]),
            node("RandomUniform", [], ["draw"], shape=[1, N_DRAWS], dtype=TensorProto.FLOAT, high=1e6),
            node("Shape", ["index"], ["rows"]),
            node("Concat", ["rows", "draws"], ["all"], axis=0),
            node("Expand", ["draw", "all"], ["run"]),
        ],
        [tensor("turns", "INT64", ("N",)), tensor("index", "INT64", ("N",)), *(x if is_ragged else [])],
        [tensor("y", "FP32", ("N",)), tensor("run", "FP32", ("N", N_DRAWS))],
        {
            "table": np.arange(TABLE_SIZE, dtype=np.float32),
            "base": np.array(base_turns, np.int64),
            "true": np.array(True),
            "start": np.eye(width, dtype=np.float32),
            "rotation": np.roll(np.eye(width, dtype=np.float32), 1, axis=0),
            "axes": np.array([0, 1], np.int64),
            "width": np.array(width, np.float32),
            "draws": np.array([N_DRAWS], np.int64),
            **({"last": np.array([1], np.int64)} if is_ragged else {}),
        },
    )


def row(index: int | Sequence[int], turns: int = 0) -> dict[str, Any]:
    """Inputs of `patient`."""
    indexes = np.atleast_1d(np.array(index, np.int64))
    return {"turns": np.full(len(indexes), turns, np.int64), "index": indexes}


def runs(answer: dict[str, Any]) -> list[float]:
    """For each row of `patient`'s answer the run that it came from."""
    return [float(number) for number in answer["run"][:, 0]]
