"""Executors: the threads that run batches which are longer than a thread hop.

One hop per batch there, one loop callback per batch back. A lane has as many threads as instances, started when first
needed: a model that always runs inline has none.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from gateway.backends.base import Array
from gateway.native.priority import yield_to_others

Run = Callable[[list[Array]], list[Array]]


class Batch(Protocol):
    """native.batch.Batch, as an executor sees it."""

    def execute(self, run: Run) -> None: ...


B = TypeVar("B", bound=Batch)


class Executor(Generic[B]):
    """Runs batches of one version on at most `n_threads` threads; `completed(batch)` is called on the loop thread;
    `yields`: they leave the core to whoever else wants it.

    `submit` and `close` on the loop thread only.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        n_threads: int,
        loop: asyncio.AbstractEventLoop,
        completed: Callable[[B], None],
        *,
        yields: bool = False,
    ) -> None:
        self._yields = yields
        self._name, self._run, self._n_threads = name, run, n_threads
        self._loop, self._completed = loop, completed
        self._queue: queue.SimpleQueue[B | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._n_busy = 0

    def submit(self, batch: B) -> None:
        """Run it soon. The lane never has more batches out than there are threads."""
        if self._n_busy == len(self._threads) and len(self._threads) < self._n_threads:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            thread.start()
            self._threads.append(thread)
        self._n_busy += 1
        self._queue.put(batch)

    def close(self) -> None:
        """End the threads once they have run what was submitted."""
        for _ in self._threads:
            self._queue.put(None)

    def _on_done(self, batch: B) -> None:
        self._n_busy -= 1
        self._completed(batch)

    def _work(self) -> None:
        if self._yields:
            yield_to_others()
        run, wake, get = self._run, self._loop.call_soon_threadsafe, self._queue.get
        while (batch := get()) is not None:
            batch.execute(run)
            try:
                wake(self._on_done, batch)
            except RuntimeError:  # the loop is closed: the process is about to end
                return
            del batch  # an idle thread must not keep the last requests alive
