"""Which batch sizes are run before a version is ready, and what their costs decide. The clock is the test's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.backends import warmup
from gateway.backends.onnx import load
from gateway.backends.warmup import bucket_rows, cost_us, predict_us, warm_auto, warm_fixed
from gateway.config.model import Batching, ModelConfig
from tests.support import onnxmodels


class Model:
    """Takes fixed_us + row_us per row on a clock of its own."""

    def __init__(self, fixed_us: float, row_us: float = 0.0, fails_at: int = 10**9) -> None:
        self.now_s = 0.0
        self.runs: list[int] = []
        self._cost_us = lambda rows: fixed_us + row_us * rows
        self._fails_at = fails_at

    def clock(self) -> float:
        return self.now_s

    def prepare(self, rows: int) -> Callable[[], None]:
        def run() -> None:
            if rows >= self._fails_at:
                raise RuntimeError("too many rows")
            self.runs.append(rows)
            self.now_s += self._cost_us(rows) / 1e6

        return run


@pytest.mark.parametrize(
    ("most", "buckets"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12]), (3, [1, 2, 3])]
)
def test_buckets_are_powers_of_two_and_the_largest(most: int, buckets: list[int]) -> None:
    assert list(bucket_rows(most)) == buckets


@pytest.mark.parametrize(
    ("fixed_us", "row_us", "bytes_per_row", "rows"),
    [
        (10, 0.1, 120, warmup.AUTO_MAX_ROWS),
        (100, 5_000, 120, 32),  # 64 rows would take 320 ms
        (200_000, 1_000, 120, 32),  # 232 ms; 64 rows would take 264 ms
        (900_000, 0, 120, 1),
        (10, 0.1, 2**20, 32),
        (10, 0.1, 2**25 + 1, 1),
        (10, 0.1, 602_112, 32),  # 3 x 224 x 224 floats
    ],
)
def test_auto_ends_at_the_largest_size_within_bounds(
    fixed_us: float, row_us: float, bytes_per_row: int, rows: int
) -> None:
    model = Model(fixed_us, row_us)
    measured = warm_auto(model.prepare, bytes_per_row, model.clock)
    assert measured.max_rows == rows
    assert [bucket for bucket, _ in measured.costs_us] == list(bucket_rows(rows))
    assert all(us == pytest.approx(fixed_us + row_us * n) for n, us in measured.costs_us)


@pytest.mark.parametrize("row_us", [1, 1_000, 100_000, 500_000])
def test_auto_takes_seconds_at_most(row_us: float) -> None:
    model = Model(100, row_us)
    warm_auto(model.prepare, 4, model.clock)
    assert model.now_s <= 4.0


def test_every_size_is_run_at_least_four_times() -> None:
    model = Model(50_000, 10)
    warm_auto(model.prepare, 4, model.clock)
    assert {rows: model.runs.count(rows) for rows in model.runs} == dict.fromkeys(bucket_rows(256), 4)


def test_the_cost_is_that_of_the_quickest_run() -> None:
    now_s, costs_s = 0.0, iter([0.9, 0.005, 0.002, 0.004])

    def run() -> None:
        nonlocal now_s
        now_s += next(costs_s)

    assert cost_us(run, lambda: now_s) == pytest.approx(2_000)


def test_auto_ends_before_a_size_that_fails() -> None:
    model = Model(10, fails_at=8)
    measured = warm_auto(model.prepare, 4, model.clock)
    assert measured.max_rows == 4
    assert measured.notes == ["8 made-up rows failed, so batches end at 4: too many rows"]


def test_a_size_of_the_operator_is_kept_and_all_buckets_are_run() -> None:
    model = Model(10, 1)
    measured = warm_fixed(model.prepare, 12, model.clock)
    assert measured.max_rows == 12
    assert [rows for rows, _ in measured.costs_us] == [1, 2, 4, 8, 12]
    assert measured.notes == []


def test_a_heavy_model_is_ready_in_time_with_a_note() -> None:
    model = Model(0, 300_000)  # 256 rows would take 77 s for one run
    measured = warm_fixed(model.prepare, 256, model.clock)
    assert model.now_s <= warmup.BUDGET_US / 1e6
    assert measured.max_rows == 256
    assert [rows for rows, _ in measured.costs_us] == [1, 2, 4, 8]
    assert "batches of 16 and more rows are not warmed" in measured.notes[0]


def test_predictions_lie_on_the_line_and_never_fall() -> None:
    assert predict_us([(1, 100.0)], 64) == 100.0
    assert predict_us([(1, 100.0), (2, 110.0)], 4) == pytest.approx(130.0)
    assert predict_us([(1, 100.0), (2, 90.0)], 4) == 90.0


def test_a_real_model_is_measured_at_every_size(tmp_path: Path) -> None:
    folder = onnxmodels.store(tmp_path, "fraud", 1, onnxmodels.linear())
    backend = load(folder, ModelConfig())
    backend.warm_up()
    assert [rows for rows, _ in backend.costs_us] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert all(us > 0 for _, us in backend.costs_us)
    assert backend.max_batch_size == 256


def test_a_real_model_keeps_the_size_of_model_yaml(tmp_path: Path) -> None:
    folder = onnxmodels.store(tmp_path, "fraud", 1, onnxmodels.linear())
    backend = load(folder, ModelConfig(batching=Batching(max_batch_size=6)))
    assert backend.max_batch_size == 6
    backend.warm_up()
    assert [rows for rows, _ in backend.costs_us] == [1, 2, 4, 6]
    assert backend.max_batch_size == 6
