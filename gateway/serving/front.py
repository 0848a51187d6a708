"""What the HTTP/1.1 connections of one worker share: router, bounds, counters, and their common end."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, monotonic_ns
from typing import Any

from gateway.config.limits import Limits
from gateway.errors import Code
from gateway.native.httphead import MAX_HEAD_BYTES
from gateway.serving.http1 import READ_BYTES, Http1
from gateway.serving.rest.message import Clock, Request
from gateway.serving.rest.router import Router

_TURNED_AWAY = {
    404: ("unknown_path", Code.NOT_FOUND),
    405: ("unknown_path", Code.UNIMPLEMENTED),
    408: ("too_slow", Code.DEADLINE_EXCEEDED),
    413: ("message_bytes", Code.RESOURCE_EXHAUSTED),
    429: ("in_flight_bytes", Code.RESOURCE_EXHAUSTED),
    431: ("header_list_bytes", Code.RESOURCE_EXHAUSTED),
    501: ("malformed", Code.UNIMPLEMENTED),
    503: ("not_ready", Code.UNAVAILABLE),
}
"""By status, the name that native.door has for the reason, and the gRPC code that says the same."""
_MALFORMED = ("malformed", Code.INVALID_ARGUMENT)


class Front:
    """One per worker, on its loop. `report(error)` takes failures for the log."""

    def __init__(self, hub: Any, router: Router, limits: Limits, report: Callable[[BaseException], None]) -> None:
        self.hub, self.router, self.limits, self.report = hub, router, limits, report
        self.budget = hub.budget
        self.clock = Clock()
        self.reads_plain = limits.max_header_list_bytes > 2 * MAX_HEAD_BYTES
        """Whether heads may pass the parser, whose bound they could not break."""
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.is_draining = self.is_final = False
        self.n_held = 0
        """Bytes of bodies that are being received or wait for a handler; the native side counts what it took over."""
        self.n_requests = 0
        self.n_by_status: dict[int, int] = {}

    def connect(self, transport: Any) -> Http1:
        """The factory that the hub hands a transport to, once its first bytes are no HTTP/2."""
        return Http1(self, transport)

    def has_room(self, n: int) -> bool:
        return bool(self.n_held + self.budget.used + n <= self.budget.limit)

    def turn_away(self, status: int, request: Request | None) -> None:
        """Count a request that no lane will count, and tell the access log if it was for a model."""
        reason, code = _TURNED_AWAY.get(status, _MALFORMED)
        if request is not None and getattr(request.handler, "is_infer", False):
            model, version = (*request.args, "")[:2]
            reason = "unknown_model" if status == 404 else reason
            self.hub.turn_away(reason, code, model, version, request.error_id, monotonic_ns() // 1000)
        else:
            self.hub.door.refuse(reason, code, False)

    def sweep(self) -> None:
        """Once a second: the Date header, and connections that make no progress."""
        self.clock.tick()
        now_s = monotonic()
        for connection in list(self.hub.http1_connections):
            connection.check_progress(now_s)

    def drain(self) -> None:
        """What is open is finished and told `Connection: close`. Idle connections stay until `finish_drain`: a request
        may be on its way, and HTTP/1.1 has no word for it.
        """
        self.is_draining = True

    def finish_drain(self) -> None:
        self.is_final = True
        for connection in list(self.hub.http1_connections):
            connection.close_if_idle()

    def abort(self) -> None:
        for connection in list(self.hub.http1_connections):
            connection.transport.abort()

    @property
    def n_open(self) -> int:
        """Requests that came and are not answered."""
        return sum(connection.n_open for connection in self.hub.http1_connections)
