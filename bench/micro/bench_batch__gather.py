"""ns per row to gather requests into the batch's new array: 30 floats and 602 kB, batches of 1, 16 and 64 rows."""

from __future__ import annotations

from bench import payloads
from bench.micro.compiled import loops
from bench.micro.harness import Operation
from bench.models import IMAGE_MEAN, SMALL_MLP
from gateway.native.signature import Signature

ROWS_PER_BATCH = (1, 16, 64)


def operations() -> list[Operation]:
    found = []
    for name, model in (("30 floats", SMALL_MLP), ("602 kB", IMAGE_MEAN)):
        spec = ("input", "FP32", (-1, *model.row_shape))
        signature = Signature(model.name, "1", [spec], [("output", "FP32", (-1, 1))], True)
        message = payloads.infer_request(model.name, {"input": model.rows(1)})
        for rows in ROWS_PER_BATCH:
            gather = loops().Gather(signature, message, rows)
            found.append(Operation(f"{name}, batch of {rows}", repeat=gather.repeat, count=rows))
    return found
