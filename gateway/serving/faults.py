"""Failures of one version, in the log but not one line each: the first at once, then a count per second."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.observability import logs

QUIET_S = 1.0
"""A model that fails every request would otherwise write thousands of lines a second."""


class FaultLog:
    """`add(error)` on the loop thread. `fields` name whose failures these are."""

    def __init__(self, loop: asyncio.AbstractEventLoop, **fields: Any) -> None:
        self._loop, self._fields = loop, fields
        self._n_held = 0
        self._last: BaseException | None = None
        self._is_quiet = False

    def add(self, error: BaseException) -> None:
        if self._is_quiet:
            self._n_held += 1
            self._last = error
            return
        self._is_quiet = True
        self._loop.call_later(QUIET_S, self._speak)
        self._write(error)

    def _speak(self) -> None:
        self._is_quiet = False
        if self._last is not None:
            last, n_more, self._last, self._n_held = self._last, self._n_held - 1, None, 0
            self._is_quiet = True
            self._loop.call_later(QUIET_S, self._speak)
            self._write(last, n_more=n_more)

    def _write(self, error: BaseException, **more: Any) -> None:
        cause = error.__cause__ or error
        logs.get().error("request failed", **self._fields, error=f"{type(cause).__name__}: {cause}", **more)
