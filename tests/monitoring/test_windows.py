"""Tiles add up to the same windows in whatever order, grouping and number of workers they come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.monitoring.baseline import Baseline
from gateway.monitoring.windows import DAY_S, HOUR_S, MINUTE_S, SPANS_S, Counted, MinuteTile, Ring
from tests.support import drifting
from tests.support.drifting import START_S

RNG = np.random.default_rng(5)
PROFILE = drifting.profile(
    [drifting.numeric("amount", RNG.normal(size=500)), drifting.categorical("colour", ["red", "blue"] * 250)]
)
BASELINE = Baseline.of(PROFILE)


def a_tile(seed: int, minute: int, source: str) -> MinuteTile:
    rng = np.random.default_rng(seed)
    amount = rng.normal(1.0, 3.0, size=40)
    amount[rng.integers(40)] = np.nan
    colour = rng.choice(["red", "green", "pink", ""], size=40).tolist()
    return drifting.tile(PROFILE, {"amount": amount, "colour": colour}, minute, source)


def same(a: Counted, b: Counted) -> bool:
    return bool((a.cells == b.cells).all() and (a.moments == b.moments).all())


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 200), st.sampled_from("abc")), max_size=12), st.randoms())
def test_any_order_and_grouping_gives_the_same_windows(wanted: list[tuple[int, int, str]], random: object) -> None:
    latest = {(minute, source): a_tile(seed, minute, source) for seed, minute, source in wanted}
    tiles = list(latest.values())
    together = Ring().with_tiles(BASELINE, tiles)
    random.shuffle(tiles)  # type: ignore[attr-defined]
    one_by_one = Ring()
    for tile in tiles:
        one_by_one = one_by_one.with_tiles(BASELINE, [tile])
    end_s = START_S + 201 * MINUTE_S
    for span_s in SPANS_S.values():
        assert same(together.last(BASELINE, span_s, end_s), one_by_one.last(BASELINE, span_s, end_s))
    assert same(together.last(BASELINE, DAY_S, end_s), together.at(BASELINE, end_s).last(BASELINE, DAY_S, end_s))


def test_two_workers_halves_are_one_workers_whole() -> None:
    rng = np.random.default_rng(6)
    amount, colour = rng.normal(size=100), rng.choice(drifting.WORDS, size=100).tolist()
    whole = drifting.tile(PROFILE, {"amount": amount, "colour": colour}, source="w")
    halves = [
        drifting.tile(PROFILE, {"amount": amount[part], "colour": colour[part]}, source=str(at))
        for at, part in enumerate((slice(30), slice(30, None)))
    ]
    assert same(Ring().with_tiles(BASELINE, [whole]).minute(BASELINE, START_S),
                Ring().with_tiles(BASELINE, halves).minute(BASELINE, START_S))  # fmt: skip


def test_a_workers_later_tile_replaces_its_earlier() -> None:
    early, late = a_tile(1, 0, "a"), a_tile(2, 0, "a")
    ring = Ring().with_tiles(BASELINE, [early]).with_tiles(BASELINE, [late])
    assert same(ring.minute(BASELINE, START_S), Counted.of(BASELINE, late))


def test_a_window_ends_where_it_is_told_and_slides() -> None:
    ring = Ring().with_tiles(BASELINE, [a_tile(minute, minute, "a") for minute in range(20)])
    end_s = START_S + 15 * MINUTE_S
    for minutes in (1, 10):
        rows = ring.last(BASELINE, minutes * MINUTE_S, end_s).cells[BASELINE.columns[0].cells].sum()
        assert rows == 40 * minutes


def test_a_day_costs_hours_and_forgets_the_day_before() -> None:
    minutes = range(0, 40 * 60, 10)
    ring = Ring()
    for minute in minutes:
        now_s = START_S + minute * MINUTE_S
        ring = ring.with_tiles(BASELINE, [a_tile(minute % 7, minute, "a")]).at(BASELINE, now_s)
    assert len(ring.minutes) <= 12
    assert len(ring.hours) <= 26
    rows = int(ring.last(BASELINE, DAY_S, now_s).cells[BASELINE.columns[0].cells].sum())
    assert 23 * 6 * 40 <= rows <= 24 * 6 * 40


def test_who_comes_an_hour_late_is_counted_in_and_who_comes_later_is_not() -> None:
    now_s = START_S // HOUR_S * HOUR_S + 3 * HOUR_S
    minute = (now_s - HOUR_S - START_S) // MINUTE_S
    ring = Ring().with_tiles(BASELINE, [a_tile(1, 0, "a")]).at(BASELINE, now_s)
    late = ring.with_tiles(BASELINE, [a_tile(2, minute, "b")])
    assert late.last(BASELINE, DAY_S, now_s).cells.sum() > ring.last(BASELINE, DAY_S, now_s).cells.sum()
    too_late = late.with_tiles(BASELINE, [a_tile(2, 0, "b")])
    assert same(too_late.last(BASELINE, DAY_S, now_s), late.last(BASELINE, DAY_S, now_s))


def test_counts_over_other_cells_than_the_profiles_are_refused_by_name() -> None:
    tile = a_tile(1, 0, "a")
    tile.counts["colour"]["counts"] = np.array([1, 2])  # type: ignore[index]
    with pytest.raises(ValueError, match="counts of 'colour': got 4 cells, expected 5"):
        Ring().with_tiles(BASELINE, [tile])


def test_a_tile_that_begins_within_a_minute_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a whole minute"):
        Ring().with_tiles(BASELINE, [MinuteTile(START_S + 1, "a", {}, 1)])


def test_a_large_vocabulary_is_tested_in_its_common_words_and_a_rest() -> None:
    words = [f"w{at}" for at in range(300)]
    profile = drifting.profile([drifting.categorical("word", words * 3, words)])
    column = Baseline.of(profile).columns[0]
    assert column.p.size == 65
    assert column.tested(column.base).sum() == 900
    assert column.p.sum() == pytest.approx(1.0)
