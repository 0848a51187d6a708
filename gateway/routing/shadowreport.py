"""What is known of a shadow, as documents: a worker writes them, whoever shows them adds those of all workers up.

A document of pairs holds integers that count since the worker's start, per stage, primary arm and shadow; only
`worst_*` are maxima. A document of disagreements holds samples for people: tensors cut to what can be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gateway.errors import Code
from gateway.native.pairs import SIZES, PairStats, Sample
from gateway.native.shadow import ShadowStats

MAX_VALUES = 256
"""Of one tensor that are written out: more than anybody reads, and a report stays below a megabyte."""

_NUMPY = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32,
    "FP64": np.float64,
}  # fmt: skip


# --- one worker's


def requests_document(stats: ShadowStats) -> dict[str, Any]:
    """How many requests were drawn for the shadow, and what became of those that have no pair."""
    return {"stage": stats.arm.stage, "drawn": stats.n_drawn, "shadowed": stats.n_admitted, "dropped": stats.dropped}


def pairs_document(tally: PairStats) -> dict[str, Any]:
    counts = tally.statistics()
    for side in ("shadow_failed", "primary_failed"):
        counts[side] = {Code(code).name: count for code, count in counts[side].items()}
    for side in ("primary_run_us", "shadow_run_us"):
        counts[side] = {"counts": list(counts[side][0]), "sum": counts[side][1]}
    for output in counts["outputs"].values():
        for name in ("worst_absolute", "worst_relative"):
            output[name] = _finite(output[name])
    return {**_sides(tally), "counts": counts}


def disagreements_document(tally: PairStats, wall_offset_s: float) -> dict[str, Any]:
    """`wall_offset_s`: what is to be added to the monotonic clock to get the time of day."""
    return {
        **_sides(tally),
        "worst": [_sample(sample, wall_offset_s) for sample in tally.worst],
        "recent": [_sample(sample, wall_offset_s) for sample in reversed(tally.recent)],
    }


def _sides(tally: PairStats) -> dict[str, Any]:
    return {
        "stage": tally.shadow.stage,
        "primary_version": tally.primary.version if tally.primary else "",
        "primary_arm": tally.primary.name if tally.primary else "",
        "version": tally.shadow.version,
    }


def _sample(sample: Sample, wall_offset_s: float) -> dict[str, Any]:
    return {
        "id": sample.id,
        "at": round(sample.at_us / 1e6 + wall_offset_s, 6),
        "severity": _finite(sample.severity) if sample.severity >= 0 else None,
        "absolute_difference": _finite(sample.absolute) if sample.severity >= 0 else None,
        "relative_difference": _finite(sample.relative) if sample.severity >= 0 else None,
        "is_broken": math.isinf(sample.severity),
        "primary_code": Code(sample.primary_code).name,
        "shadow_code": Code(sample.shadow_code).name,
        "text": sample.text,
        "output": sample.output,
        "index": sample.index if sample.index >= 0 else None,
        "inputs": [_tensor(*tensor) for tensor in sample.inputs],
        "primary": [_tensor(*tensor) for tensor in sample.primary],
        "shadow": [_tensor(*tensor) for tensor in sample.shadow],
    }


def _tensor(
    name: str,
    datatype: str,
    shape: tuple[int, ...],
    data: bytes,
    n_bytes: int,
    summary: tuple[float | None, float | None, float | None, int] | None,
) -> dict[str, Any]:
    values = _values(datatype, data)
    document: dict[str, Any] = {
        "name": name,
        "datatype": datatype,
        "shape": list(shape),
        "values": values[:MAX_VALUES],
        "is_cut": len(values) > MAX_VALUES or len(data) < n_bytes,
    }
    if summary is not None:
        low, high, mean, n_special = summary
        document["summary"] = {"min": low, "max": high, "mean": mean, "not_finite": n_special}
    return document


def _values(datatype: str, data: bytes) -> list[Any]:
    """Flat; NaN and infinities as text, which JSON has no numbers for."""
    if datatype == "BYTES":
        return _strings(data)
    if datatype == "BF16":
        array = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        array = np.frombuffer(data, _NUMPY.get(datatype, np.uint8))
    return [_finite(value) for value in array[: MAX_VALUES + 1].tolist()]


def _strings(data: bytes) -> list[str]:
    found: list[str] = []
    at = 0
    while at + 4 <= len(data) and len(found) <= MAX_VALUES:
        n = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : at + 4 + n].decode("utf-8", "replace"))
        at += 4 + n
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


# --- of all workers


def merged(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of documents of one kind and key, requests or pairs; in whatever order they come."""
    total: dict[str, Any] = {}
    for document in documents:
        total = _added(total, document)
    return total


def _added(left: Any, right: Any, name: str = "") -> Any:
    if isinstance(right, Mapping):
        left = left or {}
        return {key: _added(left.get(key), right.get(key), key) for key in {**left, **right}}
    if left is None or right is None:
        return right if left is None else left
    if name in ("worst_absolute", "worst_relative"):
        return max(left, right, key=float)
    if name in ("stage", "primary_version", "primary_arm", "version"):
        return left
    if isinstance(left, list):
        return [a + b for a, b in zip(left, right, strict=True)]
    return left + right


def rates(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Of a document of pairs what people ask first; None where nothing was compared."""
    counts = pairs["counts"]
    compared = counts["agreed"] + counts["disagreed"]
    n_failed = sum(counts["shadow_failed"].values())
    return {
        "compared": compared,
        "agreement": _share(counts["agreed"], compared),
        "exact": _share(counts["exact"], compared),
        "shadow_failures": _share(n_failed, counts["both_answered"] + n_failed),
        "outputs": {
            name: {
                "exact": _share(output["exact"], output["pairs"]),
                "within_tolerance": _share(output["within"], output["pairs"]),
                "same_first": _share(output["same_first"], output["rows"]),
                "same_top": _share(output["shared"], output["top"]),
                "median_relative_difference": quantile(output["max_relative"], 0.5),
                "p99_relative_difference": quantile(output["max_relative"], 0.99),
            }
            for name, output in counts["outputs"].items()
        },
    }


def quantile(counts: list[int], share: float) -> float | str | None:
    """Upper bound of the bucket that it falls into: a power of ten."""
    total, seen = sum(counts), 0
    if not total:
        return None
    for count, bound in zip(counts, (0.0, *SIZES, math.inf), strict=True):
        seen += count
        if seen >= share * total:
            return _finite(bound)  # type: ignore[no-any-return]
    raise AssertionError("the counts do not add up")


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
