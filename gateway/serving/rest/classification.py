"""The classification extension: an output as its top N, "value:index" or "value:index:label", per row.

Labels are lines of <version>/labels.<output>.txt, or of <version>/labels.txt for every output; line 1 names index 0.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from gateway.backends.base import Array, numpy_dtype
from gateway.errors import InvalidArgument
from gateway.serving.rest.jsontensors import pack

MAX_LABELS_BYTES = 16 * 2**20
"""A file of this size is no list of labels."""


class Labels:
    """Label files of one model repository, read once for each state of the file."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self._read: dict[Path, tuple[tuple[int, int], list[str]]] = {}

    def of(self, model: str, version: str, output: str) -> list[str]:
        """By index; empty when there is no file."""
        folder = self._models / model / version
        names = [f"labels.{output}.txt"] if os.sep not in output and "\0" not in output else []
        for name in (*names, "labels.txt"):
            found = self._lines(folder / name)
            if found is not None:
                return found
        return []

    def _lines(self, path: Path) -> list[str] | None:
        try:
            status = path.stat()
        except (OSError, ValueError):
            return None
        stamp = status.st_mtime_ns, status.st_size
        known = self._read.get(path)
        if known is None or known[0] != stamp:
            if status.st_size > MAX_LABELS_BYTES:
                return None
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                return None
            known = self._read[path] = stamp, [line.strip() for line in lines]
        return known[1]


def classify(
    name: str, datatype: str, shape: list[int], raw: memoryview, n_top: int, batched: bool, labels: list[str]
) -> tuple[list[int], list[str]]:
    """(shape, strings): the `n_top` largest of each row, largest first; NaN counts as the smallest, the lower index
    goes first among equals.
    """
    if datatype in ("BYTES", "BF16"):
        raise InvalidArgument(f"output {name!r} is {datatype}, expected a numeric one for classification")
    values = np.frombuffer(raw.tobytes(), numpy_dtype(datatype)) if raw.nbytes else np.empty(0, numpy_dtype(datatype))
    n_rows = shape[0] if batched and shape else 1
    rows = values.reshape(n_rows, -1) if n_rows and values.size else values.reshape(n_rows, 0)
    n_top = min(n_top, rows.shape[1])
    texts = []
    for row in rows:
        best = _largest(row, n_top)
        for index, value in zip(best.tolist(), row[best], strict=True):
            shown = int(value) if datatype == "BOOL" else str(value)  # the own type's shortest digits
            text = f"{shown}:{index}"
            label = labels[index] if index < len(labels) else ""
            texts.append(f"{text}:{label}" if label else text)
    return [n_rows, n_top] if batched else [n_top], texts


def _largest(row: Array, n_top: int) -> Array:
    if row.dtype.kind == "f":
        row = np.where(np.isnan(row), -np.inf, row)
    # A stable descending order: the last of the reversed row that are smallest, turned around again.
    order = len(row) - 1 - np.argsort(row[::-1], kind="stable")[::-1]
    return np.asarray(order[:n_top])


def packed(texts: list[str]) -> bytes:
    return pack([text.encode() for text in texts])
