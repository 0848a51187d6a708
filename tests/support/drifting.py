"""Profiles and tiles for the tests of drift: counted by NumPy, in the form that the native counters report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from gateway.monitoring.profile import Calibration, Categorical, Column, Numeric, Profile
from gateway.monitoring.windows import MinuteTile

START_S = 1_700_000_040 // 60 * 60
WORDS = ("red", "green", "blue")


def numeric(name: str, values: Any, index: int | None = None, tensor: str = "input", n_bins: int = 20) -> Numeric:
    """A column with quantile bins."""
    x = np.asarray(values, np.float64)
    finite = x[np.isfinite(x)]
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, n_bins + 1)))
    edges = np.append(edges[:-1] if edges.size > 1 else edges, np.nextafter(edges[-1], np.inf))
    quartiles = np.quantile(finite, [0.25, 0.5, 0.75])
    counts, _ = np.histogram(finite, edges)
    return Numeric(
        name=name, tensor=tensor, index=index, edges=tuple(edges.tolist()), counts=tuple(counts.tolist()),
        nan=int(np.isnan(x).sum()), neg_inf=int(np.isneginf(x).sum()), pos_inf=int(np.isposinf(x).sum()),
        centre=float(quartiles[1]), scale=2.0**-10, mean=float(finite.mean()), std=float(finite.std()),
        min=float(finite.min()), max=float(finite.max()), iqr=float(quartiles[2] - quartiles[0]),
    )  # fmt: skip


def categorical(name: str, words: Sequence[str], vocabulary: Sequence[str] = WORDS) -> Categorical:
    counts = tuple(sum(word == each for word in words) for each in vocabulary)
    missing = sum(word == "" for word in words)
    other = len(words) - sum(counts) - missing
    return Categorical(name=name, tensor=name, vocabulary=tuple(vocabulary), counts=counts, other=other,
                       missing=missing, distinct=len(set(words)))  # fmt: skip


def profile(
    columns: Sequence[Column], outputs: Sequence[Column] = (), model: str = "fraud", digest: str = "0" * 64
) -> Profile:
    return Profile(
        model=model, version="1", digest=digest, source="data", rows=columns[0].total,
        created=datetime(2026, 1, 1, tzinfo=UTC), columns=tuple(columns), outputs=tuple(outputs),
    )  # fmt: skip


def count(column: Column, values: Any) -> dict[str, Any]:
    """The cells of one column."""
    if isinstance(column, Categorical):
        counts = [sum(value == word for value in values) for word in column.vocabulary]
        missing = sum(value == "" for value in values)
        return {"counts": np.array(counts), "other": len(values) - sum(counts) - missing, "missing": missing}
    x = np.asarray(values, np.float64)
    if isinstance(column, Calibration):
        inside = x[(x >= 0) & (x <= 1)]
        return {"counts": np.histogram(inside, column.EDGES)[0], "outside": int(x.size - inside.size)}
    finite, edges = x[np.isfinite(x)], np.array(column.edges)
    quanta = np.rint((finite - column.centre) / column.scale)
    return {
        "counts": np.histogram(finite[(finite >= edges[0]) & (finite < edges[-1])], edges)[0],
        "below": int((finite < edges[0]).sum()), "above": int((finite >= edges[-1]).sum()),
        "nan": int(np.isnan(x).sum()), "neg_inf": int(np.isneginf(x).sum()), "pos_inf": int(np.isposinf(x).sum()),
        "n": int(finite.size), "sum": int(quanta.sum()), "sum_squares": int((quanta * quanta).sum()),
    }  # fmt: skip


def tile(
    of: Profile, values: Mapping[str, Any], minute: int = 0, source: str = "worker-1", n_requests: int | None = None,
    n_violations: int = 0,
) -> MinuteTile:  # fmt: skip
    """One worker's minute. Each row is a request unless said."""
    counts = {column.name: count(column, values[column.name]) for column in of.watched if column.name in values}
    n_rows = max((len(each) for each in values.values()), default=0)
    return MinuteTile(START_S + 60 * minute, source, counts, n_rows if n_requests is None else n_requests, n_violations)
