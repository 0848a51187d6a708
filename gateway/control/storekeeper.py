"""The control process's store: opened when it can be, and watched, so that status says what is the matter.

Affinity: any thread. Opening takes a good second where the database does not answer, so it has a thread of its own.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.errors import ConfigError, GatewayError, Unavailable
from gateway.observability import logs

if TYPE_CHECKING:
    from gateway.store import Store

EVERY_S = 1.0
OPEN_AGAIN_S = 0.5
OPEN_PATIENCE_S = 5.0


class StoreKeeper:
    """`url` and `state` as Store.open takes them."""

    def __init__(self, url: str, state: Path | None) -> None:
        self._url, self._state = url, state
        self._store: Store | None = None
        self._fault = "it is being opened"
        self._is_up = False
        self.revision = 0
        """As last seen."""
        self._stop = threading.Event()
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._log = logs.get()

    @property
    def fault(self) -> str:
        """Why it cannot be used now; empty when it can."""
        return self._fault

    @property
    def name(self) -> str:
        """For people: no password in it."""
        return self._store.name if self._store else self._url.partition(":")[0]

    def start(self) -> None:
        self._thread.start()

    def get(self) -> Store:
        """The store, whose methods fail by themselves. Unavailable: it was never opened."""
        if self._store is None:
            self._tried.wait(OPEN_PATIENCE_S)  # who comes as we start is not sent away for that
        if self._store is None:
            raise Unavailable(f"the store cannot be used: {self._fault}")
        return self._store

    def close(self) -> None:
        self._stop.set()
        self._thread.join(EVERY_S)
        if self._store:
            self._store.close()

    def _run(self) -> None:
        from gateway.store import Store

        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                if self._store is None:
                    self._store = Store.open(self._url, self._state)
                self.revision = self._store.revision()
            except GatewayError as error:
                self._note(str(error), is_lasting=isinstance(error, ConfigError))
            except Exception as error:
                self._log.exception("store failed", error=str(error))
                self._note(f"{type(error).__name__}: {error}")
            else:
                self._note("")
            self._tried.set()
            every_s = EVERY_S if self._store else OPEN_AGAIN_S
            self._stop.wait(max(0.0, every_s - (time.monotonic() - began_s)))

    def _note(self, fault: str, is_lasting: bool = False) -> None:
        if bool(fault) != bool(self._fault) or (fault and not self._is_up and fault != self._fault):
            if fault:
                cure = "mend it and start again" if is_lasting else "requests are served by the last routes"
                self._log.error("store is out of reach", error=fault, then=cure)
            else:
                self._log.info("store is there", store=self.name, revision=self.revision)
        self._fault, self._is_up = fault, not fault
