"""The message that is being received on an HTTP/1.1 connection: what llhttp tells of it, and its bounds.

IDLE ──▶ HEAD ──▶ BODY ──▶ IDLE       DISCARD: the last answer is known; input is thrown away until the peer closes,
           └────▶ DIRECT ──▶ IDLE              because closing a socket with unread input destroys the answer
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from time import monotonic
from typing import TYPE_CHECKING, Any

import httptools
import numpy as np

from gateway.serving.rest.errors import HttpError
from gateway.serving.rest.message import Request

if TYPE_CHECKING:
    from gateway.serving.front import Front

DIRECT_BYTES = 16384
"""A body from this size on is received into its own memory."""

_KNOWN = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
        b"accept-encoding",
        b"expect",
        b"inference-header-content-length",
        b"x-request-id",
    )
)


def memory(n: int) -> memoryview:
    """n bytes, writable and not cleared: what is never filled never becomes resident."""
    return memoryview(np.empty(n, np.uint8))  # type: ignore[arg-type]


class Phase(enum.IntEnum):
    IDLE = 0
    HEAD = 1
    BODY = 2
    DIRECT = 3
    DISCARD = 4


_IDLE, _HEAD, _BODY, _DIRECT, _DISCARD = Phase


class Incoming(ABC):
    """Half of a connection: the other, Http1, feeds it, and answers what is complete or refused."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.clock = front.clock
        self._parser: Any = httptools.HttpRequestParser(self)
        self._phase = _IDLE
        self._wants_continue = False
        self._began_s = monotonic()
        # of the message
        self._url = b""
        self._fields: dict[bytes, bytes] = {}
        self._n_head = 0  # bytes of its head, by complete headers
        self._n_feed = 0  # of the feed in progress, for the first message that begins in it; 0 for the others
        self._n_fed = 0  # since the message began
        self._n_quiet = 0  # bytes since the parser last gave a part of the body: trailers, chunk extensions
        self._chunks: list[bytes] = []
        self._n_body = 0
        self._target: memoryview | None = None  # of a large body
        self._request: Request | None = None
        self._is_upgrade = False

    @abstractmethod
    def on_answered(self, request: Request) -> None:
        """It has its answer."""

    @abstractmethod
    def _complete(self) -> None:
        """The message is all here."""

    @abstractmethod
    def _end_with(self, request: Request) -> None:
        """Nothing is read behind it."""

    # --- the parser

    def on_message_begin(self) -> None:
        if self._phase is not _DISCARD:
            self._phase = _HEAD
            self._url = b""
            self._fields = {}
            self._n_head = 0
            self._n_fed, self._n_feed = self._n_feed, 0
            self._began_s = monotonic()

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is not _HEAD:
            return  # a trailer
        self._n_head += len(name) + len(value) + 4
        name = name.lower()
        fields = self._fields
        if name not in fields:
            fields[name] = value
        elif name in _KNOWN:  # of others, which only routes look at, the first counts, as in gRPC
            fields[name] += b", " + value

    def on_headers_complete(self) -> None:
        if self._phase is not _HEAD:
            return
        limits = self.front.limits
        if self._n_head + len(self._url) > limits.max_header_list_bytes:
            self._refuse_head()
            return
        parser, fields = self._parser, self._fields
        method = parser.get_method()
        try:
            handler, args = self.front.router.find(method, self._url)
        except HttpError as error:
            self.front.turn_away(error.status, None)
            refusal = error
            handler, args = lambda request: request.refuse(refusal), ()
            is_refused = True
        else:
            is_refused = False
        request = self._request = Request(self, handler, args)
        request.fields = fields
        request.is_head = method == b"HEAD"
        version = parser.get_http_version()
        if not parser.should_keep_alive():
            request.is_last = True
            request.connection_header = b"Connection: close\r\n"
        elif version == "1.0":
            request.connection_header = b"Connection: keep-alive\r\n"
        self._phase = _BODY
        self._n_body = self._n_quiet = 0
        if version != "1.1":
            if version != "1.0":
                self._refuse(505, f"HTTP version: got {version}, expected 1.1 or 1.0")
                return
            if b"transfer-encoding" in fields:
                self._refuse(400, "Transfer-Encoding: came with HTTP/1.0, which does not have it")
                return
        elif b"host" not in fields or b"," in fields[b"host"]:
            self._refuse(400, "Host: missing or given twice; HTTP/1.1 demands the header once (RFC 9112 3.2)")
            return
        if b"transfer-encoding" in fields:
            if fields[b"transfer-encoding"].strip().lower() != b"chunked":
                shown = fields[b"transfer-encoding"][:40].decode("latin-1")
                self._refuse(501, f"Transfer-Encoding: got {shown!r}, expected chunked")
                return
            length = 0
            is_large = True
        else:
            length = int(fields.get(b"content-length", b"0"))
            is_large = length > DIRECT_BYTES
        if parser.should_upgrade():
            if b"transfer-encoding" in fields:
                self._refuse(400, "Upgrade: came with a chunked body; no other protocol is offered, leave it out")
                return
            self._is_upgrade = True
        if length > limits.max_message_bytes:
            self._refuse(
                413,
                f"Content-Length: got {length} bytes, expected at most {limits.max_message_bytes}"
                f" (limits.max_message_bytes)",
            )
            return
        if is_refused and is_large:
            self._refuse_early(request)
            return
        if length:
            if not self._hold(request, length):
                return
            if is_large:
                self._target = memory(length)
        if b"expect" in fields and (length or is_large):
            if fields[b"expect"].strip().lower() != b"100-continue":
                shown = fields[b"expect"][:40].decode("latin-1")
                self._refuse(417, f"Expect: got {shown!r}, expected 100-continue or none")
            elif is_refused:
                self._refuse_early(request)
            else:
                self._wants_continue = True

    def on_body(self, data: bytes) -> None:
        if self._phase is not _BODY:
            return
        self._n_quiet = 0
        self._wants_continue = False
        n = len(data)
        if self._target is not None:
            self._target[self._n_body : self._n_body + n] = data
        else:
            assert self._request is not None
            if b"content-length" not in self._fields:
                limit = self.front.limits.max_message_bytes
                if self._n_body + n > limit:
                    self._refuse(413, f"body: more than {limit} bytes came (limits.max_message_bytes)")
                    return
                if not self._hold(self._request, n):
                    return
            self._chunks.append(data)
        self._n_body += n

    def on_message_complete(self) -> None:
        if self._phase is _BODY and not self._is_upgrade:
            self._complete()

    # --- its bounds

    def _hold(self, request: Request, n: int) -> bool:
        """Take n bytes of the budget for its body; refused when there is none."""
        if not self.front.has_room(n):
            budget = self.front.budget
            self._refuse(
                429,
                f"the gateway holds {budget.used + self.front.n_held} bytes in flight, a body of {n} would pass "
                f"the limit of {budget.limit} (limits.max_in_flight_bytes)",
            )
            return False
        request.n_held += n
        self.front.n_held += n
        return True

    def _release(self, request: Request) -> None:
        self.front.n_held -= request.n_held
        request.n_held = 0
        request.body = b""

    def _refuse(self, status: int, text: str) -> None:
        """Answer the message that is being received, and read nothing more."""
        request = self._request
        if status != 500:
            self.front.turn_away(status, request)
        if request is None:
            request = Request(self, lambda _: None, ())
            request.fields = self._fields
        self._request = None
        request.handler = lambda request: request.fail(status, text)
        self._end_with(request)

    def _refuse_early(self, request: Request) -> None:
        """Its handler refuses it whatever its body is: the body is not waited for."""
        self._request = None
        self._end_with(request)

    def _refuse_head(self) -> None:
        limit = self.front.limits.max_header_list_bytes
        self._refuse(431, f"head: more than {limit} bytes came (limits.max_header_list_bytes)")

    def _forget_message(self) -> None:
        if self._request is not None:
            self._release(self._request)
            self._request = None
        self._target = None
        self._chunks = []
        self._wants_continue = False
