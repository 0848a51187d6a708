"""Waiting for a condition, with a deadline: never a bare sleep that hopes. And setting a scene anew that was over too
early, for a machine that has no time for a test is no fault of what it tests.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

PATIENCE_S = 30.0
"""Nobody waits so long for what comes; a machine that many share may need it."""

LONGER = (1, 4, 16)
"""What must last, lasts so many times as long at each attempt."""


def eventually(probe: Callable[[], T], what: str, timeout_s: float = PATIENCE_S) -> T:
    """The first truthy answer of `probe`; AssertionError after the deadline, naming what did not come."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        if answer := probe():
            return answer
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.005)


class OverTooEarly(Exception):
    """What a test had set up did not last until it looked: nothing was shown, neither good nor bad."""


_times = 1


def lasting(amount: int) -> int:
    """So long as it must last in this attempt; `amount` in the first."""
    return amount * _times


def is_repeated() -> bool:
    """Something of the attempt before may still be going on."""
    return _times > 1


def set_up_anew(test: Callable[P, None]) -> Callable[P, None]:
    """A test whose scene was over too early begins again with one that lasts longer, twice at most."""

    @functools.wraps(test)
    def attempts(*arguments: P.args, **named: P.kwargs) -> None:
        global _times
        try:
            for _times in LONGER:
                try:
                    test(*arguments, **named)
                    return
                except OverTooEarly:
                    if _times == LONGER[-1]:
                        raise
        finally:
            _times = 1

    return attempts


def still_held(*held: Any) -> None:
    """These calls, which a test holds something with, have not been answered yet."""
    if any(call.done() for call in held):
        raise OverTooEarly("what was to be held was free before the test had looked")
