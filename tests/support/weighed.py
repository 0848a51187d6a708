"""Two versions of a model under a rollout's route, over HTTP/2 and a clock that the test holds; and what is weighed.

Each request runs alone, and ends when the test says so: `ask` sends one, `end` runs its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gateway.native import scales as native
from gateway.native.lane import Lane
from gateway.native.scales import Scales, read_counts
from gateway.routing.armbook import ArmBook
from gateway.routing.compile import compile_routes
from gateway.routing.route import parse
from tests.support.lanes import Array, Harness, Sent

SPAN_US = 50_000
MAX_AGE_US = 60_000_000


def split(candidate: float, **more: Any) -> dict[str, Any]:
    """A rollout's route, its candidate at so many percent."""
    stable = {"version": "1", "weight": 100 - candidate, "arm": "stable"}
    return {"versions": [stable, {"version": "2", "weight": candidate, "arm": "candidate"}], **more}


class Weighed(Harness):
    """Versions 1 and 2 of the model m; a rule sends who says so to either: `side` stable or candidate."""

    book: ArmBook

    def serve(self, stable: Any = None, candidate: Any = None, **policy: Any) -> None:
        self.book = ArmBook()
        policy = {"max_batch_size": 1, "instances": 1000, **policy}
        runs = {"1": stable, "2": candidate}
        self.versions: dict[str, Lane | str] = {
            name: self.lane(run, model=f"v{name}", **policy) for name, run in runs.items()
        }

    def route(self, document: dict[str, Any], generation: int = 1) -> None:
        routes = {"m": parse(document)}
        self.plane.routes = compile_routes({"m": self.versions}, routes, {"m": generation}, self.book)
        self.book.retire()

    def weighed(self, generation: int = 1) -> Scales:
        (found,) = (each for each in self.book.weighed() if each.generation == generation)
        return found

    def ask(self, *values: Any, n: int = 1, **wishes: Any) -> list[Sent]:
        calls = []
        for _ in range(n):
            calls.append(self.send(*(values or (0.0,)), **wishes))
            self.turn()
        return calls

    def counts(self, generation: int = 1) -> np.ndarray[Any, np.dtype[np.int64]]:
        """[side, counter], of what is sealed."""
        return read_counts(self.weighed(generation).to_bytes(self.now_us))

    def head(self, generation: int = 1) -> list[tuple[int, ...]]:
        """(drawn, judged, failed, broken) of each side."""
        return [tuple(side[:4].tolist()) for side in self.counts(generation)]

    def facts(self, generation: int = 1) -> dict[str, dict[str, int]]:
        return self.weighed(generation).facts(self.now_us)


def latency(side: np.ndarray[Any, np.dtype[np.int64]]) -> dict[int, int]:
    """Requests by latency cell."""
    cells = side[native.LATENCY]
    return {int(cell): int(cells[cell]) for cell in np.flatnonzero(cells)}


def value_cells(side: np.ndarray[Any, np.dtype[np.int64]], column: int = 0) -> dict[int, int]:
    cells = side[native.values(column)]
    return {int(cell): int(cells[cell]) for cell in np.flatnonzero(cells)}


def answering(*rows: Sequence[float]) -> Callable[[list[Array]], list[Array]]:
    """The first column of each answer, row by row, whatever was asked."""
    given = iter(rows)
    return lambda inputs: [np.array(next(given), np.float32).reshape(inputs[0].shape)]


def prefix(seen: Iterable[tuple[int, bool]]) -> int:
    """How many of (side, has ended), in order of arrival, come before the first that has not ended."""
    n = 0
    for _, has_ended in seen:
        if not has_ended:
            break
        n += 1
    return n
