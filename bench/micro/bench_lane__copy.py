"""ns per row to gather requests into the batch array: 30 floats and 602 kB, batches of 1, 16 and 64 rows."""

from __future__ import annotations

from bench.micro.harness import Operation
from bench.models import IMAGE_MEAN, SMALL_MLP

ROWS_PER_BATCH = (1, 16, 64)
SMALL_ROW = SMALL_MLP.rows(1)
LARGE_ROW = IMAGE_MEAN.rows(1)


def operations() -> list[Operation]:
    """One per batch size and row, once the lane has an entry that repeats in C; count = rows of the batch."""
    return []
