"""Runs every batch size before a version is called ready, and measures it.

The first run of a shape is the slow one (plans, kernels, memory), so no caller shall meet it. The same runs say what a
batch costs, from which the lane predicts run times, and where `max_batch_size: auto` ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

AUTO_MAX_ROWS = 256
"""Where `auto` ends at the latest: the share of a call's fixed cost in a row is then below a percent of what it was
alone.
"""

AUTO_MAX_RUN_US = 250_000
"""A batch holds its executor: who has just missed it waits for this long, and a cancelled or late one cannot be taken
out.
"""

AUTO_MAX_INPUT_BYTES = 32 * 2**20
"""Inputs of one batch: every lane keeps a buffer of it per executor, and beyond the caches a larger batch gains
nothing.
"""

BUDGET_US = 20_000_000
"""For all sizes of one version together: a heavy model must not keep the others from being ready for minutes."""

_MIN_RUNS, _MAX_RUNS = 3, 20
_SETTLED_US = 2_000  # a quick model is measured until this much has run, since one run is within the scheduler's noise
_ENOUGH_US = 1_000_000  # a slow one is not repeated beyond this

Run = Callable[[], object]


@dataclass
class Measured:
    """`costs_us` by rows; `max_rows` is the largest size that batches may have."""

    costs_us: list[tuple[int, float]] = field(default_factory=list)
    max_rows: int = 1
    notes: list[str] = field(default_factory=list)


def bucket_rows(max_rows: int) -> Iterator[int]:
    """1, 2, 4, ... and `max_rows` itself."""
    rows = 1
    while rows < max_rows:
        yield rows
        rows *= 2
    yield max_rows


def cost_us(run: Run, clock: Callable[[], float] = time.perf_counter) -> float:
    """Microseconds of the quickest of several runs, after one that does not count unless it is slow already."""
    started = clock()
    run()
    first_us = spent_us = (clock() - started) * 1e6
    best_us = first_us if first_us > _SETTLED_US else float("inf")
    runs = 0
    while runs < _MIN_RUNS or (runs < _MAX_RUNS and spent_us < _SETTLED_US):
        if spent_us > _ENOUGH_US:
            break
        started = clock()
        run()
        run_us = (clock() - started) * 1e6
        best_us, spent_us, runs = min(best_us, run_us), spent_us + run_us, runs + 1
    return best_us


def predict_us(costs_us: list[tuple[int, float]], rows: int) -> float:
    """Cost of a larger batch, on the line through the last two sizes measured; never below the last."""
    last_rows, last_us = costs_us[-1]
    if len(costs_us) == 1:
        return last_us
    rows_before, us_before = costs_us[-2]
    return last_us + max(0.0, (last_us - us_before) / (last_rows - rows_before)) * (rows - last_rows)


def warm_auto(
    prepare: Callable[[int], Run], bytes_per_row: int, clock: Callable[[], float] = time.perf_counter
) -> Measured:
    """Finds the largest power of two within the AUTO bounds. `prepare(rows)` makes inputs and gives the run to be
    timed.
    """
    measured = Measured()
    for rows in bucket_rows(AUTO_MAX_ROWS):
        if rows > 1 and (
            rows * bytes_per_row > AUTO_MAX_INPUT_BYTES or predict_us(measured.costs_us, rows) > AUTO_MAX_RUN_US
        ):
            break
        try:
            us = cost_us(prepare(rows), clock)
        except Exception as error:
            measured.notes.append(f"{rows} made-up rows failed, so batches end at {measured.max_rows}: {error}")
            break
        if rows > 1 and us > AUTO_MAX_RUN_US:
            break
        measured.costs_us.append((rows, us))
        measured.max_rows = rows
    return measured


def warm_fixed(
    prepare: Callable[[int], Run], max_rows: int, clock: Callable[[], float] = time.perf_counter
) -> Measured:
    """Runs all sizes up to the operator's `max_rows`, as far as the budget reaches; the bound stays what the operator
    said.
    """
    measured = Measured(max_rows=max_rows)
    started = clock()
    for rows in bucket_rows(max_rows):
        if measured.costs_us:
            spent_us = (clock() - started) * 1e6
            if spent_us + predict_us(measured.costs_us, rows) * (1 + _MIN_RUNS) > BUDGET_US:
                measured.notes.append(
                    f"batches of {rows} and more rows are not warmed: it would take over {BUDGET_US // 10**6} s; "
                    "set batching.max_batch_size lower"
                )
                break
        try:
            measured.costs_us.append((rows, cost_us(prepare(rows), clock)))
        except Exception as error:
            measured.notes.append(f"{rows} made-up rows failed, so larger batches are not warmed: {error}")
            break
    return measured
