"""Durations and sizes as people write them: "2ms", "1.5s", "64MiB".

Files and flags share these parsers, so that one spelling works everywhere. A bare number is seconds or bytes.
Every refusal says what would have been accepted; `Expected` carries that half of the sentence to the renderer in
files.py.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

DURATION_HINT = "a duration such as 500us, 2ms or 1.5s"
SIZE_HINT = "a size such as 65536, 512KiB or 64MiB"
EVERY_HINT = "a fraction such as 0.01, or a whole number N for every Nth (0 = none)"

MAX_DURATION_US = 366 * 24 * 3600 * 10**6
"""One year: beyond it a duration is a typing error, and the sum of two still fits a C int64 in nanoseconds."""

MAX_SIZE_BYTES = 2**53
"""What a JSON or YAML number holds exactly."""

MAX_EVERY = 2**31 - 1

_US_PER = {"us": 1, "µs": 1, "μs": 1, "ms": 10**3, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6}  # both micro signs
_BYTES_PER = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_QUANTITY = re.compile(r"\s*(\d{1,19}(?:\.\d{1,19})?)\s*([A-Za-zµμ]*)\s*", re.ASCII)


def expected(text: str) -> PydanticCustomError:
    """The error a validator raises to be shown as `got <input>, expected <text>`."""
    return PydanticCustomError("expected", "expected {expected}", {"expected": text})


def _quantity(value: Any) -> tuple[Fraction, str] | None:
    """Number and unit of "1.5s", 1.5 or 3; None when it is neither. Exact: 0.1 s is 100000 us, not 99999."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return (Fraction(str(value)), "") if math.isfinite(value) and value >= 0 else None
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    return (Fraction(match[1]), match[2]) if match else None


def parse_duration_us(value: Any) -> int:
    """Microseconds of "500us", "2ms", "1.5s", "2min", "1h", or of a number of seconds. ValueError says what is
    accepted.
    """
    quantity = _quantity(value)
    scale = None if quantity is None else _US_PER.get(quantity[1].lower() or "s")
    if quantity is None or scale is None:
        raise ValueError(DURATION_HINT)
    exact_us = quantity[0] * scale
    if exact_us > MAX_DURATION_US:
        raise ValueError(f"{DURATION_HINT}, of a year at most")
    if 0 < exact_us < 1:
        raise ValueError(f"{DURATION_HINT}, of a microsecond at least (or 0)")
    return round(exact_us)


def parse_size_bytes(value: Any) -> int:
    """Bytes of "64MiB", "10kB", "512", or of a whole number. ValueError says what is accepted."""
    quantity = _quantity(value)
    scale = None if quantity is None else _BYTES_PER.get(quantity[1].lower() or "b")
    if quantity is None or scale is None:
        raise ValueError(SIZE_HINT)
    exact_bytes = quantity[0] * scale
    if exact_bytes.denominator != 1 or exact_bytes > MAX_SIZE_BYTES:
        raise ValueError(f"{SIZE_HINT}: whole bytes, 8 PiB at most")
    return int(exact_bytes)


def parse_every(value: Any) -> int:
    """N of "every Nth", from N itself or from a fraction: 0.01 and 100 are every 100th, 1 is every one, 0 is none.
    ValueError says what is accepted.
    """
    quantity = _quantity(value)
    if quantity is None or quantity[1] or (quantity[0] > 1 and quantity[0].denominator != 1) or quantity[0] > MAX_EVERY:
        raise ValueError(EVERY_HINT)
    number = quantity[0]
    if 0 < number < 1:
        return min(round(1 / number), MAX_EVERY)
    return int(number)


def format_duration(us: int) -> str:
    """The shortest exact spelling, as parse_duration_us reads it back: 1500 -> "1500us", 2000 -> "2ms"."""
    for unit in ("s", "ms"):
        if us % _US_PER[unit] == 0:
            return f"{us // _US_PER[unit]}{unit}"
    return f"{us}us"


def format_size(n_bytes: int) -> str:
    """The shortest exact spelling, as parse_size_bytes reads it back: 67108864 -> "64MiB", 1000 -> "1000"."""
    for unit in ("GiB", "MiB", "KiB"):
        if n_bytes and n_bytes % _BYTES_PER[unit.lower()] == 0:
            return f"{n_bytes // _BYTES_PER[unit.lower()]}{unit}"
    return str(n_bytes)


def _duration(value: Any) -> int:
    try:
        return parse_duration_us(value)
    except ValueError as error:
        raise expected(str(error)) from None


def _size(value: Any) -> int:
    try:
        return parse_size_bytes(value)
    except ValueError as error:
        raise expected(str(error)) from None


def _duration_or_none(value: Any) -> int | None:
    return None if value is None or value == "none" else _duration(value)


DurationUs = Annotated[int, BeforeValidator(_duration)]
"""Pydantic field: written as a duration (a number means seconds), held in microseconds."""

OptionalDurationUs = Annotated[int | None, BeforeValidator(_duration_or_none)]
"""The same, where `none` or null says that there is no such bound."""

SizeBytes = Annotated[int, BeforeValidator(_size)]
"""Pydantic field: written as a size, held in bytes."""
