"""ns per value to count a batch against its profile: 30 numeric columns of 32 bins, 30 categorical ones, a big tensor
by its summaries. Batches of 1 row are kept and counted 64 at once; from 24 rows on they are counted as they come.

Values are the model's own, uniform: every bin is equally likely, which is the worst for a processor that guesses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench import payloads
from bench.micro.compiled import loops
from bench.micro.harness import Operation
from bench.models import FEATURES, IMAGE_MEAN, SMALL_MLP
from gateway.native.monitor import Monitor
from gateway.native.signature import Signature
from gateway.native.tile import Tile
from gateway.native.tileplan import TilePlan

ROWS_PER_BATCH = (1, 4, 16, 64, 256)


def operations() -> list[Operation]:
    return [*_numeric(), *_categorical(), *_summaries(), *_tiles()]


def _columns(fields: dict[str, Any], tensor: str = "input", n: int = FEATURES) -> list[dict[str, Any]]:
    return [{"name": f"{tensor}[{i}]", "role": "input", "tensor": tensor, "index": i, **fields} for i in range(n)]


NUMERIC = {"kind": "numeric", "edges": np.linspace(0, 1.0001, 33).tolist(), "centre": 0.5, "scale": 2.0**-12}


def _observe(plan: TilePlan, signature: Signature, message: bytes, rows: int, x: np.ndarray, y: np.ndarray) -> Any:
    return loops().Observe(signature, message, rows, Monitor(plan, signature), [x], [y])


def _numeric() -> Iterator[Operation]:
    plan = TilePlan(_columns(NUMERIC))
    signature = Signature("m", "1", [("input", "FP32", (-1, FEATURES))], [("output", "FP32", (-1, 1))], True)
    message = payloads.infer_request("m", {"input": SMALL_MLP.rows(1)})
    for rows in ROWS_PER_BATCH:
        x, y = SMALL_MLP.rows(rows), np.zeros((rows, 1), np.float32)
        observe = _observe(plan, signature, message, rows, x, y)
        yield Operation(f"30 numeric columns, batch of {rows}, a value", repeat=observe.repeat, count=rows * FEATURES)


def _categorical() -> Iterator[Operation]:
    signature = Signature("m", "1", [("input", "INT64", (-1, FEATURES))], [("output", "FP32", (-1, 1))], True)
    message = payloads.infer_request("m", {"input": np.zeros((1, FEATURES), np.int64)})
    random = np.random.default_rng(0)
    plan = TilePlan(_columns({"kind": "categorical", "vocabulary": list(range(64))}))
    for rows in ROWS_PER_BATCH:
        y = np.zeros((rows, 1), np.float32)
        for name, high in (("", 64), (", half of them unknown", 128), (", never the same twice", 2**62)):
            x = random.integers(0, high, (rows, FEATURES))
            if high == 2**62 and rows != 256:
                continue
            observe = _observe(plan, signature, message, rows, x, y)
            text = f"30 categorical columns{name}, batch of {rows}, a value"
            yield Operation(text, repeat=observe.repeat, count=rows * FEATURES)


def _summaries() -> Iterator[Operation]:
    """Of one row: 150,528 values."""
    signature = Signature(
        "m", "1", [("input", "FP32", (-1, *IMAGE_MEAN.row_shape))], [("output", "FP32", (-1, 3))], True
    )
    x, y = IMAGE_MEAN.rows(1), np.zeros((1, 3), np.float32)
    message = payloads.infer_request("m", {"input": x})
    bins = {key: NUMERIC[key] for key in ("edges", "centre", "scale")}
    for names in (("mean", "std", "min", "max", "norm"), ("projection",)):
        columns = [
            {"name": name, "role": "input", "tensor": "input", "kind": "summary", "statistic": name, **bins}
            | ({"projection_seed": 1} if name == "projection" else {})
            for name in names
        ]
        observe = _observe(TilePlan(columns), signature, message, 1, x, y)
        yield Operation(f"{', '.join(names)} of 602 kB, a value", repeat=observe.repeat, count=x.size)


def _tiles() -> Iterator[Operation]:
    plan = TilePlan(_columns(NUMERIC))
    signature = Signature("m", "1", [("input", "FP32", (-1, FEATURES))], [("output", "FP32", (-1, 1))], True)
    monitor = Monitor(plan, signature)
    monitor.cut(1e9, 1)
    yield Operation("a request's code and time", repeat=loops().Settled(monitor).repeat)
    monitor.note_rows([SMALL_MLP.rows(5000)], [np.zeros((5000, 1), np.float32)], None, 1)
    ((_, _, _, blob),) = monitor.cut(1e9, 1)
    tile, more = Tile(plan), Tile.from_bytes(plan, blob)
    yield Operation(f"30 columns: a tile to {len(blob):,} bytes, a column", call=more.to_bytes, count=FEATURES)
    yield Operation("30 columns: a tile from bytes, a column", call=lambda: Tile.from_bytes(plan, blob), count=FEATURES)
    yield Operation("30 columns: tiles added, a column", call=lambda: tile.add(more), count=FEATURES)
