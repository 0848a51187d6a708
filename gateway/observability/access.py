"""The access log: one line for every Nth request, none by default.

The native side counts and calls `record` for sampled requests only. Lines are written by a thread of their own, so that
a slow reader of the log costs lines, and never a request's time; what did not fit is counted and told.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.errors import Code
from gateway.observability import logs, trace

MAX_WAITING = 1000
"""Lines that wait for the reader of the log: half a megabyte."""
DROPS_EVERY_S = 1.0
CLOSE_PATIENCE_S = 1.0

Write = Callable[..., None]
"""(event, **fields), as a structlog logger's info."""


class AccessLog:
    """`record` on the loop thread; `write` is called on another. Close it to see the last lines out."""

    def __init__(self, write: Write | None = None, warn: Write | None = None) -> None:
        self._write: Write = write or logs.get().info
        self._warn: Write = warn or logs.get().warning
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(MAX_WAITING)
        self._n_dropped = 0
        self._n_told = 0
        self._told_at_s = 0.0
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def record(
        self,
        model: str,
        version: str,
        request_id: str,
        code: int,
        arrived_us: int,
        queue_us: int,
        run_us: int,
        total_us: int,
        protocol: str,
        traceparent: bytes | None = None,
        parameters: Sequence[tuple[str, str]] = (),
    ) -> None:
        """One request that was answered or refused. `arrived_us` on the monotonic clock; `code` as gRPC numbers it;
        `parameters` are the headers that the deployment forwards. A traceparent that is none is left out. Never waits.
        """
        age_s = time.monotonic() - arrived_us / 1e6
        arrived = datetime.fromtimestamp(time.time() - age_s, UTC)
        fields: dict[str, Any] = {
            "model": model,
            "version": version,
            "id": request_id,
            "code": _name(code),
            "queue_ms": queue_us / 1000,
            "run_ms": run_us / 1000,
            "total_ms": total_us / 1000,
            "protocol": protocol,
            "arrived": arrived.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if traceparent and (parent := trace.parse(traceparent)):
            fields["traceparent"] = str(parent)
        if parameters:
            fields["parameters"] = dict(parameters)
        try:
            self._waiting.put_nowait(fields)
        except queue.Full:
            self._n_dropped += 1

    def close(self) -> None:
        """Write what waits, but not for longer than CLOSE_PATIENCE_S."""
        self._is_closing = True
        with contextlib.suppress(queue.Full):  # full: the thread sees _is_closing when it gets on
            self._waiting.put_nowait(None)
        self._thread.join(CLOSE_PATIENCE_S)

    def _run(self) -> None:
        while True:
            fields = self._waiting.get()
            if fields is not None:
                self._write("request", **fields)
            if self._is_closing and (fields is None or self._waiting.empty()):
                self._tell_drops()
                return
            if time.monotonic() - self._told_at_s > DROPS_EVERY_S:
                self._tell_drops()

    def _tell_drops(self) -> None:
        n_new = self._n_dropped - self._n_told
        if n_new:
            self._n_told += n_new
            self._told_at_s = time.monotonic()
            self._warn("access log too slow", lines_dropped=n_new)


def _name(code: int) -> str:
    try:
        return Code(code).name
    except ValueError:
        return str(code)
