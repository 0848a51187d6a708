"""HTTP/1.1 on a socket: llhttp parses, this file keeps order and time, and knows nothing of models.

Requests of one connection are answered in their order. At most MAX_WAITING are being worked on; what was read beyond
that waits, and the socket is not read until there is room. A large body is received where it stays, past the parser;
so is, natively, a plain request that is all there. EOF from the peer means that nobody waits any more: what it asked
for is cancelled.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

import httptools

from gateway.errors import GatewayError
from gateway.native.httphead import Head, read_request
from gateway.serving.incoming import Incoming, Phase, memory
from gateway.serving.rest.errors import HttpError, status_of
from gateway.serving.rest.message import Request

if TYPE_CHECKING:
    from gateway.serving.front import Front

READ_BYTES = 32768
"""One read between messages: some 60 small pipelined requests, and what of a large body passes through the parser."""

MAX_WAITING = 16
"""Requests of one connection that are being answered at once."""

WRITE_HIGH_BYTES = 1 << 20
"""Unsent answers of one connection above which it gets no further ones."""

MIN_UPLOAD_BYTES_PER_S = 16384
"""A body that comes slower than this (after the header timeout) holds memory hostage; gRPC has the same bound."""

LINGER_S = 2.0
"""How long input is thrown away behind a last answer."""

FAILED = "the gateway failed on this request"

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


_IDLE, _HEAD, _BODY, _DIRECT, _DISCARD = Phase


class Http1(Incoming):
    """asyncio.BufferedProtocol of one socket. The owning loop only."""

    def __init__(self, front: Front, transport: Any) -> None:
        super().__init__(front)
        self.transport = transport
        self._waiting: deque[Request] = deque()  # dispatched, in order; the first is the next to be sent
        self._backlog: deque[Request] = deque()  # complete, not dispatched
        self._is_busy = False  # in a feed or a dispatch: answers are sent at its end
        self._is_write_paused = self._is_read_paused = self._is_lost = False
        self._head: Head | None = None  # of the last plain request
        # stamps, monotonic seconds
        self._active_s = self._began_s
        self._stalled_s = 0.0
        self._n_unsent = 0

    # --- the socket

    def connection_made(self, transport: Any) -> None:
        self.front.hub.http1_connections.add(self)
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def connection_lost(self, error: Exception | None) -> None:
        self._is_lost = True
        self._phase = _DISCARD
        self.front.hub.http1_connections.discard(self)
        for request in (*self._waiting, *self._backlog):
            self._release(request)
            cancel, request.cancel = request.cancel, None
            if cancel is not None:
                cancel()
        self._waiting.clear()
        self._backlog.clear()
        self._forget_message()
        self._parser = None

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._phase is _DIRECT:
            assert self._target is not None
            return self._target[self._n_body :]
        return self.front.buffer

    def buffer_updated(self, n: int) -> None:
        if self._phase is not _DIRECT:
            self._receive(self.front.buffer[:n])
            return
        self.front.hub.bytes_in += n
        self._n_body += n
        assert self._target is not None
        if self._n_body == self._target.nbytes:
            self._is_busy = True
            try:
                self._parser = httptools.HttpRequestParser(self)
                self._complete()
            finally:
                self._is_busy = False
            self._progress()

    def refuse_connection(self, text: str) -> None:
        """There are too many: whatever it wants to ask, the answer is 503."""
        request = Request(self, lambda request: request.fail(503, text, b"Retry-After: 1\r\n"), ())
        self._end_with(request)

    def data_received(self, data: Any) -> None:
        """The first bytes, which the hub has read: more, maybe, than one read of ours."""
        for at in range(0, len(data), READ_BYTES):
            piece = data[at : at + READ_BYTES]
            if self._phase is _DIRECT:
                at = 0
                while at < len(piece) and self._phase is _DIRECT:
                    at += self._fill(piece[at:])
                piece = piece[at:]
            self._receive(piece)

    def _fill(self, data: Any) -> int:
        """Into a large body, what of `data` belongs to it; how much that was."""
        target = self.get_buffer(0)
        n = min(len(data), target.nbytes)
        target[:n] = data[:n]
        self.buffer_updated(n)
        return n

    def _receive(self, data: Any) -> None:
        """Bytes between messages, of a head or of a small body. `data` is only valid during the call."""
        n = len(data)
        self.front.hub.bytes_in += n
        if self._phase is _DISCARD or not n:
            return
        if self._phase is _IDLE and self.front.reads_plain:
            n_taken = self._take_plain(data)
            n -= n_taken
            if not n or self._phase is not _IDLE:
                self._progress()
                return
            if n_taken:
                data = data[n_taken:]
        if self._phase is _HEAD:
            self._n_fed += n
        elif self._phase is _BODY:
            self._n_quiet += n
        self._n_feed = n if self._phase is _IDLE else 0
        self._is_busy = True
        try:
            self._feed(data)
        finally:
            self._is_busy = False
        if self._phase is _HEAD and self._n_fed > self.front.limits.max_header_list_bytes:
            self._refuse_head()
        elif self._phase is _BODY:
            if self._n_quiet > self.front.limits.max_header_list_bytes + READ_BYTES:
                self._refuse(400, "body: chunk extensions or trailers are too long")
            elif self._target is not None:
                self._phase = _DIRECT
        self._progress()

    def _take_plain(self, data: Any) -> int:
        """Requests that are plain and all there, past the parser, which stands between two messages; how many bytes
        they were. Whatever is to be refused is left to the parser's callbacks.
        """
        front, at = self.front, 0
        self._is_busy = True
        try:
            while self._phase is _IDLE:
                found = read_request(data, at, self._head)
                if found is None:
                    break
                head, body, end = found
                if head.handler is None:
                    try:
                        head.handler, head.args = front.router.find(b"POST", head.target)
                    except HttpError:
                        break
                n = head.n_body
                if n > front.limits.max_message_bytes or not front.has_room(n):
                    break
                self._head = head
                request = Request(self, head.handler, head.args)
                request.fields, request.body = head.fields, body
                request.n_held = n
                front.n_held += n
                self._accept(request)
                at = end
        finally:
            self._is_busy = False
        return at

    def _feed(self, data: Any) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                # An offer of another protocol is not taken (RFC 9110 7.8); llhttp stops behind the head.
                data = self._go_on_without_upgrade(data[upgrade.args[0] :])
                if not len(data):
                    return
            except httptools.HttpParserError as error:
                if self._phase is not _DISCARD:
                    cause = error.__context__
                    if cause is not None and not isinstance(cause, httptools.HttpParserError):
                        self.front.report(cause)
                        self._refuse(500, FAILED)
                    else:
                        self._refuse(400, f"malformed HTTP/1.1: {error.args[0] if error.args else error}")
                return

    def _go_on_without_upgrade(self, rest: Any) -> Any:
        self._is_upgrade = False
        self._parser = httptools.HttpRequestParser(self)
        if self._phase is _DISCARD or self._request is None:
            return b""
        length = int(self._fields.get(b"content-length", b"0"))
        if length:
            if self._target is None:
                self._target = memory(length)
            n = min(length, len(rest))
            self._target[:n] = rest[:n]
            self._n_body = n
            if n < length:
                self._phase = _DIRECT
                return b""
            rest = rest[n:]
        self._complete()
        return rest

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._progress()

    # --- a message's end

    def _complete(self) -> None:
        request = self._request
        assert request is not None
        self._request = None
        self._wants_continue = False
        if self._target is not None:
            request.body, self._target = self._target, None
        elif self._chunks:
            chunks = self._chunks
            request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._chunks = []
        self._accept(request)

    def _accept(self, request: Request) -> None:
        """It is all here."""
        if request.is_last or self.front.is_draining:
            request.is_last = True
            request.connection_header = b"Connection: close\r\n"
            self._discard()
        else:
            self._phase = _IDLE
        self.front.n_requests += 1
        if self._backlog or len(self._waiting) >= MAX_WAITING or self._is_write_paused:
            self._backlog.append(request)
        else:
            self._dispatch(request)

    def _dispatch(self, request: Request) -> None:
        """The handler's turn; the caller of this method sees to `_progress`."""
        self._waiting.append(request)
        try:
            request.handler(request)
        except GatewayError as error:
            if request.cancel is None and getattr(request.handler, "is_infer", False):  # no lane has it
                self.front.turn_away(status_of(error), request)
            request.refuse(error)
        except Exception as error:
            self.front.report(error)
            request.fail(500, FAILED)
        self._release(request)

    # --- the last answer

    def _end_with(self, request: Request) -> None:
        self._release(request)
        request.is_last = True
        request.connection_header = b"Connection: close\r\n"
        self._discard()
        self._backlog.append(request)
        if not self._is_busy:
            self._progress()

    def _discard(self) -> None:
        self._phase = _DISCARD
        self._forget_message()

    # --- answers

    def on_answered(self, request: Request) -> None:
        """From Request: it has its answer."""
        counts = self.front.n_by_status
        counts[request.status] = counts.get(request.status, 0) + 1
        if not self._is_busy and not self._is_lost:
            self._progress()

    def _progress(self) -> None:
        """Send what is next in order, start what waited, read when there is room: one write for all that is ready."""
        if self._is_lost:
            return
        waiting = self._waiting
        parts: list[Any] = []
        while True:
            while waiting and not self._is_write_paused:
                answer = waiting[0].answer
                if answer is None:
                    break
                parts.extend(answer)
                if waiting.popleft().is_last:
                    self._write(parts)
                    self._close()
                    return
            if not self._backlog or len(waiting) >= MAX_WAITING or self._is_write_paused:
                break
            self._is_busy = True
            try:
                self._dispatch(self._backlog.popleft())
            finally:
                self._is_busy = False
        if parts:
            self._write(parts)
            if not waiting:
                self._active_s = monotonic()
        if self._wants_continue and not waiting and not self._backlog:
            self._wants_continue = False
            self._write([_CONTINUE])
        if self._backlog or len(waiting) >= MAX_WAITING:
            if not self._is_read_paused and self._phase is not _DISCARD:
                self._is_read_paused = True
                self.transport.pause_reading()
        elif self._is_read_paused:
            self._is_read_paused = False
            self.transport.resume_reading()

    def _write(self, parts: list[Any]) -> None:
        if not parts:
            return
        if len(parts) == 1:
            self.front.hub.bytes_out += len(parts[0])
            self.transport.write(parts[0])
        else:
            self.front.hub.bytes_out += sum([memoryview(part).nbytes for part in parts])
            self.transport.writelines(parts)

    def _close(self) -> None:
        """The last answer is on its way. Input is read and thrown away until the peer has closed, or for LINGER_S."""
        self._discard()
        self._began_s = monotonic()
        if self._is_read_paused:
            self._is_read_paused = False
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    # --- time

    @property
    def n_open(self) -> int:
        return len(self._waiting) + len(self._backlog) + (self._phase in (_HEAD, _BODY, _DIRECT))

    def close_if_idle(self) -> None:
        if self._phase is _IDLE and not self._waiting and not self._backlog:
            self._close()

    def check_progress(self, now_s: float) -> None:
        """Slow heads, slow bodies, idle connections, readers that stopped."""
        limits = self.front.limits
        n_unsent = self.transport.get_write_buffer_size()
        if n_unsent == 0 or n_unsent != self._n_unsent:
            self._n_unsent, self._stalled_s = n_unsent, now_s
        elif now_s - self._stalled_s > limits.send_timeout_s:
            self.transport.abort()
            return
        if self._phase is _DISCARD:
            if not self._waiting and not self._backlog and n_unsent == 0 and now_s - self._began_s > LINGER_S:
                self.transport.abort()
        elif self._phase is _IDLE:
            is_idle = not self._waiting and not self._backlog and not n_unsent
            if is_idle and (self.front.is_final or now_s - self._active_s > limits.idle_timeout_s):
                self._close()
        elif self._backlog or self._is_read_paused:
            self._began_s = now_s  # it is us who do not read
        elif self._phase is _HEAD:
            if now_s - self._began_s > limits.header_timeout_s:
                self._refuse(408, f"the head is too slow: not complete after {limits.header_timeout_s:g} s")
        else:
            n = self._target.nbytes if self._target is not None else self._n_body
            if now_s - self._began_s > limits.header_timeout_s + n / MIN_UPLOAD_BYTES_PER_S:
                self._refuse(408, f"the body is too slow: {self._n_body} bytes came in {now_s - self._began_s:.0f} s")
