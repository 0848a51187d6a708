"""Errors that come in bursts: counting incidents, and a correction where that cannot be done.

A label test takes each event as a fresh draw of the arm. Retries, sticky keys and a full queue make events that share
one draw: with bursts of 2 on average a risk of 2.5 % became 26 %, with bursts of 5 46 %. Three cures, best first:

1. `count_incidents`: one incident per unit (key, session, client) and minute, labelled by its first event. Exact, if
   each unit is drawn by itself.
2. `phi` of `label.Question`: divide all counts by phi = E[size^2] / E[size] (`phi_of_sizes`), the size of the burst
   that an average event belongs to. Exact when phi is at least the largest burst, by Jensen's inequality: a burst of m
   events with one label multiplies the likelihood ratio of an alternative by L^(m/phi), whose mean is at most
   (mean L)^(m/phi) <= 1. With the average phi it is an approximation; simulated risk .03 to .05 at .05 for bursts of
   mean 2 and 5. The root is taken inside the mixture: the root of the mixture, ln E / phi, is larger and not valid.
3. `phi_of_cells` finds out without knowing the bursts, from counts by second: a diagnostic, and it says when to use 1.

phi must be frozen before the start, from stable's own traffic: one taken from the running comparison would fall under
the candidate's influence. Source: quasi-likelihood, Wedderburn 1974; exactness for the largest burst, own derivation.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from gateway.evidence.counts import CountError, Stage, count, merge

MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """One counted event. `order` is its place in the order of arrivals, by which the first of an incident is known."""

    order: int
    arrived_us: int
    unit: Hashable  # what was drawn: the key of sticky routing, a session, a client
    stage: int
    is_candidate: bool


def count_incidents(events: Iterable[Event], window_us: int = MINUTE_US) -> dict[tuple[int, bool], int]:
    """Incidents by (stage, on the candidate): events of a unit within the same window count once, as the first of them.

    Windows are cut at multiples of `window_us`, so the result does not depend on the order in which events are given.
    """
    if window_us <= 0:
        raise CountError("window_us", window_us, "a time above 0")
    first: dict[tuple[Hashable, int], Event] = {}
    for event in events:
        key = (event.unit, event.arrived_us // window_us)
        seen = first.get(key)
        if seen is None or event.order < seen.order:
            first[key] = event
    result: dict[tuple[int, bool], int] = {}
    for event in first.values():
        place = (event.stage, event.is_candidate)
        result[place] = result.get(place, 0) + 1
    return dict(sorted(result.items()))


def phi_of_sizes(sizes: Mapping[int, int]) -> Fraction:
    """E[size^2] / E[size] of bursts: `sizes[m]` bursts of m events. 1 without bursts, and without events."""
    events = sum(count("size", m) * count(f"sizes[{m}]", n) for m, n in sizes.items())
    squares = sum(m * m * n for m, n in sizes.items())
    return Fraction(squares, events) if events else Fraction(1)


def phi_of_cells(cells: Iterable[Stage]) -> Fraction:
    """phi from counts in small cells of time (a second): how much more the arm labels vary than single draws would.

    sum (k_c - q_s k)^2 / sum k q_s (1 - q_s) over cells, with q_s the candidate's share of all events in the cell's
    stage, so that a candidate that fails more often is not taken for bursts. At least 1. `Stage.index` is the stage;
    bursts longer than a cell are seen in part. Its relative error is about sqrt(2 / number of cells with events).
    """
    cells = [cell for cell in cells if cell.k]
    variation, expected = Fraction(0), Fraction(0)
    for stage in merge(cells):
        share = Fraction(stage.k_candidate, stage.k)
        for cell in cells:
            if cell.index == stage.index:
                variation += (cell.k_candidate - share * cell.k) ** 2
        expected += stage.k * share * (1 - share)
    return max(Fraction(1), variation / expected) if expected else Fraction(1)
