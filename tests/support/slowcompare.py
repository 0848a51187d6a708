"""The slow twin of native.compare: what lies between two tensors, one element after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RELATIVE_FLOOR = 1e-6
TOP_K = 5
SHORT_FLOATS = ("FP16", "BF16")
FLOATS = ("FP32", "FP64", *SHORT_FLOATS)
NUMPY = {
    "BOOL": np.uint8, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


def numbers(datatype: str, data: bytes) -> Any:
    """As float64."""
    if datatype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.frombuffer(data, NUMPY[datatype]).astype(np.float64)


def strings(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        n = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : at + 4 + n])
        at += 4 + n
    return found


def compare(
    datatype: str,
    shape: Sequence[int],
    data: bytes,
    other_datatype: str,
    other_shape: Sequence[int],
    other_data: bytes,
    absolute: float,
    relative: float,
) -> dict[str, Any]:
    n = int(np.prod(shape, dtype=np.int64)) if len(shape) else 1
    found: dict[str, Any] = {
        "comparison": "compared", "is_other_datatype": datatype != other_datatype, "agrees": False, "n_elements": n,
        "n_differ": 0, "n_beyond": 0, "n_broken": 0, "n_nan": (0, 0), "n_inf": (0, 0), "max_absolute": 0.0,
        "max_relative": 0.0, "mean_absolute": 0.0, "mean_relative": 0.0, "worst": -1, "n_rows": 0, "n_same_first": 0,
        "n_same_top": 0, "n_top": 0, "n_shared": 0,
    }  # fmt: skip
    if list(shape) != list(other_shape):
        return found | {"comparison": "different_shape"}
    if "BYTES" in (datatype, other_datatype):
        if datatype != other_datatype:
            return found | {"comparison": "different_kind"}
        wrong = [i for i, (a, b) in enumerate(zip(strings(data), strings(other_data), strict=True)) if a != b]
        found |= {"n_differ": len(wrong), "n_beyond": len(wrong), "worst": wrong[0] if wrong else -1}
        return found | {"agrees": not wrong}
    left, right = numbers(datatype, data), numbers(other_datatype, other_data)
    if datatype not in FLOATS and other_datatype not in FLOATS:
        absolute = relative = 0.0
    broken_at, worst_at, worst = -1, -1, 0.0
    sum_absolute = sum_relative = 0.0
    n_finite = 0
    nan, inf = [0, 0], [0, 0]
    exact = _exact_differences(datatype, data, other_datatype, other_data)
    for i, (a, b) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        if not (np.isfinite(a) and np.isfinite(b)):
            for side, value in enumerate((a, b)):
                nan[side] += bool(np.isnan(value))
                inf[side] += bool(np.isinf(value))
            if a != b and not (np.isnan(a) and np.isnan(b)):
                found["n_differ"] += 1
                found["n_beyond"] += 1
                found["n_broken"] += 1
                broken_at = i if broken_at < 0 else broken_at
            continue
        n_finite += 1
        difference = abs(a - b) if a != b else float(exact[i])
        if difference == 0:
            continue
        size = max(abs(a), abs(b))
        ratio = difference / max(size, RELATIVE_FLOOR)
        found["n_differ"] += 1
        found["n_beyond"] += difference > absolute + relative * size
        found["max_absolute"] = max(found["max_absolute"], difference)
        if ratio > worst:
            worst, worst_at = ratio, i
        sum_absolute += difference
        sum_relative += ratio
    found["n_nan"], found["n_inf"], found["max_relative"] = tuple(nan), tuple(inf), worst
    found["worst"] = broken_at if broken_at >= 0 else worst_at
    if n_finite:
        found["mean_absolute"], found["mean_relative"] = sum_absolute / n_finite, sum_relative / n_finite
    if len(shape) and shape[-1] > 1 and n:
        _rank(left.reshape(-1, shape[-1]), right.reshape(-1, shape[-1]), found)
    found["agrees"] = datatype == other_datatype and found["n_beyond"] == 0 and found["n_same_first"] == found["n_rows"]
    return found


def _exact_differences(datatype: str, data: bytes, other_datatype: str, other_data: bytes) -> list[int]:
    """Of 64-bit integers, which may be equal as doubles and are not."""
    if datatype != other_datatype or datatype not in ("INT64", "UINT64"):
        return [0] * max(len(data), 1)
    left, right = np.frombuffer(data, NUMPY[datatype]), np.frombuffer(other_data, NUMPY[datatype])
    return [abs(int(a) - int(b)) for a, b in zip(left, right, strict=True)]


def _rank(left: Any, right: Any, found: dict[str, Any]) -> None:
    k = min(TOP_K, left.shape[1] - 1)
    for a, b in zip(left, right, strict=True):
        first, second = _top(a, k), _top(b, k)
        found["n_rows"] += 1
        found["n_same_first"] += first[0] == second[0]
        found["n_same_top"] += set(first) == set(second)
        found["n_top"] += k
        found["n_shared"] += len(set(first) & set(second))


def _top(row: Any, k: int) -> list[int]:
    """Indexes of the k largest; of equals the earlier ones, NaN as small as can be."""
    values = np.where(np.isnan(row), -np.inf, row)
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
