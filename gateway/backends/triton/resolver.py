"""Endpoints by a DNS name that stands for many: asked again and again, because fleets grow and shrink.

A name that cannot be resolved for a while changes nothing: those who were there are probably there still.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.backends.triton.fleet import Fleet
from gateway.observability import logs

Lookup = Callable[[str, int], Coroutine[Any, Any, list[str]]]

EVERY_S = 5.0


async def lookup(host: str, port: int) -> list[str]:
    """host:port of each address, sorted. OSError when the name cannot be resolved."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    hosts = {str(sockaddr[0]) for _, _, _, _, sockaddr in found}
    return sorted(f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in hosts)


class Resolver:
    """Keeps a fleet's members to what `host` resolves to."""

    def __init__(
        self,
        fleet: Fleet,
        host: str,
        port: int,
        clock: Callable[[], float],
        *,
        every_s: float = EVERY_S,
        look_up: Lookup = lookup,
    ) -> None:
        self._fleet, self._host, self._port, self._clock = fleet, host, port, clock
        self._every_s, self._lookup = every_s, look_up
        self._turns: asyncio.Task[None] | None = None
        self.fault = ""
        """Why the last look-up gave nothing; empty: it gave something."""

    def start(self) -> None:
        if self._turns is None:
            self._turns = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        turns, self._turns = self._turns, None
        if turns:
            turns.cancel()
            await asyncio.gather(turns, return_exceptions=True)

    async def once(self) -> None:
        try:
            addresses = await self._lookup(self._host, self._port)
        except OSError as error:
            fault = f"{self._host}: {error.strerror or error}"
        else:
            fault = "" if addresses else f"{self._host}: no addresses"
        if fault and not self.fault:
            logs.get().warning("endpoints not resolved", host=self._host, fault=fault)
        self.fault = fault
        if not fault:
            self._fleet.set_members(addresses, self._clock())

    async def _run(self) -> None:
        while True:
            await self.once()
            await asyncio.sleep(self._every_s)
