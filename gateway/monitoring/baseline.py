"""A profile as arithmetic wants it: every column's cells in one vector of integers, with what is tolerated of each.

Cells of a column stand together: first those that are no value (NaN and infinities, missing, outside), then the shape
in order (below, bins, above; or the vocabulary and OTHER). A window of a version is then one vector; merging is `+`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.evidence.numeric import Floats
from gateway.monitoring import distances, tolerance
from gateway.monitoring.profile import Calibration, Categorical, Profile

Integers = npt.NDArray[np.int64]

SCHEMA = "(schema)"
"""The column of requests that do not have the model's shape: no profile has it, every version does."""
MAX_TESTED_CELLS = 65
"""Of a vocabulary: rarer words are tested as one cell. Each cell costs five alternatives of that many numbers."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator promises and tolerates. Distances are psi, rates shares of rows."""

    budget_days: float = 30.0
    """At most one false page in that many days, over all columns of a version."""
    tolerance: float = 0.04
    """Up to here nothing is wrong: a mean off by .2 deviations."""
    major: float = 0.25
    """Beyond it no history of like windows excuses: a mean off by .5 deviations."""
    tolerance_rate: float = 0.01
    """How many more NaN, missing, out of range or unseen than in the baseline."""
    major_rate: float = 0.05
    least_requests: int = 100
    """In a window that is judged; quieter minutes are put together until they have them."""

    def __post_init__(self) -> None:
        for name in ("budget_days", "tolerance", "tolerance_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected a number above 0")
        for small, large in (("tolerance", "major"), ("tolerance_rate", "major_rate")):
            if not getattr(self, small) <= getattr(self, large):
                got = getattr(self, large)
                raise ValueError(f"{large}: got {got!r}, expected {small} ({getattr(self, small)!r}) or more")
        if self.least_requests < 1:
            raise ValueError(f"least_requests: got {self.least_requests!r}, expected 1 or more")


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One watched column. `cells` of the vector, of which the first `n_missing` are no value."""

    name: str
    side: str
    """input, output or schema."""
    kind: str
    cells: slice
    n_missing: int
    ordered: bool
    base: Integers
    edges: Floats | None
    """Of a numeric column: its shape has a cell below the first and one above the last."""
    labels: tuple[str, ...]
    iqr: float
    centre: float
    scale: float
    mean: float | None
    std: float | None
    order: npt.NDArray[np.intp]
    """Cells of the shape as they are tested, in groups that begin at `starts`."""
    starts: npt.NDArray[np.intp]
    p: Floats
    """Baseline shares of the tested groups, none 0."""

    @property
    def n_base(self) -> int:
        return int(self.base.sum())

    @property
    def strange(self) -> tuple[int, ...]:
        """Cells of the shape that the baseline should not have: below and above, or OTHER."""
        size = self.base.size - self.n_missing
        if self.kind in ("numeric", "summary"):
            return (0, size - 1)
        return (size - 1,) if self.kind == "categorical" else ()

    @property
    def has_shape(self) -> bool:
        return self.p.size > 1

    def shape(self, counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The cells that are values, of this column's counts."""
        return counts[..., self.n_missing :]

    def tested(self, counts: npt.NDArray[Any]) -> Floats:
        """The shape in the groups of `p`."""
        grouped: Floats = np.add.reduceat(self.shape(counts)[..., self.order], self.starts, axis=-1).astype(np.float64)
        return grouped

    def hits(self, counts: npt.NDArray[Any]) -> tuple[int, int]:
        """Rows that are no value, and values that are strange."""
        values = self.shape(counts)
        return int(counts[: self.n_missing].sum()), sum(int(values[at]) for at in self.strange)


