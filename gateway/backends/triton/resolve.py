"""A name that stands for many servers, looked up in a thread that loads."""

from __future__ import annotations

import socket

from gateway.config.triton import join_address, split_address


def addresses_of(name: str) -> list[str]:
    """host:port of each, sorted. OSError: the name is not known, or nobody says."""
    host, port = split_address(name)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({join_address(str(sockaddr[0]), port) for *_, sockaddr in found})
