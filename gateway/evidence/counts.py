"""What a decision reads: integers per stage, and how they add up.

A stage is a stretch of a rollout with a constant candidate probability. Counts of the same stage from several workers
add; stages are kept in the order of their index. Nothing else happens before a test, so the order in which counts
arrive cannot change a bit of any verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, Self, TypeVar

MAX_COUNT = 2**53  # above it a count is no longer exact as a float, which is what the formulas compute in


class CountError(ValueError):
    """Counts that cannot be. The message names the field, what came and what was expected."""

    def __init__(self, field: str, got: object, expected: str) -> None:
        super().__init__(f"{field}: got {got!r}, expected {expected}")
        self.field, self.got, self.expected = field, got, expected


class _Staged(Protocol):
    @property
    def index(self) -> int: ...
    def __add__(self, other: Self) -> Self: ...


StageT = TypeVar("StageT", bound=_Staged)


@dataclass(frozen=True, slots=True)
class Stage:
    """Counts of one event (an error, a slow answer, a success) in one stage of a rollout.

    `k_*` of the `n_*` requests of an arm had the event. With incidents or units instead of requests, n and k are both
    counted in those (see `dispersion`).
    """

    index: int  # position in the rollout; stages sort by it
    pi: float  # probability that a request fell on the candidate; a Fraction is taken and rounded to the nearest float
    n_stable: int  # requests on each arm
    n_candidate: int
    k_stable: int  # of which had the event
    k_candidate: int

    def __post_init__(self) -> None:
        _normalise(self, ("index", "n_stable", "n_candidate", "k_stable", "k_candidate"))
        if self.k_stable > self.n_stable:
            raise CountError("k_stable", self.k_stable, f"at most n_stable = {self.n_stable}")
        if self.k_candidate > self.n_candidate:
            raise CountError("k_candidate", self.k_candidate, f"at most n_candidate = {self.n_candidate}")
        _check_impossible(self.pi, "n_stable", self.n_stable, "n_candidate", self.n_candidate)

    def __add__(self, other: Stage) -> Stage:
        """Counts of two workers, or of two stretches of time, in the same stage."""
        _check_same_stage(self, other)
        return Stage(
            self.index,
            self.pi,
            self.n_stable + other.n_stable,
            self.n_candidate + other.n_candidate,
            self.k_stable + other.k_stable,
            self.k_candidate + other.k_candidate,
        )

    @property
    def n(self) -> int:
        """Requests of both arms."""
        return self.n_stable + self.n_candidate

    @property
    def k(self) -> int:
        """Events of both arms."""
        return self.k_stable + self.k_candidate

    def as_row(self) -> tuple[int, float, int, int, int, int]:
        """For `Verdict.counts`: index, pi, n_stable, n_candidate, k_stable, k_candidate."""
        return (self.index, self.pi, self.n_stable, self.n_candidate, self.k_stable, self.k_candidate)

    def complement(self) -> Stage:
        """The same requests, counted by the event's absence: failures become successes."""
        return Stage(
            self.index,
            self.pi,
            self.n_stable,
            self.n_candidate,
            self.n_stable - self.k_stable,
            self.n_candidate - self.k_candidate,
        )


