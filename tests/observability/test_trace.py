"""traceparent, against the examples of W3C Trace Context and against everything that is nearly one."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.observability.trace import MAX_CHARACTERS, TraceParent, parse

EXAMPLE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def hex_of(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


parents = st.builds(TraceParent, hex_of(32), hex_of(16), st.integers(0, 3))


def test_the_example_of_the_standard_is_taken_apart() -> None:
    parent = parse(EXAMPLE)
    assert parent == TraceParent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)
    assert parent.is_sampled
    assert str(parent) == EXAMPLE
    assert str(parent.child("b7ad6b7169203331")) == "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01"


@given(parents)
def test_what_is_written_is_read_back(parent: TraceParent) -> None:
    assert parse(str(parent)) == parent
    assert parse(str(parent).encode()) == parent


@given(parents, st.integers(1, 254), st.text(st.characters(codec="ascii", exclude_characters="\n"), max_size=40))
def test_a_later_version_may_append_fields_and_is_passed_on_as_version_00(
    parent: TraceParent, version: int, more: str
) -> None:
    later = f"{version:02x}{str(parent)[2:]}"
    assert parse(later) == parse(f"{later}-{more}") == parent


@pytest.mark.parametrize(
    "header",
    [
        "",
        EXAMPLE.upper(),
        EXAMPLE + "-",
        EXAMPLE + "-what-the-future-brings",
        EXAMPLE + " ",
        " " + EXAMPLE,
        EXAMPLE + "\n",
        EXAMPLE + "0",
        EXAMPLE[:-1],
        EXAMPLE.replace("-", "_"),
        "ff" + EXAMPLE[2:],
        "0" + EXAMPLE,
        "cc" + EXAMPLE[2:] + ".",
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473\u0664-00f067aa0ba902b7-01",
        "cc" + EXAMPLE[2:] + "-" + "x" * MAX_CHARACTERS,
    ],
)
def test_anything_else_is_no_trace(header: str) -> None:
    assert parse(header) is None


@given(st.one_of(st.text(), st.binary(), st.from_regex(r"[0-9a-f]{2}-[0-9a-f-]{48,50}-[0-9a-f]{2}", fullmatch=True)))
@example(b"\xff" * 55)
def test_whatever_comes_is_valid_in_full_or_nothing(header: str | bytes) -> None:
    parent = parse(header)
    if parent is not None:
        assert re.fullmatch(r"[0-9a-f]{32}", parent.trace_id)
        assert re.fullmatch(r"[0-9a-f]{16}", parent.parent_id)
        assert int(parent.trace_id, 16)
        assert int(parent.parent_id, 16)
        assert 0 <= parent.flags <= 255
