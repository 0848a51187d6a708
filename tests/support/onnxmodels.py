"""Small ONNX models, each made for one behaviour, and a model repository to put them in.

Every maker returns the serialised model. They are a few hundred bytes and load in a millisecond or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 10

ELEMENTS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}

Shape = Sequence[int | str | None]


def store(root: Path, model: str, version: int | str, content: bytes, settings: str | None = None) -> Path:
    """Put a version into a model repository, with a model.yaml if `settings` has one; returns the version's folder."""
    folder = root / model / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    if settings is not None:
        (root / model / "model.yaml").write_text(settings, encoding="utf-8")
    return folder


def tensor(name: str, datatype: str = "FP32", shape: Shape | None = ("N", 4)) -> ValueInfoProto:
    """An input or output; `shape` None declares none at all."""
    return helper.make_tensor_value_info(name, ELEMENTS[datatype], shape)


def build(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: dict[str, np.ndarray[Any, Any]] | None = None,
    opsets: dict[str, int] | None = None,
    ir_version: int = IR_VERSION,
) -> bytes:
    """The serialised model of a graph."""
    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), initializers)
    imports = [helper.make_opsetid(domain, number) for domain, number in {"": OPSET, **(opsets or {})}.items()]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    return bytes(model.SerializeToString())


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(kind, list(inputs), list(outputs), domain=domain, **attributes)


def identity(
    datatype: str = "FP32", shape: Shape = ("N", 4), opset: int = OPSET, ir_version: int = IR_VERSION
) -> bytes:
    """x -> y, as it came."""
    return build(
        [node("Identity", ["x"], ["y"])],
        [tensor("x", datatype, shape)],
        [tensor("y", datatype, shape)],
        opsets={"": opset},
        ir_version=ir_version,
    )


def linear(n_in: int = 4, n_out: int = 3) -> bytes:
    """y[N, n_out] = x[N, n_in] @ weights(n_in, n_out) + 1."""
    return build(
        [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["y"])],
        [tensor("x", shape=("N", n_in))],
        [tensor("y", shape=("N", n_out))],
        {"w": weights(n_in, n_out), "b": np.ones(n_out, np.float32)},
    )


def weights(n_in: int, n_out: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).normal(size=(n_in, n_out)).astype(np.float32)


def sum_and_difference(datatype: str = "INT32", width: int = 16) -> bytes:
    """Two inputs, two outputs, Triton's classic: sum = a + b, difference = a - b."""
    shape = ("N", width)
    return build(
        [node("Add", ["a", "b"], ["sum"]), node("Sub", ["a", "b"], ["difference"])],
        [tensor("a", datatype, shape), tensor("b", datatype, shape)],
        [tensor("sum", datatype, shape), tensor("difference", datatype, shape)],
    )


def lookup(n_entries: int = 8) -> bytes:
    """y[N] = 10 * x[N] for 0 <= x < n_entries; any other value makes the whole batch fail (INVALID_ARGUMENT)."""
    return build(
        [node("Gather", ["table", "x"], ["y"])],
        [tensor("x", "INT64", ("N",))],
        [tensor("y", "FP32", ("N",))],
        {"table": np.arange(n_entries, dtype=np.float32) * 10},
    )


def parse_number() -> bytes:
    """y[N, 1] = the number that text x[N, 1] spells; other text makes the whole batch fail (a backend failure)."""
    return build(
        [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        [tensor("x", "BYTES", ("N", 1))],
        [tensor("y", "FP32", ("N", 1))],
    )


def busy(n_turns: int, width: int = 64) -> bytes:
    """y = x after `n_turns` turns of work on a width x width matrix: 4 us each or so, whatever the rows."""
    shape = (width, width)
    body = helper.make_graph(
        [
            node("MatMul", ["before", "rotation"], ["after"]),
            node("Identity", ["go_on"], ["still"]),
        ],
        "turn",
        [tensor("i", "INT64", ()), tensor("go_on", "BOOL", ()), tensor("before", "FP32", shape)],
        [tensor("still", "BOOL", ()), tensor("after", "FP32", shape)],
    )
    rotation = np.roll(np.eye(width, dtype=np.float32), 1, axis=0)
    return build(
        [
            node("Loop", ["turns", "true", "start"], ["end"], body=body),
            node("ReduceSum", ["end", "axes"], ["sum"], keepdims=0),
            node("Sub", ["sum", "width"], ["nothing"]),
            node("Add", ["x", "nothing"], ["y"]),
        ],
        [tensor("x")],
        [tensor("y")],
        {
            "turns": np.array(n_turns, np.int64),
            "true": np.array(True),
            "start": np.eye(width, dtype=np.float32),
            "rotation": rotation,
            "axes": np.array([0, 1], np.int64),
            "width": np.array(width, np.float32),
        },
    )


def bf16_double(shape: Shape = ("N", 2)) -> bytes:
    """y = 2 * x, in BF16; the arithmetic is FP32 in between, since ONNX Runtime has no BF16 kernels on a CPU."""
    return build(
        [
            node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            node("Add", ["wide", "wide"], ["twice"]),
            node("Cast", ["twice"], ["y"], to=TensorProto.BFLOAT16),
        ],
        [tensor("x", "BF16", shape)],
        [tensor("y", "BF16", shape)],
    )


def mean_of_rows() -> bytes:
    """y = x - mean over rows: keeps the number of rows, and mixes them all the same."""
    return build(
        [node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1), node("Sub", ["x", "mean"], ["y"])],
        [tensor("x")],
        [tensor("y")],
    )


def total() -> bytes:
    """y = the sum of all of x: a scalar, while x has free rows."""
    return build([node("ReduceSum", ["x"], ["y"], keepdims=0)], [tensor("x")], [tensor("y", shape=())])


def flattened() -> bytes:
    """y[M] = all elements of x[N, 4]: both begin with a free dimension, and rows are not kept."""
    return build(
        [node("Reshape", ["x", "all"], ["y"])],
        [tensor("x")],
        [tensor("y", shape=("M",))],
        {"all": np.array([-1], np.int64)},
    )


def store_external(root: Path, model: str, version: int | str, content: bytes) -> Path:
    """As `store`, with the weights in weights.bin beside the model."""
    folder = store(root, model, version, content)
    onnx.save_model(
        onnx.load_from_string(content),
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return folder
