"""A small HTTP/2 server over hyper's h2 that misbehaves on purpose, for clients of ours.

Each stream's end asks `behave(number of the request, from 0)` for one of: ("answer", gRPC status, message),
("reset",), ("close",), ("silence",), ("no status", message), ("stall", seconds), which answers OK after holding up
everything.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events

Behaviour = tuple[Any, ...]


class MisbehavingServer:
    """Listens on a port of its own while the context is open. `n_requests`: complete ones so far."""

    def __init__(self, behave: Callable[[int], Behaviour]) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.n_requests = 0
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._links: list[socket.socket] = []

    def __enter__(self) -> MisbehavingServer:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for sock in (self._listener, *self._links):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self._links.append(link)
            self._start(self._serve, link)

    def _serve(self, link: socket.socket) -> None:
        http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        http2.initiate_connection()
        try:
            link.sendall(http2.data_to_send())
            while data := link.recv(65536):
                for event in http2.receive_data(data):
                    if isinstance(event, h2.events.DataReceived):
                        http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded) and not self._end(http2, link, event.stream_id):
                        return
                link.sendall(http2.data_to_send())
        except OSError:
            return
        finally:
            link.close()

    def _end(self, http2: h2.connection.H2Connection, link: socket.socket, stream: int) -> bool:
        """False: the connection is to be closed."""
        number, self.n_requests = self.n_requests, self.n_requests + 1
        match self._behave(number):
            case ("close",):
                return False
            case ("reset",):
                http2.reset_stream(stream, 2)
            case ("silence",):
                pass
            case ("stall", seconds):
                self._stopped.wait(seconds)
                self._answer(http2, stream, b"late", 0)
            case ("no status", message):
                self._answer(http2, stream, message, None)
            case ("answer", status, message):
                self._answer(http2, stream, message, status)
        return True

    @staticmethod
    def _answer(http2: h2.connection.H2Connection, stream: int, message: bytes, status: int | None) -> None:
        http2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        http2.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=status is None)
        if status is not None:
            http2.send_headers(stream, [("grpc-status", str(status))], end_stream=True)
