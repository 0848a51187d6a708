"""What a worker counts for the store beside its own state, read on the loop and written from the agent's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.observability import logs

if TYPE_CHECKING:
    from gateway.store import Store


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


@dataclass(slots=True)
class _Source:
    kind: str
    every_s: float
    read: Read
    due_s: float


class Sources:
    """Each is asked every so often. Their reports are cumulative: one that gets lost is made up for by the next."""

    def __init__(self) -> None:
        self._sources: list[_Source] = []

    def add(self, kind: str, every_s: float, read: Read) -> None:
        self._sources.append(_Source(kind, every_s, read, time.monotonic() + every_s))

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
            source.due_s = now_s + source.every_s
            try:
                reports = call(source.read)
                if reports:
                    store.put_reports(
                        incarnation, [Report(r.kind, r.model, r.version, r.key, r.body, r.at) for r in reports]
                    )
            except StoreUnavailable as error:
                return str(error)
            except Exception as error:
                logs.get().exception("reports are lost", kind=source.kind, error=str(error))
        return ""
