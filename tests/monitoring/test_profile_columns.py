"""What a profile counts, against NumPy over all values at once, however the values came in pieces."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.base import numpy_dtype
from gateway.monitoring import words as words_module
from gateway.monitoring.numbers import Numbers
from gateway.monitoring.profile import MAX_QUANTA, Categorical, Numeric
from gateway.monitoring.quantiles import EXACT_VALUES, next_up
from gateway.monitoring.summaries import signs, splitmix64, summarise
from gateway.monitoring.words import Words

Array = np.ndarray[Any, Any]


def pieces(values: Any, size: int) -> Iterator[Any]:
    for at in range(0, len(values), size):
        yield values[at : at + size]


def numeric(values: Array, datatype: str = "FP64", bins: int = 32, size: int = 1000) -> Numeric:
    values = np.asarray(values, np.float64)
    numbers = Numbers(datatype)
    for part in pieces(values, size):
        numbers.see(part)
    numbers.freeze(bins)
    for part in pieces(values, size):
        numbers.count(part)
    column = Numeric(name="x", tensor="x", **numbers.fields())
    assert column.total == len(values)
    return column


def twin_counts(column: Numeric, values: Array) -> tuple[int, ...]:
    """The rule of the docstring, value by value."""
    counts = [0] * len(column.counts)
    for value in values:
        if math.isfinite(value):
            (at,) = [b for b in range(len(counts)) if column.edges[b] <= value < column.edges[b + 1]]
            counts[at] += 1
    return tuple(counts)


@pytest.mark.parametrize("n", [40, 1000, EXACT_VALUES, 50_000])
def test_counts_and_moments_are_numpys(n: int) -> None:
    values = np.random.default_rng(n).lognormal(1, 0.8, n)
    column = numeric(values)
    assert column.counts == tuple(np.histogram(values, column.edges)[0].tolist())
    assert (column.below, column.above, column.nan) == (0, 0, 0)
    assert column.mean == pytest.approx(values.mean(), rel=1e-13)
    assert column.std == pytest.approx(values.std(), rel=1e-12)
    assert (column.min, column.max) == (values.min(), values.max())


def test_up_to_the_bound_edges_are_exact_quantiles() -> None:
    values = np.random.default_rng(1).normal(size=10_000)
    column = numeric(values, bins=16)
    exact = np.quantile(values, np.arange(1, 16) / 16, method="inverted_cdf")
    assert column.edges == (values.min(), *exact, math.nextafter(values.max(), math.inf))
    assert column.iqr == np.subtract(*np.quantile(values, [0.75, 0.25], method="inverted_cdf"))


def test_beyond_it_a_bin_holds_its_share_to_half_a_percent() -> None:
    values = np.random.default_rng(2).normal(size=200_000)
    shares = np.array(numeric(values, bins=20, size=7000).counts) / len(values)
    assert len(shares) == 20
    assert np.abs(shares - 0.05).max() < 0.01
    assert np.abs(np.cumsum(shares) - np.arange(1, 21) / 20).max() < 0.005


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.floats(allow_nan=True, allow_infinity=True, width=32) | st.sampled_from([0.0, -0.0, 1.0, 1.0]), min_size=1
    ),
    st.integers(4, 40),
    st.integers(1, 50),
)
def test_any_values_fall_into_one_cell_each(given_values: list[float], bins: int, size: int) -> None:
    values = np.array(given_values)
    column = numeric(values, "FP32", bins, size)
    assert column.nan == np.isnan(values).sum()
    assert column.neg_inf == np.isneginf(values).sum()
    assert column.pos_inf == np.isposinf(values).sum()
    assert (column.below, column.above) == (0, 0)
    assert column.counts == twin_counts(column, values)
    finite = values[np.isfinite(values)]
    if len(finite):
        assert 0 not in column.counts
        assert (column.min, column.max) == (finite.min(), finite.max())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_doubles_of_any_size_give_a_valid_column(values: list[float]) -> None:
    numeric(np.array(values))


def test_a_value_that_fills_bins_gets_one_of_its_own() -> None:
    values = np.concatenate((np.zeros(6000), np.random.default_rng(3).uniform(0, 1, 4000))).astype(np.float32)
    column = numeric(values.astype(np.float64), "FP32", bins=20)
    assert column.edges[:2] == (0.0, next_up(0.0, "FP32"))
    assert column.counts[0] == (values == 0).sum()
    assert 7 <= len(column.counts) <= 10


def test_also_one_that_fills_little_more_than_a_bin() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate((rng.uniform(0, 0.4, 3800), np.full(1400, 0.4), rng.uniform(0.4, 1, 4800)))
    column = numeric(values, bins=10)  # of the tenths, two fall on it
    assert column.counts[column.edges.index(0.4)] == 1400


def test_few_different_values_have_a_bin_each() -> None:
    values = np.random.default_rng(4).integers(0, 17, 1000).astype(np.float64)
    column = numeric(values, "FP32")
    assert column.edges[:-1] == tuple(map(float, range(17)))
    assert column.counts == tuple(np.bincount(values.astype(int), minlength=17).tolist())


def test_a_constant_column_is_one_bin() -> None:
    column = numeric(np.full(500, 3.5), "FP32")
    assert (column.edges, column.counts) == ((3.5, next_up(3.5, "FP32")), (500,))
    assert (column.mean, column.std, column.iqr) == (3.5, 0.0, 0.0)


def test_a_column_of_nothing_but_nan_says_so() -> None:
    column = numeric(np.full(500, np.nan))
    assert (column.counts, column.nan, column.n_finite) == ((0,), 500, 0)
    assert (column.mean, column.std, column.min, column.max) == (0.0, 0.0, 0.0, 0.0)


def test_few_rows_make_few_bins() -> None:
    assert len(numeric(np.random.default_rng(5).normal(size=200)).counts) == 10
    assert len(numeric(np.arange(8.0)).counts) == 8
    assert len(numeric(np.random.default_rng(5).normal(size=60)).counts) == 4


def test_no_value_of_a_large_baseline_is_cut_off_its_moments() -> None:
    values = np.random.default_rng(6).normal(size=100_000) * 1e-6 + 7
    values[0] = 8  # a million deviations of the others, 316 of all
    column = numeric(values)
    quanta = np.rint((values - column.centre) / column.scale)
    assert np.abs(quanta).max() < MAX_QUANTA
    assert column.centre + column.scale * quanta.mean() == pytest.approx(column.mean, abs=column.std / 100)
    assert column.std / 2**11 < column.scale <= column.std / 2**10


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-7, 65504.0, -65504.0])
def test_the_last_edge_is_the_next_number_of_the_datatype(datatype: str, value: float) -> None:
    kind = numpy_dtype(datatype).type
    value = float(kind(value))
    after = next_up(value, datatype)
    assert value < after
    assert math.isfinite(after)
    if value < float(np.finfo(kind).max):
        assert float(kind(after)) == after
        assert float(np.nextafter(kind(value), kind(math.inf))) == after


@pytest.mark.parametrize("value", [-5.0, 0.0, 255.0, 2.0**53, 2.0**63])
def test_and_of_whole_numbers_one_more(value: float) -> None:
    assert next_up(value, "INT64") == max(value + 1, math.nextafter(value, math.inf))


def categorical(values: Any, limit: int = 64, size: int = 100) -> Categorical:
    words = Words()
    for part in pieces(values, size):
        words.see(part)
    words.freeze(limit)
    for part in pieces(values, size):
        words.count(part)
    column = Categorical(name="x", tensor="x", **words.fields())
    assert column.total == len(values)
    return column


def test_words_are_counted_and_the_empty_one_is_missing() -> None:
    given_words = [*["b"] * 50, *["a"] * 50, *["c"] * 7, *[""] * 5, *["ü"] * 60]
    column = categorical(pa.array(given_words), limit=3, size=13)
    assert (column.vocabulary, column.counts) == (("ü", "a", "b"), (60, 50, 50))
    assert (column.other, column.missing, column.distinct) == (7, 5, 4)


def test_whole_numbers_stand_in_their_order() -> None:
    column = categorical(np.array([3, 1, 3, 3, -2, 7], np.int32))
    assert (column.vocabulary, column.counts) == ((-2, 1, 3, 7), (1, 1, 3, 1))


def test_fractions_are_other_and_nan_is_missing() -> None:
    column = categorical(np.array([1.0, 1.0, 2.5, np.nan, np.inf, 2.0], np.float32))
    assert (column.vocabulary, column.counts, column.other, column.missing) == ((1, 2), (2, 1), 2, 1)


def test_the_largest_unsigned_number_is_a_word() -> None:
    assert categorical(np.array([2**64 - 1, 0], np.uint64)).vocabulary == (0, 2**64 - 1)


@pytest.mark.parametrize("is_text", [True, False])
def test_beyond_memory_the_vocabulary_is_still_right_and_the_number_is_near(
    is_text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words_module, "MAX_EXACT", 1000)
    rng = np.random.default_rng(7)
    values = np.concatenate((rng.zipf(1.5, 60_000) % 10**9, np.arange(10**10, 10**10 + 40_000)))
    rng.shuffle(values)
    expected = Counter(values.tolist())
    column = categorical(pa.array([f"w{value}" for value in values]) if is_text else values, limit=10, size=5000)
    top = [number for number, _ in expected.most_common(10)]
    assert set(column.vocabulary) == ({f"w{number}" for number in top} if is_text else set(top))
    assert sorted(column.counts, reverse=True) == [expected[number] for number in top]
    assert column.distinct == pytest.approx(len(expected), rel=0.06)


def twin_splitmix(seed: int, n: int) -> list[int]:
    """As its authors wrote it."""
    state, mask, found = seed, 2**64 - 1, []
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        found.append(z ^ (z >> 31))
    return found


def test_splitmix_is_its_authors() -> None:
    assert splitmix64(0, 2).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]  # known from other implementations
    assert splitmix64(1234567, 9).tolist() == twin_splitmix(1234567, 9)


def test_signs_are_its_bits_from_the_lowest() -> None:
    words = twin_splitmix(5, 3)
    expected = [-1.0 if words[i // 64] >> (i % 64) & 1 else 1.0 for i in range(150)]
    assert signs(5, 150).tolist() == expected


@pytest.mark.parametrize("statistic", ["mean", "std", "min", "max", "norm", "projection", "length"])
def test_a_statistic_is_numpys_in_fp32(statistic: str) -> None:
    rows = np.random.default_rng(8).normal(3, 2, (20, 70)).astype(np.float32)
    double = rows.astype(np.float64)
    expected = {
        "mean": double.mean(1),
        "std": double.std(1),
        "min": double.min(1),
        "max": double.max(1),
        "norm": np.linalg.norm(double, axis=1),
        "projection": double @ signs(4, 70) / math.sqrt(70),
        "length": np.full(20, 70.0),
    }[statistic]
    result = summarise(rows, statistic, 4)
    assert np.allclose(result, expected, rtol=2**-23, atol=0)
    assert (result == result.astype(np.float32)).all()


def test_nan_in_a_tensor_is_nan_in_its_statistics_and_nothing_is_too() -> None:
    rows = np.array([[1.0, np.nan], [1.0, 2.0]])
    for statistic in ("mean", "std", "min", "max", "norm", "projection"):
        assert np.isnan(summarise(rows, statistic, 1)).tolist() == [True, False]
        assert np.isnan(summarise(np.empty((2, 0)), statistic, 1)).all()
    assert summarise(np.empty((2, 0)), "length").tolist() == [0.0, 0.0]
