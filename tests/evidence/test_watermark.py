"""Only what is settled counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence import label
from gateway.evidence.counts import CountError, Stage
from gateway.evidence.verdict import Outcome, log_threshold_of
from gateway.evidence.watermark import Cell, settled, settled_stages, watermark_us

SECOND = 1_000_000


def test_what_has_not_had_its_deadline_does_not_count() -> None:
    cells = [Cell(s * SECOND, (s + 1) * SECOND, s) for s in range(10)]
    mark = watermark_us(now_us=10 * SECOND, deadline_us=5 * SECOND, report_us=SECOND // 2)
    assert mark == 4_500_000
    assert settled(cells, mark) == [0, 1, 2, 3]


def test_the_watermark_never_goes_back() -> None:
    assert watermark_us(10, 5, previous_us=7) == 7
    assert watermark_us(3, 5) == 0


def test_a_silent_worker_holds_everything_behind_it() -> None:
    cells = [Cell(0, 10, "a"), Cell(10, 20, "b", n_open=1), Cell(10, 20, "c"), Cell(20, 30, "d")]
    assert settled(cells, 40) == ["a"]


def test_a_fast_failing_candidate_is_not_blamed_for_being_early() -> None:
    # both fail one in ten; the candidate at once, stable at its deadline of 5 s: at 6 s most of stable's are unknown
    by_arrival = [Cell(s * SECOND, (s + 1) * SECOND, Stage(0, 0.5, 400, 400, 40, 40)) for s in range(6)]
    as_answered = Stage(0, 0.5, 2400, 2400, 40, 240)
    threshold = log_threshold_of(0.01)
    assert label.rollback([as_answered], threshold).outcome is Outcome.WORSE
    mark = watermark_us(6 * SECOND, 5 * SECOND)
    assert settled_stages(by_arrival, mark) == (Stage(0, 0.5, 400, 400, 40, 40),)
    assert label.rollback(settled_stages(by_arrival, mark), threshold).outcome is Outcome.UNDECIDED


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9), st.integers(0, 9))),
    st.integers(0, 80),
    st.integers(0, 20),
)
def test_more_time_only_adds(rows: list[tuple[int, int, int]], mark: int, more: int) -> None:
    cells = [Cell(start, start + length, i) for i, (start, length, _) in enumerate(rows)]
    assert set(settled(cells, mark)) <= set(settled(cells, mark + more))


def test_a_cell_without_time_is_refused() -> None:
    with pytest.raises(CountError, match="end_us: got 5, expected more than start_us = 5"):
        Cell(5, 5, None)
    with pytest.raises(CountError, match="deadline_us: got -1"):
        watermark_us(10, -1)
