"""A raw HTTP/2 client over hyper's h2, for what a gRPC library refuses to send: odd headers, cut messages, dribbles.

Blocking, one thread, a deadline on every read.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass, field
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from tests.support.oip import INFER

READ_S = 40.0


def framed(message: bytes, flag: int = 0) -> bytes:
    """gRPC's length-prefixed message."""
    return struct.pack(">BI", flag, len(message)) + message


@dataclass
class Answer:
    """What came on one stream so far."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """gRPC's code; -1 while there is none."""
        return int(self.headers.get("grpc-status", -1))

    @property
    def message(self) -> str:
        return unquote(self.headers.get("grpc-message", ""))

    @property
    def http_status(self) -> str:
        return self.headers.get(":status", "")

    @property
    def is_over(self) -> bool:
        return self.ended or self.reset is not None


class RawClient:
    """One connection. `answers` by stream; `goaways` are the (last stream, code) that came."""

    def __init__(self, port: int, sock: socket.socket | None = None) -> None:
        self.sock = sock or socket.create_connection(("127.0.0.1", port), timeout=READ_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        self.connection = h2.connection.H2Connection(config)
        # h2 refuses to go on after a GOAWAY; a server that drains sends two, and answers in between.
        is_open, machine = h2.connection.ConnectionState.CLIENT_OPEN, self.connection.state_machine
        going_on = {(is_open, h2.connection.ConnectionInputs.RECV_GOAWAY): (None, is_open)}
        machine._transitions = {**machine._transitions, **going_on}
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int]] = []
        self.n_pongs = 0
        self.is_closed = False
        self.connection.initiate_connection()
        self.connection.increment_flow_control_window(2**30)
        self.flush()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    # --- sending

    def flush(self) -> None:
        if data := self.connection.data_to_send():
            self.sock.sendall(data)

    def open(self, path: str = INFER, headers: dict[str, str | None] | None = None, end: bool = False) -> int:
        """Send a request's headers; `headers` replaces the usual ones, None drops one. The stream's number."""
        fields: dict[str, str | None] = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "test",
            "content-type": "application/grpc",
            "te": "trailers",
            **(headers or {}),
        }
        stream = self.connection.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.connection.send_headers(
            stream, [(name, value) for name, value in fields.items() if value is not None], end
        )
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        """Bytes of the request stream, as flow control lets them go."""
        while data:
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            if room == 0:
                self.read()
                continue
            self.connection.send_data(stream, data[:room])
            data = data[room:]
            self.flush()
        if end:
            self.connection.end_stream(stream)
            self.flush()

    def call(self, message: bytes, path: str = INFER, headers: dict[str, str | None] | None = None) -> Answer:
        """One whole unary call."""
        stream = self.open(path, headers)
        with contextlib.suppress(h2.exceptions.ProtocolError):  # it may be refused before we have sent everything
            self.send(stream, framed(message), end=True)
        return self.finish(stream)

    def settle(self) -> None:
        """Returns when all that was sent before has arrived: the server answers a ping behind it."""
        before = self.n_pongs
        self.connection.ping(b"together")
        self.flush()
        while self.n_pongs == before:
            assert self.read(), "no answer to a ping"

    # --- receiving

    def read(self, timeout_s: float = READ_S) -> bool:
        """Take what comes; False when the server has closed, or nothing came in time."""
        self.sock.settimeout(timeout_s)
        try:
            data = self.sock.recv(2**18)
        except TimeoutError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self.is_closed = True
            return False
        for event in self.connection.receive_data(data):
            self._on(event)
        with contextlib.suppress(OSError):  # closed by now: there may still be something to read
            self.flush()
        return True

    def _on(self, event: h2.events.Event) -> None:
        answer = self.answers.get(getattr(event, "stream_id", 0) or 0, Answer())
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                answer.headers |= {str(name): str(value) for name, value in event.headers or ()}
            case h2.events.DataReceived():
                answer.data += event.data or b""
                self.connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            case h2.events.StreamEnded():
                answer.ended = True
            case h2.events.StreamReset():
                answer.reset = int(event.error_code or 0)
            case h2.events.PingAckReceived():
                self.n_pongs += 1
            case h2.events.ConnectionTerminated():
                self.goaways.append((event.last_stream_id or 0, int(event.error_code or 0)))

    def finish(self, stream: int, timeout_s: float = READ_S) -> Answer:
        """Read until that stream is over."""
        deadline_s = time.monotonic() + timeout_s
        answer = self.answers[stream]
        while not answer.is_over:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"no end of stream {stream} within {timeout_s:g} s: {answer}"
            if not self.read(left_s):
                assert not self.is_closed, f"the server closed before the end of stream {stream}: {answer}"
        return answer

    def wait_closed(self, timeout_s: float = READ_S) -> None:
        """Read until the server closes."""
        deadline_s = time.monotonic() + timeout_s
        while not self.is_closed:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"the server has not closed within {timeout_s:g} s"
            self.read(left_s)
