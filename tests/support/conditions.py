"""Waiting for a condition, with a deadline: never a bare sleep that hopes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], what: str, timeout_s: float = 10.0) -> T:
    """The first truthy answer of `probe`; AssertionError after the deadline, naming what did not come."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        if answer := probe():
            return answer
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.005)
