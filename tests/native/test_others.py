"""Values outside of a vocabulary: how many there are and which come often, within the bounds that are promised, and
beside datasketches.
"""

from collections import Counter

import datasketches
import numpy as np
import pytest

from gateway.monitoring.tile import HLL_ERROR, Outside, TileCounts, estimate
from gateway.native.monitor import Monitor
from gateway.native.others import hash_of
from gateway.native.tile import Tile
from gateway.native.tileplan import TilePlan
from tests.support import tiletwin as twin

NUMBERS = TilePlan([twin.categorical("k", [])])
TEXTS = TilePlan([twin.categorical("k", ["a"])])


def tile_of(values) -> Tile:
    """In batches of 500, so that both ways of counting are taken."""
    is_text = isinstance(values[0], str)
    plan = TEXTS if is_text else NUMBERS
    monitor = Monitor(plan, twin.signature([("x", "BYTES" if is_text else "INT64", (-1, 1))]))
    monitor.cut(1e9, 1)
    at, sizes = 0, (1, 500, 20_000)
    for turn in range(len(values)):
        rows = np.array(values[at : at + sizes[turn % 3]], object if is_text else np.int64).reshape(-1, 1)
        monitor.note_rows([rows], [np.zeros((len(rows), 1), np.float32)], None, 1)
        at += len(rows)
        if at >= len(values):
            break
    ((_, _, _, blob),) = monitor.cut(1e9, 1)
    return Tile.from_bytes(plan, blob)


def outside(tile) -> Outside:
    return TileCounts.of(tile).outside["k"]


def within_bounds(found: Outside, values) -> None:
    exact, n = Counter(map(str, values)), len(values)
    told = dict(found.most)
    assert found.lacking <= n / 128
    for text, count in told.items():
        assert count <= exact[text] <= count + found.lacking
    for text, count in exact.items():
        assert text in told or count <= found.lacking


@pytest.mark.parametrize("n", [1, 10, 100, 1_000, 5_000, 50_000, 400_000])
def test_distinct_values_are_counted_within_three_errors(n):
    found = outside(tile_of(np.random.default_rng(n).permutation(n).tolist()))
    assert abs(found.distinct - n) <= max(0.5, 3 * HLL_ERROR * n)


def test_distinct_values_are_counted_as_well_as_datasketches_does():
    """Root mean square error over many sets of values, beside the HLL of the same number of registers."""
    errors, theirs = [], []
    for start in range(60):
        values = [start * 10_000_019 + i for i in range(3_000)]
        sketch = datasketches.hll_sketch(11, datasketches.tgt_hll_type.HLL_8)
        for value in values:
            sketch.update(value)
        errors.append(outside(tile_of(values)).distinct / 3_000 - 1)
        theirs.append(sketch.get_estimate() / 3_000 - 1)
    rms, bound = np.sqrt(np.mean(np.square(errors))), datasketches.hll_sketch.get_rel_err(True, False, 11, 1)
    assert rms < 1.3 * abs(bound)
    assert abs(np.mean(errors)) < 4 * HLL_ERROR / np.sqrt(60)  # no bias
    assert rms < 1.5 * np.sqrt(np.mean(np.square(theirs)))


def test_few_values_are_told_exactly():
    values = [f"value {i}" for i in range(200) for _ in range(i + 1)]
    found = outside(tile_of(values))
    assert dict(found.most) == Counter(values)
    assert found.most[0] == ("value 199", 200)
    assert found.lacking == 0


@pytest.mark.parametrize("shape", ["zipf", "uniform", "one heavy", "heavy last", "rounds"])
def test_what_comes_often_is_found_within_the_bound(shape):
    random = np.random.default_rng(4)
    n = 60_000
    values = {
        "zipf": lambda: random.zipf(1.2, n) % 10**9,
        "uniform": lambda: random.integers(0, 20_000, n),
        "one heavy": lambda: np.where(random.random(n) < 0.03, -1, random.integers(0, 10**9, n)),
        "heavy last": lambda: np.concatenate([np.arange(n - n // 50), np.full(n // 50, -1)]),
        "rounds": lambda: np.arange(n) % 400,
    }[shape]()
    found = outside(tile_of(values.tolist()))
    within_bounds(found, values.tolist())
    if "heavy" in shape:
        assert found.most[0][0] == "-1"


def test_what_comes_often_is_found_as_surely_as_by_datasketches():
    """Both name every value above the bound of the other: 2**8 counters, at most 3.5 / 2**8 off there, 1 / 128 here."""
    values = (np.random.default_rng(5).zipf(1.15, 40_000) % 10**6).tolist()
    sketch = datasketches.frequent_strings_sketch(8)
    for value in values:
        sketch.update(str(value))
    found = outside(tile_of(values))
    told = dict(found.most)
    theirs = sketch.get_frequent_items(datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES)
    assert found.lacking <= sketch.epsilon * len(values)
    for text, _, lower, upper in theirs:
        assert lower <= told.get(text, 0) + found.lacking
        assert told.get(text, 0) <= upper


def test_streams_that_are_added_stay_within_the_bound_of_all():
    random = np.random.default_rng(6)
    streams = [(random.zipf(1.3, 20_000) % 10**7).tolist() for _ in range(5)]
    total = Tile(NUMBERS)
    for stream in streams:
        total.add(tile_of(stream))
    found = outside(total)
    within_bounds(found, [value for stream in streams for value in stream])
    before = len(found.most)
    total.shrink(64)
    less = outside(total)
    assert len(less.most) <= 64 < before
    exact = Counter(str(value) for stream in streams for value in stream)
    for text, count in less.most:
        assert count <= exact[text] <= count + less.lacking


def test_a_long_text_is_told_by_its_head_and_counted_by_all_of_it():
    values = ["x" * 47 + tail for tail in ("1", "2", "2", "")] + ["ü" * 40]
    found = outside(tile_of(values))
    assert sorted(found.most) == sorted([("x" * 47, 1), ("x" * 47, 2), ("x" * 47, 1), ("ü" * 23 + "�", 1)])
    assert round(found.distinct) == 4


def test_the_hash_is_what_it_was():
    """Tiles of workers of two releases add up: a change here is a change of the format."""
    assert [hash_of(value) for value in (0, -1, 1, "", "a", "12345678", "日本語テキスト")] == HASHES


def test_the_hash_has_no_weak_bits():
    hashes = np.array([hash_of(i) for i in range(4096)] + [hash_of(f"key {i}") for i in range(4096)], np.uint64)
    ones = np.unpackbits(hashes.view(np.uint8)).reshape(-1, 64).mean(0)
    assert np.abs(ones - 0.5).max() < 0.05
    assert len(set(hashes.tolist())) == len(hashes)


def test_no_register_is_no_value_and_full_ones_are_very_many():
    assert estimate(bytes(2048)) == 0
    assert estimate(bytes([53]) * 2048) > 1e18
    assert estimate(bytes([54]) * 2048) == float("inf")


HASHES = [
    16294208416658607535,
    16490336266968443936,
    10451216379200822465,
    16294208416658607535,
    13307658512818067026,
    12729979880924091435,
    1632320360768067776,
]
