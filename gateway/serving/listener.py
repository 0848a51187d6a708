"""The sockets of one worker: bound with SO_REUSEPORT on ports that the supervisor holds, each speaking what Connection
speaks; TLS is configuration.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError

BACKLOG = 1024
"""Connections that wait for accept: more than a burst of clients that restart together."""


def tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and later; by ALPN h2, as RFC 9113 9.2 wants it, or HTTP/1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--tls-cert {cert}, --tls-key {key}: cannot be used: {error}") from error
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


class Listener:
    """Listens on `ports` of `host` and makes a protocol per connection."""

    def __init__(self, host: str, ports: list[int], protocol: Callable[[], Any], tls: ssl.SSLContext | None) -> None:
        self._host, self._ports, self._protocol, self._tls = host, ports, protocol, tls
        self._servers: list[asyncio.Server] = []

    async def open(self) -> list[int]:
        """Start accepting; the ports in use. ConfigError when a port cannot be had."""
        loop = asyncio.get_running_loop()
        found = socket.getaddrinfo(self._host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, address = found[0][0], found[0][4]
        numbers = []
        for port in self._ports:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                sock.bind((address[0], port, *address[2:]))
            except OSError as error:
                sock.close()
                raise ConfigError(f"port {port} on {self._host}: {error.strerror}") from error
            numbers.append(sock.getsockname()[1])
            server = await loop.create_server(self._protocol, sock=sock, backlog=BACKLOG, ssl=self._tls)
            self._servers.append(server)
        return numbers

    async def close(self) -> None:
        """Accept no more. What waits in the backlog is accepted first: the kernel would reset it."""
        for _ in range(2):
            await asyncio.sleep(0)  # the loop polls in between
        for server in self._servers:
            server.close()
