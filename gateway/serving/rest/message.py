"""One HTTP request and its answer, as a handler sees them: bytes in, bytes out, nothing of sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol

import orjson

from gateway.errors import GatewayError
from gateway.serving.rest.errors import status_of

Buffer = bytes | bytearray | memoryview

JSON = b"Content-Type: application/json\r\n"
BINARY = b"Content-Type: application/octet-stream\r\n"

JOINED_BYTES = 32768
"""An answer up to this size is copied into one piece; above it the socket takes the pieces where they lie."""

MAX_ERROR_CHARS = 1500
"""Of an error's text: names in it are the caller's own and may be megabytes."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

_PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: "


class Clock:
    """The Date header, formatted once a second by whoever sweeps."""

    def __init__(self) -> None:
        self.tick()

    def tick(self) -> None:
        self.line = f"Date: {formatdate(usegmt=True)}\r\n".encode()
        self.plain = _PLAIN + self.line[6:] + b"Content-Length: "


class Carrier(Protocol):
    """The connection that a request came on."""

    clock: Clock

    def on_answered(self, request: Request) -> None: ...


class Request:
    """From its headers to its answer. Loop thread only; exactly one of `respond` and `fail`, or the caller goes first
    and `cancel` is called instead.
    """

    __slots__ = (
        "answer",
        "args",
        "body",
        "cancel",
        "carrier",
        "connection_header",
        "fields",
        "handler",
        "id",
        "is_head",
        "is_last",
        "n_held",
        "status",
    )

    carrier: Carrier
    handler: Callable[[Request], None]
    args: tuple[str, ...]
    """What the path names, percent-decoded."""
    fields: dict[bytes, bytes]
    """The headers that anybody here reads, by lower-case name."""
    body: Any
    """bytes, or a writable memoryview of a large body."""
    answer: Sequence[Buffer] | None
    cancel: Callable[[], None] | None
    """Set by a handler that has not answered yet: the caller is gone."""

    def __init__(self, carrier: Carrier, handler: Callable[[Request], None], args: tuple[str, ...]) -> None:
        self.carrier, self.handler, self.args = carrier, handler, args
        self.fields = {}
        self.body = b""
        self.id = ""
        self.is_head = self.is_last = False
        self.connection_header = b""
        self.answer, self.cancel = None, None
        self.n_held = self.status = 0

    def respond(
        self, body: bytes = b"", status: int = 200, headers: bytes = JSON, more: Sequence[memoryview] = ()
    ) -> None:
        """Answer with `body` and the buffers of `more` behind it. A second answer is dropped: the caller has one."""
        if self.answer is not None:
            return
        self.cancel = None
        self.status = status
        if not more and status == 200 and headers is JSON and not self.connection_header and not self.is_head:
            self.answer = (
                (b"%b%d\r\n\r\n%b" % (self.carrier.clock.plain, len(body), body),)
                if len(body) <= JOINED_BYTES
                else (b"%b%d\r\n\r\n" % (self.carrier.clock.plain, len(body)), body)
            )
            self.carrier.on_answered(self)
            return
        n = len(body) + sum([part.nbytes for part in more])
        head = b"%b%b%b%bContent-Length: %d\r\n\r\n" % (
            _STATUS_LINES[status],
            self.carrier.clock.line,
            headers,
            self.connection_header,
            n,
        )
        if self.is_head:
            self.answer = (head,)
        elif n <= JOINED_BYTES:
            self.answer = (b"".join((head, body, *more)),)
        else:
            self.answer = (head + body, *more)
        self.carrier.on_answered(self)

    def respond_json(self, value: Any, status: int = 200) -> None:
        self.respond(orjson.dumps(value), status)

    def fail(self, status: int, text: str, headers: bytes = b"") -> None:
        """{"error": text}, and the request's id when it gave one, in its body or as X-Request-Id."""
        error = {"error": text if len(text) <= MAX_ERROR_CHARS else text[: MAX_ERROR_CHARS - 3] + "..."}
        if self.error_id:
            error["id"] = self.error_id
        self.respond(orjson.dumps(error), status, JSON + headers if headers else JSON)

    @property
    def error_id(self) -> str:
        """What the caller called it, in its body or in its headers; "" when it did not."""
        return self.id[:MAX_ERROR_CHARS] or self.fields.get(b"x-request-id", b"")[:MAX_ERROR_CHARS].decode("latin-1")

    def refuse(self, error: GatewayError) -> None:
        self.fail(status_of(error), str(error), getattr(error, "headers", b""))
