"""A small HTTP/2 client that keeps out of the way: one fixed request, stamped again and again.

h2load cannot pace below 10 ms nor hold a connection idle, so the open-loop generator and the idle connections use
this. It knows only what it needs: its header block is sent once in full and then as six indexed bytes, flow control and
the server's stream limit are respected, answers are counted and not decoded.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from bench.errors import BenchError
from bench.payloads import MODEL_INFER

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 1
END_HEADERS = 4
DEFAULT_WINDOW_BYTES = 65_535
_WIDE_WINDOW_BYTES = 1 << 30  # answers never wait for our credit, and nothing has to be given back
_SETTING_TABLE_SIZE, _SETTING_STREAMS, _SETTING_WINDOW = 1, 3, 4
_HEAD = struct.Struct(">HBBBI")  # length (2 + 1 bytes), type, flags, stream


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame; the payload is at most 16 kB, as every server accepts."""
    return _HEAD.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def first_header_block(authority: str) -> bytes:
    """POST of the ModelInfer path; path, authority, content-type and te enter the dynamic table."""

    def text(value: str) -> bytes:
        if len(value) >= 127:
            raise BenchError(f"a header value of {len(value)} bytes: this client writes up to 126")
        return bytes([len(value)]) + value.encode()

    return (
        b"\x83\x86\x44" + text(MODEL_INFER) + b"\x41" + text(authority)
        + b"\x5f" + text("application/grpc") + b"\x40" + text("te") + text("trailers")
    )  # fmt: skip


NEXT_HEADER_BLOCK = b"\x83\x86\xc1\xc0\xbf\xbe"  # the same, by index: 65, 64, 63, 62 are what the first one left


class Connection:
    """One non-blocking connection that sends one fixed request body of at most 16 kB."""

    def __init__(self, port: int, body: bytes, host: str = "127.0.0.1") -> None:
        if len(body) > 16_384:
            raise BenchError(f"a body of {len(body)} bytes: this client sends up to 16384 (one DATA frame)")
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.body_bytes = len(body)
        self.max_streams = 100  # until the server says; RFC 9113 recommends no less
        self.window_bytes = DEFAULT_WINDOW_BYTES
        self.in_flight = 0
        self.answered_bytes = 0
        self.reset = 0
        self.is_greeted = False
        self._next_stream = 1
        self._unread = b""
        self._unsent = b""
        self._replies: list[bytes] = []
        self._data_head = frame(DATA, END_STREAM, 0, body)[:5]
        self._body = body
        self._first_block = first_header_block(f"{host}:{port}")
        wide = struct.pack(">HI", _SETTING_WINDOW, _WIDE_WINDOW_BYTES)
        more = struct.pack(">I", _WIDE_WINDOW_BYTES - DEFAULT_WINDOW_BYTES)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, wide) + frame(WINDOW_UPDATE, 0, 0, more))

    def greet(self) -> Connection:
        """Waits for the server's SETTINGS, acknowledges them, and goes non-blocking."""
        while not self.is_greeted:
            self._take(self.socket.recv(65_536), None)
        self.socket.setblocking(False)
        self.flush()
        return self

    def room(self) -> int:
        """How many requests may be sent now, by the server's stream limit and its window."""
        return max(0, min(self.max_streams - self.in_flight, self.window_bytes // self.body_bytes))

    def send(self, count: int) -> range:
        """Queues `count` requests (at most room()) in one write and returns their stream ids."""
        first = self._next_stream
        ids = range(first, first + 2 * count, 2)
        parts = []
        if first == 1:
            parts.append(self._request(1, self._first_block))
        head = frame(HEADERS, END_HEADERS, 0, NEXT_HEADER_BLOCK)[:5]
        for stream in ids[1:] if first == 1 else ids:
            number = stream.to_bytes(4)
            parts += (head, number, NEXT_HEADER_BLOCK, self._data_head, number, self._body)
        self._unsent += b"".join(parts)
        self._next_stream += 2 * count
        self.in_flight += count
        self.window_bytes -= count * self.body_bytes
        self.flush()
        return ids

    @property
    def has_unsent(self) -> bool:
        """Whether the kernel has not taken all that was sent."""
        return bool(self._unsent)

    def _request(self, stream: int, block: bytes) -> bytes:
        return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, self._body)

    def flush(self) -> None:
        """Writes what the kernel takes; the rest waits for the next call."""
        if self._replies:
            self._unsent += b"".join(self._replies)
            self._replies.clear()
        while self._unsent:
            try:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
            except BlockingIOError:
                return

    def receive(self, on_end: Callable[[int], None] | None = None) -> None:
        """Reads what is there and calls on_end(stream) for each finished answer."""
        try:
            data = self.socket.recv(262_144)
        except BlockingIOError:
            return
        self._take(data, on_end)
        if self._replies:
            self.flush()

    def close(self) -> None:
        self.socket.close()

    def _take(self, data: bytes, on_end: Callable[[int], None] | None) -> None:
        if not data:
            raise BenchError("the server closed the connection")
        if self._unread:
            data = self._unread + data
        at, size, unpack = 0, len(data), _HEAD.unpack_from
        while size - at >= 9:
            high, low, kind, flags, stream = unpack(data, at)
            end = at + 9 + (high << 8 | low)
            if end > size:
                break
            if kind == DATA:
                self.answered_bytes += end - at - 9
            elif kind != HEADERS:
                self._control(kind, flags, stream, data[at + 9 : end])
            if (kind <= HEADERS and flags & END_STREAM) or kind == RST_STREAM:
                self.in_flight -= 1
                if on_end is not None:
                    on_end(stream)
            at = end
        self._unread = data[at:]

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self.is_greeted = True
            for number, value in struct.iter_unpack(">HI", payload):
                if number == _SETTING_STREAMS:
                    self.max_streams = value
                elif number == _SETTING_TABLE_SIZE and value < 4096:
                    raise BenchError(f"the server allows a header table of {value} bytes; this client needs 4096")
            self._replies.append(frame(SETTINGS, ACK, 0))
        elif kind == WINDOW_UPDATE and stream == 0:
            self.window_bytes += int.from_bytes(payload) & 0x7FFF_FFFF
        elif kind == PING and not flags & ACK:
            self._replies.append(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM:
            self.reset += 1
        elif kind == GOAWAY:
            raise BenchError(f"the server said GOAWAY, error {int.from_bytes(payload[4:8])}")
