"""Loads that failed for a while only: tried again with pauses that grow, until one succeeds or nobody wants it.

Affinity: owning loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

from gateway.errors import GatewayError
from gateway.serving.catalog import ServedVersion, State

FIRST_S = 0.5
MOST_S = 5.0


class Retries:
    def __init__(self, load: Callable[[str, str], Awaitable[None]]) -> None:
        """`load(model, version)` reports each failure by calling `later` again."""
        self._load = load
        self._tasks: dict[ServedVersion, asyncio.Task[None]] = {}
        self._pauses_s: dict[ServedVersion, float] = {}

    def later(self, entry: ServedVersion) -> None:
        pause_s = self._pauses_s.get(entry, FIRST_S)
        self._pauses_s[entry] = min(2 * pause_s, MOST_S)
        self._tasks[entry] = asyncio.get_running_loop().create_task(self._try(entry, pause_s))

    def forget(self, entries: Iterable[ServedVersion]) -> None:
        """Nobody wants them any more."""
        for entry in entries:
            self._pauses_s.pop(entry, None)
            if task := self._tasks.pop(entry, None):
                task.cancel()

    def close(self) -> None:
        self.forget([*self._tasks])

    async def _try(self, entry: ServedVersion, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        del self._tasks[entry]  # from here on it is a load like any other
        if entry.state is not State.UNAVAILABLE:
            return
        with contextlib.suppress(GatewayError):
            await self._load(entry.model, entry.version)
        if entry.is_ready:
            self._pauses_s.pop(entry, None)
