"""A tile's slow twin: the same counts from all values at once, in NumPy and dictionaries."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gateway.monitoring.summaries import summarise
from gateway.monitoring.tile import MAX_QUANTA
from gateway.native.signature import Signature
from gateway.native.tileplan import TilePlan

Array = np.ndarray[Any, np.dtype[Any]]
Spec = tuple[str, str, tuple[int, ...]]


def numeric(name: str, edges: Sequence[float], *, index: int = 0, tensor: str = "x", **more: Any) -> dict[str, Any]:
    column = {"name": name, "role": "input", "tensor": tensor, "index": index, "kind": "numeric", "edges": list(edges)}
    return {**column, "centre": 0.0, "scale": 2.0**-10, **more}


def categorical(
    name: str, vocabulary: Sequence[Any], *, index: int = 0, tensor: str = "x", **more: Any
) -> dict[str, Any]:
    column = {"name": name, "role": "input", "tensor": tensor, "index": index, "kind": "categorical"}
    return {**column, "vocabulary": list(vocabulary), **more}


def summary(name: str, statistic: str, edges: Sequence[float], *, tensor: str = "x", **more: Any) -> dict[str, Any]:
    column = {"name": name, "role": "input", "tensor": tensor, "kind": "summary", "statistic": statistic}
    return {**column, "edges": list(edges), "centre": 0.0, "scale": 2.0**-10, **more}


def plain(name: str, *, index: int = 0, tensor: str = "y", role: str = "output") -> dict[str, Any]:
    return {"name": name, "role": role, "tensor": tensor, "index": index, "kind": "plain"}


def signature(
    inputs: Sequence[Spec], outputs: Sequence[Spec] = (("y", "FP32", (-1, 1)),), batched: bool = True
) -> Signature:
    return Signature("m", "1", inputs, outputs, batched)


def counts(plan: TilePlan, tensors: Mapping[tuple[str, str], Array]) -> dict[str, dict[str, Any]]:
    """TileCounts.columns of rows by (role, tensor)."""
    return {column["name"]: _column(column, tensors[column["role"], column["tensor"]]) for column in plan.columns}


def _column(column: dict[str, Any], rows: Array) -> dict[str, Any]:
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    if column["kind"] == "categorical":
        return _words(column["vocabulary"], flat[:, column["index"]].tolist())
    if column["kind"] == "summary":
        if flat.dtype == object:
            values = np.array([sum(len(text.encode()) for text in row) for row in flat], np.float32).astype(float)
        else:
            values = summarise(flat, column["statistic"], column.get("projection_seed", 0))
    else:
        values = flat[:, column["index"]].astype(np.float64)
    return _numbers(column, values)


def _numbers(column: dict[str, Any], values: Array) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    edges = np.array(column.get("edges", ()))
    cells = np.bincount(np.searchsorted(edges, finite, side="right"), minlength=len(edges) + 1)
    special = {
        "nan": int(np.isnan(values).sum()),
        "neg_inf": int((values == -np.inf).sum()),
        "pos_inf": int((values == np.inf).sum()),
        "n": len(values),
    }
    least = float(finite.min()) + 0.0 if len(finite) else None
    greatest = float(finite.max()) + 0.0 if len(finite) else None
    if column["kind"] == "plain":
        return {"finite": len(finite), **special, "least": least, "greatest": greatest}
    with np.errstate(over="ignore"):
        far = (finite - column["centre"]) / column["scale"]
    quanta = [int(quantum) for quantum in np.rint(np.clip(far, -MAX_QUANTA, MAX_QUANTA))]
    moments = {"sum": sum(quanta), "sum_squares": sum(quantum * quantum for quantum in quanta)}
    if column["kind"] == "calibration":
        return {"counts": cells[1:-1], "outside": len(values) - int(cells[1:-1].sum()), "n": len(values), **moments}
    ends = {"below": int(cells[0]), "above": int(cells[-1]), "least": least, "greatest": greatest}
    return {"counts": cells[1:-1], **ends, **special, **moments}


def _words(vocabulary: list[Any], values: list[Any]) -> dict[str, Any]:
    seen = Counter("missing" if value == "" or value != value else value for value in values)
    missing = seen.pop("missing", 0)
    inside = [seen[word] for word in vocabulary]
    other = len(values) - missing - sum(inside)
    return {"counts": np.array(inside, np.int64), "other": other, "missing": missing, "n": len(values)}


def same(left: Mapping[str, Mapping[str, Any]], right: Mapping[str, Mapping[str, Any]]) -> None:
    """Asserts that two TileCounts.columns are equal."""
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].keys() == right[name].keys(), name
        for key, value in left[name].items():
            if isinstance(value, np.ndarray):
                assert value.tolist() == right[name][key].tolist(), f"{name}: {key}"
            else:
                assert value == right[name][key], f"{name}: {key}: {value} and {right[name][key]}"