@dataclass(frozen=True, slots=True)
class BinnedStage:
    """Requests of one stage by bin: every request of an arm falls in exactly one bin.

    Bins of an output, classes of a prediction, buckets of a latency histogram. Edges are frozen and the same for both;
    missing, infinite and unseen values have bins of their own, so no request is left out.
    """

    index: int
    pi: float
    stable: tuple[int, ...]  # requests by bin
    candidate: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "pi", probability("pi", self.pi))
        object.__setattr__(self, "index", count("index", self.index))
        for field in ("stable", "candidate"):
            bins = tuple(count(f"{field}[{i}]", value) for i, value in enumerate(getattr(self, field)))
            object.__setattr__(self, field, bins)
        if not self.stable:
            raise CountError("stable", self.stable, "at least one bin")
        if len(self.candidate) != len(self.stable):
            raise CountError("candidate", len(self.candidate), f"as many bins as stable: {len(self.stable)}")
        _check_impossible(self.pi, "stable", self.n_stable, "candidate", self.n_candidate)

    def __add__(self, other: BinnedStage) -> BinnedStage:
        _check_same_stage(self, other)
        if len(self.stable) != len(other.stable):
            raise CountError("stable", len(other.stable), f"{len(self.stable)} bins, as what it is added to")
        return BinnedStage(
            self.index,
            self.pi,
            tuple(a + b for a, b in zip(self.stable, other.stable, strict=True)),
            tuple(a + b for a, b in zip(self.candidate, other.candidate, strict=True)),
        )

    @property
    def n_stable(self) -> int:
        return sum(self.stable)

    @property
    def n_candidate(self) -> int:
        return sum(self.candidate)

    @property
    def n(self) -> int:
        """Requests of both arms."""
        return self.n_stable + self.n_candidate

    def as_row(self) -> tuple[int, float, int, int]:
        """For `Verdict.counts`: index, pi, n_stable, n_candidate."""
        return (self.index, self.pi, self.n_stable, self.n_candidate)

    def above(self, bin_index: int) -> Stage:
        """The event "fell in this bin or a later one" as counts of one event."""
        return Stage(
            self.index,
            self.pi,
            self.n_stable,
            self.n_candidate,
            sum(self.stable[bin_index:]),
            sum(self.candidate[bin_index:]),
        )

    def within(self, bin_index: int) -> Stage:
        """The event "fell in this bin" as counts of one event."""
        return Stage(
            self.index, self.pi, self.n_stable, self.n_candidate, self.stable[bin_index], self.candidate[bin_index]
        )


def merge(stages: Iterable[StageT]) -> tuple[StageT, ...]:
    """One entry for each stage index, in order of index: what all workers and all times counted there, added up.

    Integers add exactly, so any order and any grouping of the input gives the same result.
    """
    by_index: dict[int, StageT] = {}
    for stage in stages:
        seen = by_index.get(stage.index)
        by_index[stage.index] = stage if seen is None else seen + stage
    return tuple(by_index[index] for index in sorted(by_index))


def rows(stages: Sequence[Stage] | Sequence[BinnedStage]) -> tuple[tuple[int | float | str, ...], ...]:
    """`as_row` of each, for `Verdict.counts`."""
    return tuple(stage.as_row() for stage in stages)


def count(field: str, value: object) -> int:
    """`value` as a Python int if it is a whole number from 0 to MAX_COUNT, NumPy's integers included."""
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    try:
        number = value.__index__()  # type: ignore[attr-defined]
    except AttributeError:
        number = None
    if number is None or isinstance(value, bool) or not 0 <= number <= MAX_COUNT:
        raise CountError(field, value, f"a whole number from 0 to {MAX_COUNT}")
    return int(number)


def probability(field: str, value: float | Fraction) -> float:
    """`value` as a float from 0 to 1, both included."""
    if type(value) is float and 0.0 <= value <= 1.0:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0.0 <= number <= 1.0:
        raise CountError(field, value, "a probability from 0 to 1")
    return number


def _normalise(stage: Stage, fields: tuple[str, ...]) -> None:
    # a tick makes thousands of stages out of plain numbers: those are left as they are
    pi = probability("pi", stage.pi)
    if pi is not stage.pi:
        object.__setattr__(stage, "pi", pi)
    for field in fields:
        value = getattr(stage, field)
        number = count(field, value)
        if number is not value:
            object.__setattr__(stage, field, number)


def _check_impossible(pi: float, stable: str, n_stable: int, candidate: str, n_candidate: int) -> None:
    # A request on an arm that could not be drawn was not drawn: forced by a header, say. It has no known probability.
    if pi == 0.0 and n_candidate:
        raise CountError(candidate, n_candidate, "no request on the candidate in a stage where pi is 0")
    if pi == 1.0 and n_stable:
        raise CountError(stable, n_stable, "no request on stable in a stage where pi is 1")


def _check_same_stage(one: Stage | BinnedStage, other: Stage | BinnedStage) -> None:
    if not isinstance(other, type(one)):
        raise CountError("stage", type(other).__name__, f"a {type(one).__name__}, as what it is added to")
    if one.index != other.index:
        raise CountError("index", other.index, f"{one.index}: only counts of the same stage add up")
    if one.pi != other.pi:
        raise CountError(
            "pi", other.pi, f"{one.pi}, the probability of stage {one.index}: a new probability, a new stage"
        )
