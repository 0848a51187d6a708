"""One control process among several does what must be done once: it holds a lease in the store.

Each duty has a thread of its own and runs, while we lead, every so often; what fails is logged once and tried again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.control.storekeeper import StoreKeeper
from gateway.errors import GatewayError
from gateway.observability import logs

if TYPE_CHECKING:
    from gateway.store import Store

LEASE = "control"
TTL_S = 9.0
"""Longer than a store may take to come back from a restart; shorter than an operator's patience."""
RENEW_S = 3.0

Work = Callable[["Store"], None]


class Leader:
    """`holder` names this control process, and one that takes its place: it need not wait for the lease to run out."""

    def __init__(self, keeper: StoreKeeper, holder: str) -> None:
        self._keeper, self._holder = keeper, holder
        self._stop = threading.Event()
        self._leads = threading.Event()
        self._until_s = 0.0
        self._term: int | None = None
        self._threads = [threading.Thread(target=self._hold, name="leader", daemon=True)]
        self._log = logs.get()

    @property
    def term(self) -> int | None:
        """The fencing term while we lead."""
        return self._term if time.monotonic() < self._until_s else None

    def add(self, name: str, every_s: float, work: Work) -> None:
        """Before `start`."""
        thread = threading.Thread(target=self._serve, args=(name, every_s, work), name=name, daemon=True)
        self._threads.append(thread)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._leads.set()
        for thread in self._threads:
            thread.join(1.0)

    def _hold(self) -> None:
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                term = self._keeper.get().lease(LEASE, self._holder, TTL_S)
            except GatewayError:  # the keeper reports it
                self._stop.wait(0.2)
                continue
            if term != self._term:
                self._log.info("leads" if term else "another control process leads", term=term)
            self._term, self._until_s = term, began_s + TTL_S if term else 0.0
            if term:
                self._leads.set()
            else:
                self._leads.clear()
            self._stop.wait(RENEW_S)
        if self.term:
            with contextlib.suppress(GatewayError):
                self._keeper.get().release(LEASE, self._holder)

    def _serve(self, name: str, every_s: float, work: Work) -> None:
        last = ""
        while True:
            self._leads.wait()
            if self._stop.is_set():
                return
            try:
                if self.term:
                    work(self._keeper.get())
                last = ""
            except GatewayError as error:
                if str(error) != last and self._keeper.fault == "":
                    self._log.warning("duty put off", duty=name, error=str(error))
                last = str(error)
            except Exception as error:
                if repr(error) != last:
                    self._log.exception("duty failed", duty=name, error=str(error))
                last = repr(error)
            self._stop.wait(every_s)
