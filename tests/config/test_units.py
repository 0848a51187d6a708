"""Durations and sizes, as files and flags spell them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.units import (
    MAX_DURATION_US,
    MAX_SIZE_BYTES,
    format_duration,
    format_size,
    parse_duration_us,
    parse_size_bytes,
)


@pytest.mark.parametrize(
    ("written", "us"),
    [
        ("500us", 500),
        ("500µs", 500),  # the micro sign
        ("500\u03bcs", 500),  # the Greek letter
        ("2ms", 2_000),
        ("0.5 ms", 500),
        ("1.5s", 1_500_000),
        (" 30S ", 30_000_000),
        ("2min", 120_000_000),
        ("1h", 3_600_000_000),
        ("30", 30_000_000),
        (30, 30_000_000),
        (0.1, 100_000),  # not 99999
        (1e-06, 1),
        (0, 0),
        ("0", 0),
        ("0.0000019s", 2),
    ],
)
def test_a_duration_is_read_in_microseconds(written: Any, us: int) -> None:
    assert parse_duration_us(written) == us


@pytest.mark.parametrize(
    "written",
    ["5 parsecs", "", "ms", "-1ms", "1e3", "1,5s", "1_000us", "1m", "٣s", True, None, [], -1, float("nan"), 1e999],
)
def test_what_is_no_duration_is_refused_with_examples(written: Any) -> None:
    with pytest.raises(ValueError, match=r"^a duration such as 500us, 2ms or 1\.5s$"):
        parse_duration_us(written)


def test_durations_out_of_range_are_refused() -> None:
    assert parse_duration_us(f"{MAX_DURATION_US}us") == MAX_DURATION_US
    with pytest.raises(ValueError, match="of a year at most"):
        parse_duration_us(f"{MAX_DURATION_US + 1}us")
    with pytest.raises(ValueError, match="of a microsecond at least"):
        parse_duration_us("0.9us")


@pytest.mark.parametrize(
    ("written", "n_bytes"),
    [
        (65536, 65536),
        ("65536", 65536),
        ("64MiB", 64 * 2**20),
        ("64 mib", 64 * 2**20),
        ("1.5KiB", 1536),
        ("10kB", 10_000),
        ("1GB", 10**9),
        ("2TiB", 2**41),
        ("7B", 7),
        (2.0, 2),
        (0, 0),
    ],
)
def test_a_size_is_read_in_bytes(written: Any, n_bytes: int) -> None:
    assert parse_size_bytes(written) == n_bytes


@pytest.mark.parametrize("written", ["64 apples", "", "64M", "-1", True, None, {}, 1.5, "0.3KiB", MAX_SIZE_BYTES + 1])
def test_what_is_no_size_is_refused_with_examples(written: Any) -> None:
    with pytest.raises(ValueError, match=r"^a size such as 65536, 512KiB or 64MiB"):
        parse_size_bytes(written)


@given(st.integers(0, MAX_DURATION_US))
def test_a_printed_duration_reads_back(us: int) -> None:
    assert parse_duration_us(format_duration(us)) == us


@given(st.integers(0, MAX_SIZE_BYTES))
def test_a_printed_size_reads_back(n_bytes: int) -> None:
    assert parse_size_bytes(format_size(n_bytes)) == n_bytes


def test_prints_are_short() -> None:
    assert [format_duration(us) for us in (0, 1, 1_500, 2_000, 30_000_000)] == ["0s", "1us", "1500us", "2ms", "30s"]
    assert [format_size(n) for n in (0, 1000, 1024, 64 * 2**20, 2**30)] == ["0", "1000", "1KiB", "64MiB", "1GiB"]
