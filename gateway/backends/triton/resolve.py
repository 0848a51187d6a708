"""A name with one address for each server, as a headless service has it, turned into those addresses."""

from __future__ import annotations

import asyncio
import socket

from gateway.config.triton import join_address, split_address


async def addresses_of(name: str) -> list[str]:
    """host:port of each, sorted. OSError: the name is not known, or nobody says."""
    host, port = split_address(name)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return _sorted(found)


def addresses_now(name: str) -> list[str]:
    """The same, in a thread that may wait."""
    host, port = split_address(name)
    return _sorted(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _sorted(found: list[tuple[object, object, object, str, tuple[object, ...]]]) -> list[str]:
    return sorted({join_address(str(each[4][0]), int(str(each[4][1]))) for each in found})
