"""Values as a route's document has them: versions, percentages, header names, durations. Each refusal says what would
have been accepted.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from gateway.config.units import (
    MAX_DURATION_US,
    expected,
    format_duration,
    format_size,
    parse_duration_us,
    parse_size_bytes,
)
from gateway.native.noted import noted_is

MAX_TEXT = 200

_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,200}")


def _version(value: Any) -> str:
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not re.fullmatch(r"[1-9][0-9]{0,17}", text, re.ASCII):
        raise expected('the number of a version, such as "2"')
    return text


def _percent(value: Any) -> int | float:
    """Whole when it is whole: equal routes have equal documents."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
        raise expected("a percentage from 0 to 100")
    exact = Fraction(str(value)) * 100
    if exact.denominator != 1:
        raise expected("a percentage with at most 2 decimals")
    return int(exact) // 100 if exact % 100 == 0 else float(exact / 100)


def _header(value: Any) -> str:
    name = value.lower() if isinstance(value, str) else ""
    if not _HEADER.fullmatch(name):
        raise expected("the name of a header, such as x-user")
    if not noted_is(name.encode()):
        raise expected("a header of the application's own; HTTP and gRPC keep this one to themselves")
    return name


def _duration(value: Any) -> int:
    try:
        return parse_duration_us(value)
    except ValueError as error:
        raise expected(str(error)) from None


def _duration_or_none(value: Any) -> int | None:
    if value in ("forever", "none", None):
        return None
    # A bare m is refused elsewhere, where milliseconds may be meant; for what is kept it can only be minutes.
    return _duration(f"{value}in" if isinstance(value, str) and re.fullmatch(r"\s*\d+m\s*", value) else value)


def _size(value: Any) -> int:
    try:
        n_bytes = parse_size_bytes(value)
    except ValueError as error:
        raise expected(str(error)) from None
    if not n_bytes:
        raise expected("a byte at least")
    return n_bytes


def once(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise expected("each value once")
    return values


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Version = Annotated[str, BeforeValidator(_version)]
Percent = Annotated[int | float, BeforeValidator(_percent), Field(ge=0, le=100)]
Header = Annotated[str, BeforeValidator(_header)]
Parameter = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
ArmName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Duration = Annotated[int, BeforeValidator(_duration), PlainSerializer(format_duration), Field(le=MAX_DURATION_US)]
Size = Annotated[int, BeforeValidator(_size), PlainSerializer(format_size)]
OptionalDuration = Annotated[
    int | None,
    BeforeValidator(_duration_or_none),
    PlainSerializer(lambda us: "forever" if us is None else format_duration(us)),
]
"""`forever` is None."""