@dataclass(frozen=True, slots=True, eq=False)
class Allowed:
    """What is tolerated of one column, as tables that evidence is read from."""

    distance: float
    rate: float
    balls: tuple[float, float]
    """Tolerated and major."""
    ratios: tuple[Floats, Floats]
    rates: tuple[tuple[float, float], tuple[float, float]]
    """Missing and strange, each tolerated and major: bounds of the baseline's own rate and what is added."""


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """All columns of a profile, and of the schema, laid out once."""

    model: str
    version: str
    fingerprint: str
    rows: int
    source: str
    columns: tuple[Column, ...]
    n_cells: int
    settings: Settings = field(default_factory=Settings)
    _allowed: dict[tuple[str, float], Allowed] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: Profile, settings: Settings | None = None) -> Baseline:
        columns: list[Column] = []
        at = 0
        for side, watched in (("input", profile.columns), ("output", profile.outputs)):
            for each in watched:
                column = _column(each, side, at)
                columns.append(column)
                at = column.cells.stop
        columns.append(_schema(at))
        fingerprint = f"{profile.digest}:{profile.fingerprint.hex()}"
        model, version = profile.model, profile.version
        return cls(model, version, fingerprint, profile.rows, profile.source, tuple(columns), at + 2,
                   settings or Settings())  # fmt: skip

    @property
    def judged(self) -> tuple[Column, ...]:
        """The columns that may raise an alarm: calibration bins are a second view of a score, for when labels come."""
        return tuple(column for column in self.columns if column.kind != "calibration")

    def allowed(self, column: Column, accepted: float = 0.0) -> Allowed:
        """`accepted`: an operator has called a distance of so many tolerances normal. Computed once."""
        key = column.name, max(1.0, accepted)
        if key not in self._allowed:
            self._allowed[key] = self._tables(column, key[1])
        return self._allowed[key]

    def _tables(self, column: Column, widen: float) -> Allowed:
        settings = self.settings
        tolerated = settings.tolerance * widen, max(settings.major, settings.tolerance * widen)
        balls = tuple(float(tolerance.radius(psi, column.p.size, column.n_base)) for psi in tolerated)
        if column.has_shape:
            others = (tolerance.moves if column.ordered else tolerance.surges)(column.p)
            ratios = tuple(tolerance.log_ratios(others, column.p, ball) for ball in balls)
        else:
            ratios = (np.zeros((1, column.p.size)),) * 2
        added = settings.tolerance_rate * widen, max(settings.major_rate, settings.tolerance_rate * widen)
        missing, strange = column.hits(column.base)
        rates = []
        for hits, n in ((missing, column.n_base), (strange, column.n_base - missing)):
            known = distances.share_bounds(hits, n)[1] if n else 0.0
            rates.append((min(known + added[0], 1.0), min(known + added[1], 1.0)))
        return Allowed(tolerated[0], added[0], (balls[0], balls[1]), (ratios[0], ratios[1]), (rates[0], rates[1]))

    def vector(self, counts: Mapping[str, Mapping[str, Any]], n_requests: int, n_violations: int) -> Integers:
        """The cells of a tile's counts by column name. ValueError names a column whose cells are not the profile's."""
        cells = np.zeros(self.n_cells, np.int64)
        for column in self.columns:
            if column.side == "schema":
                cells[column.cells] = n_violations, n_requests
                continue
            if (mine := counts.get(column.name)) is None:
                continue
            values = np.concatenate(
                [np.atleast_1d(np.asarray(mine.get(key, 0), np.int64)) for key in _KEYS[column.kind]]
            )
            if values.size != column.base.size or (values < 0).any():
                raise ValueError(
                    f"counts of {column.name!r}: got {values.size} cells, expected {column.base.size}, none below 0"
                )
            cells[column.cells] = values
        return cells


_KEYS = {
    "numeric": ("nan", "neg_inf", "pos_inf", "below", "counts", "above"),
    "summary": ("nan", "neg_inf", "pos_inf", "below", "counts", "above"),
    "categorical": ("missing", "counts", "other"),
    "calibration": ("outside", "counts"),
}


def _column(each: Any, side: str, at: int) -> Column:
    base = np.concatenate([np.atleast_1d(np.asarray(getattr(each, key), np.int64)) for key in _KEYS[each.kind]])
    if isinstance(each, Categorical):
        edges, labels = None, (*map(str, each.vocabulary), "OTHER")
    else:
        edges = np.asarray(each.EDGES if isinstance(each, Calibration) else each.edges, np.float64)
        labels = _ranges(edges, outer=not isinstance(each, Calibration))
    n_missing = 1 if each.kind in ("categorical", "calibration") else 3
    shape = base[n_missing:]
    ordered = edges is not None
    if ordered or shape.size <= MAX_TESTED_CELLS:
        order, starts = np.arange(shape.size), np.arange(shape.size)
    else:
        order = np.argsort(-shape, kind="stable")
        starts = np.arange(MAX_TESTED_CELLS)
    grouped = np.add.reduceat(shape[order], starts).astype(np.float64)
    p = (grouped + distances.ADDED) / (grouped.sum() + distances.ADDED * grouped.size)
    return Column(
        name=each.name, side=side, kind=each.kind, cells=slice(at, at + base.size), n_missing=n_missing,
        ordered=ordered, base=base, edges=edges, labels=labels, iqr=float(getattr(each, "iqr", 0.0)),
        centre=float(getattr(each, "centre", 0.0)), scale=float(getattr(each, "scale", 1.0)),
        mean=getattr(each, "mean", None), std=getattr(each, "std", None), order=order, starts=starts, p=p,
    )  # fmt: skip


def _schema(at: int) -> Column:
    """Violations are its missing values, well-formed requests its only cell. The baseline is: never."""
    base, one = np.array([0, 0], np.int64), np.zeros(1, np.intp)
    return Column(
        name=SCHEMA, side="schema", kind="schema", cells=slice(at, at + 2), n_missing=1, ordered=False, base=base,
        edges=None, labels=("well-formed",), iqr=0.0, centre=0.0, scale=1.0, mean=None, std=None, order=one,
        starts=one, p=np.ones(1),
    )  # fmt: skip


def _ranges(edges: Floats, outer: bool) -> tuple[str, ...]:
    inner = [f"{a:.4g} to {b:.4g}" for a, b in itertools.pairwise(edges.tolist())]
    return (f"below {edges[0]:.4g}", *inner, f"above {edges[-1]:.4g}") if outer else tuple(inner)
