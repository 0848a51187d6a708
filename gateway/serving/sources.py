"""What a worker counts for the store beside its own state, read on the loop and written from the agent's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.observability import logs

if TYPE_CHECKING:
    from gateway.store import Report, Store


MAX_UNTOLD = 10_000
"""Reports kept while the store is away: a day of minutes of seven versions; then the oldest go."""


class SourceReport(Protocol):
    """What a source has to say, in the fields of gateway.store.Report: that one would cost its import."""

    @property
    def kind(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def body(self) -> bytes: ...

    @property
    def at(self) -> float: ...


Read = Callable[[], Sequence[SourceReport]]
Every = float | Callable[[], float]
"""Seconds; or asked each time, by a source that is in a hurry now and then.
"""


@dataclass(slots=True)
class _Source:
    kind: str
    every_s: Every
    read: Read
    asked_s: float

    @property
    def due_s(self) -> float:
        return self.asked_s + (self.every_s() if callable(self.every_s) else self.every_s)


class Sources:
    """Each is asked every so often. What the store does not take is kept, the latest of each key, and told with the
    next: a source says only what has changed since it was asked.
    """

    def __init__(self) -> None:
        self._sources: list[_Source] = []
        self._untold: dict[tuple[str, str, str, str], Report] = {}

    def add(self, kind: str, every_s: Every, read: Read) -> None:
        self._sources.append(_Source(kind, every_s, read, time.monotonic()))

    @property
    def due_s(self) -> float:
        """When the next one is, by the monotonic clock."""
        return min((source.due_s for source in self._sources), default=float("inf"))

    def send(self, store: Store, incarnation: str, call: Callable[[Read], Sequence[SourceReport]]) -> str:
        """Those that are due. `call` has something done on the loop. Why the store could not be written to, or ""."""
        from gateway.store import Report, StoreUnavailable

        now_s = time.monotonic()
        for source in self._sources:
            if now_s < source.due_s:
                continue
            source.asked_s = now_s
            try:
                for r in call(source.read):
                    key = (r.kind, r.model, r.version, r.key)
                    self._untold.pop(key, None)  # to the end: the oldest go first when there are too many
                    self._untold[key] = Report(*key, r.body, r.at)
                while len(self._untold) > MAX_UNTOLD:
                    del self._untold[next(iter(self._untold))]
                if self._untold:
                    store.put_reports(incarnation, [*self._untold.values()])
                    self._untold.clear()
            except StoreUnavailable as error:
                return str(error)
            except Exception as error:
                logs.get().exception("reports are lost", kind=source.kind, error=str(error))
        return ""
