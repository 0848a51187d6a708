"""Only settled requests count: those that arrived so long ago that each has had its answer or missed its deadline.

A candidate that fails at once is compared with a stable version that fails at its deadline, five seconds later. Counted
as answers come in, the candidate looks worse for five seconds, at every look: a false alarm in three rollouts of ten.
Counted by arrival, behind a watermark, both have had the same time.

Source: own composition (in the order of arrivals the past of each label is fixed; Lindon & Kallus, arXiv 2603.25971,
treat delays formally). Guarantee: with what is settled as input, that of the test that reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.evidence.counts import CountError, Stage, count, merge

CellT = TypeVar("CellT")


@dataclass(frozen=True, slots=True)
class Cell(Generic[CellT]):
    """Counts of the requests that ARRIVED from start_us up to end_us, however late they were answered."""

    start_us: int
    end_us: int
    counts: CellT
    n_open: int = 0  # requests of this cell that have no outcome yet

    def __post_init__(self) -> None:
        for field in ("start_us", "end_us", "n_open"):
            object.__setattr__(self, field, count(field, getattr(self, field)))
        if self.end_us <= self.start_us:
            raise CountError("end_us", self.end_us, f"more than start_us = {self.start_us}")


def watermark_us(now_us: int, deadline_us: int, report_us: int = 0, previous_us: int = 0) -> int:
    """Arrivals before this are settled: now - deadline - report, and never less than `previous_us`.

    deadline_us: the longest that a request may take; later it is a timeout, which is an error. report_us: the longest
    from an outcome to its count being here. `now_us` is the caller's clock, the one that stamped the arrivals.
    """
    for field, value in (("deadline_us", deadline_us), ("report_us", report_us), ("previous_us", previous_us)):
        count(field, value)
    return max(previous_us, now_us - deadline_us - report_us)


def settled(cells: Iterable[Cell[CellT]], before_us: int) -> list[CellT]:
    """Counts of the cells that lie wholly before the watermark, up to the first with an open request.

    A request open behind the watermark has no outcome although its deadline is over: a worker is silent. Nothing from
    there on counts, on either arm, since what is missing may be missing on one.
    """
    cells = list(cells)
    stop = min((cell.start_us for cell in cells if cell.n_open), default=before_us)
    return [cell.counts for cell in cells if cell.end_us <= min(before_us, stop)]


def settled_stages(cells: Iterable[Cell[Stage]], before_us: int) -> tuple[Stage, ...]:
    """`settled`, merged by stage: what the tests take."""
    return merge(settled(cells, before_us))
