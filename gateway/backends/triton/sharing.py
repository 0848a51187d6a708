"""Memory that this worker and servers on this machine both see: made, registered, lent to batches, and taken back.

Whatever goes wrong here costs a batch this way and never its answer: it is sent instead. Regions are known to one
server over one connection, because one that was restarted has forgotten them. Affinity: owning loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from gateway.backends.triton import proof
from gateway.backends.triton.link import Link
from gateway.backends.triton.regions import Region, Regions, Use
from gateway.backends.triton.segments import Segment
from gateway.config.triton import Triton
from gateway.observability import logs

LEAST_BYTES = 64 << 10
"""Of a batch's tensors, where this way begins to win: `python -m bench.fleet.shm`, raw over shared, has 0.5 to 1.0 at
16 kB, 0.9 to 1.6 at 32 kB, 1.3 at 64 kB, 1.4 to 2.1 at 128 kB, and more from there on.
"""
TIMEOUT_S = 2.0
SOON_S = 5.0
"""After a proof that the connection broke off, or where nothing else is asked."""
AGAIN_S = 60.0
"""After any other that failed: the machine may have had no memory."""
TURN_S = 1.0
NO_ROOM_S = 1.0
"""After the machine had no memory left, before it is asked again."""
SILENT_S = 30.0
"""A server that nobody reaches for so long has let go of its regions: it is dead."""
CLOSE_S = 3.0
"""Only a server that hangs makes anybody wait for so long."""

BY_MEMORY, BY_MESSAGE = "shared_memory", "message"
"""The ways that tensors take."""

_SHAKY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class Home:
    """One server over one connection, and whether it sees what we see."""

    __slots__ = ("again_s", "generation", "link", "reason")

    def __init__(self, link: Link, generation: int) -> None:
        self.link, self.generation = link, generation
        self.reason = "it has not been asked"
        """Why it gets no regions; "" when it does."""
        self.again_s = float("inf")

    @property
    def is_due(self) -> bool:
        """It is to be asked once more."""
        return time.monotonic() >= self.again_s


class Lease:
    """A region while a request has it, or somebody looks into it: it is free when this is gone."""

    __slots__ = ("_back", "region")

    def __init__(self, region: Region, back: deque[Region]) -> None:
        self.region, self._back = region, back

    def __del__(self) -> None:
        self._back.append(self.region)  # from whatever thread

    @property
    def name(self) -> bytes:
        return bytes(self.region.segment.name, "ascii")

    @property
    def memory(self) -> Any:
        return self.region.segment.memory


class Sharing:
    """Of one version. `title` for the log."""

    def __init__(self, title: str, settings: Triton, clock: Callable[[], float]) -> None:
        self._title, self._clock, self._headers = title, clock, settings.headers()
        self.is_demanded = settings.shared_memory == "on"
        self.least_bytes = 1 if self.is_demanded else LEAST_BYTES
        self.regions = Regions(settings.shared_memory_limit)
        self._back: deque[Region] = deque()
        self._no_room_until_s = float("-inf")
        self._leaving: dict[asyncio.Task[None], Region] = {}
        self._turns: asyncio.Task[None] | None = None
        self._is_closed = False

    # --- servers

    async def meet(self, link: Link, generation: int, address: str, before: Home | None) -> Home:
        """Finds out whether it sees the memory of this machine. `before`: what was found the last time."""
        home = Home(link, generation)
        reason = await asyncio.get_running_loop().run_in_executor(None, proof.where, address)
        if not reason:
            reason, is_shaky = await self._drive(link, proof.prove())
            if reason:
                home.again_s = self._clock() + (SOON_S if is_shaky or self.is_demanded else AGAIN_S)
            else:
                await self._drive(link, proof.sweep())
        home.reason = reason
        if before is None or before.generation != generation or before.reason != reason:
            way = "in messages" if reason else "by shared memory"
            told = {"endpoint": address, "version": self._title, **({"reason": reason} if reason else {})}
            logs.get().info(f"Triton server gets large tensors {way}", **told)
        return home

    def leave(self, home: Home, reason: str) -> None:
        """It gets nothing new."""
        home.reason = reason
        self._see_off(self.regions.leave(home, self._clock()))

    async def _drive(self, link: Link, steps: proof.Asks) -> tuple[str, bool]:
        """Its result, and whether the connection had to do with it."""
        is_shaky, answer = False, None
        try:
            while True:
                name, fields = steps.send(answer)
                try:
                    answer = await link.call(name, fields, TIMEOUT_S, self._headers)
                except grpc.aio.AioRpcError as error:
                    is_shaky |= error.code() in _SHAKY
                    answer = error
        except StopIteration as stop:
            return stop.value, is_shaky
        finally:
            steps.close()

    # --- batches

    async def lease(self, home: Home, n_bytes: int) -> Lease | None:
        """A region that the server knows. None: it cannot be had, or does not pay."""
        if home.reason or n_bytes < self.least_bytes or self._is_closed:
            return None
        self._take_back()
        region = self.regions.take(home, n_bytes, self._clock()) or await self._make(home, n_bytes)
        return Lease(region, self._back) if region else None

    def answered(self, lease: Lease) -> None:
        """The server is done with it."""
        self.regions.answered(lease.region, self._clock())

    def doubt(self, lease: Lease) -> None:
        """Its request has no answer, and may still run."""
        self._retire(lease.region)

    async def _make(self, home: Home, n_bytes: int) -> Region | None:
        now_s = self._clock()
        if now_s < self._no_room_until_s:
            return None
        region = self.regions.make(home, n_bytes, now_s)
        if region is None:
            self._see_off(self.regions.crowd_out(n_bytes, now_s))
            return None
        if self._turns is None:
            self._turns = asyncio.get_running_loop().create_task(self._run())
        try:
            region.segment = await asyncio.get_running_loop().run_in_executor(None, Segment, region.size)
            name = region.segment.name
            fields = {"name": name, "key": f"/{name}", "byte_size": region.size}
            await home.link.call("SystemSharedMemoryRegister", fields, TIMEOUT_S, self._headers)
        except (OSError, grpc.aio.AioRpcError) as error:
            self._no_room_until_s = self._clock() + NO_ROOM_S
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else error.strerror
            logs.get().warning("no region of shared memory", version=self._title, bytes=region.size, reason=why)
            self._retire(region)
            return None
        except BaseException:
            self._retire(region)
            raise
        if self._is_closed:
            self._retire(region)
            return None
        self.regions.made(region, self._clock())
        return region

    # --- back

    def _take_back(self) -> None:
        while self._back:
            region = self._back.popleft()
            if self.regions.released(region, self._clock()):
                self._see_off([region])

    def _retire(self, region: Region) -> None:
        if self.regions.retire(region, self._clock()):
            self._see_off([region])

    def _see_off(self, regions: Iterable[Region]) -> None:
        """Nobody finds them any more; their servers are asked to forget them until they have."""
        for region in regions:
            name = region.segment.name if region.segment else ""
            if region.segment:
                region.segment.unlink()
            region.segment = None  # who looks into it keeps the memory
            task = asyncio.get_running_loop().create_task(self._forget(region, name))
            self._leaving[task] = region
            task.add_done_callback(self._leaving.pop)

    async def _forget(self, region: Region, name: str) -> None:
        home, pause_s, silent_s = region.home, 0.01, None
        assert isinstance(home, Home)
        while name:
            try:
                await home.link.call("SystemSharedMemoryUnregister", {"name": name}, TIMEOUT_S, self._headers)
                status = await home.link.call("SystemSharedMemoryStatus", {"name": name}, TIMEOUT_S, self._headers)
                if name not in status.regions:
                    break
                silent_s = None
            except grpc.aio.AioRpcError as error:  # INTERNAL: it is in use there
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    break
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    silent_s = None
                elif self._is_closed:
                    break
                elif silent_s is None:
                    silent_s = self._clock()
                elif self._clock() - silent_s > SILENT_S:
                    break
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, TURN_S)
        self.regions.forget(region, self._clock())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TURN_S)
            self._take_back()
            self._see_off(self.regions.idle(self._clock()))

    async def parted(self, link: Link, within_s: float = CLOSE_S) -> None:
        """What that server had is forgotten there, if it does not take long. The link may be closed then."""
        tasks = [task for task, region in self._leaving.items() if region.home.link is link]  # type: ignore[attr-defined]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within_s)
            for task in late:
                region = self._leaving[task]
                task.cancel()
                self.regions.forget(region, self._clock())  # who comes after us has the server forget it: proof.sweep
            await asyncio.gather(*late, return_exceptions=True)

    def close(self) -> None:
        """Nothing of it is in /dev/shm any more; `parted` waits for the servers."""
        self._is_closed = True
        if self._turns:
            self._turns.cancel()
        for region in self.regions:
            if region.use is not Use.MAKING:
                self._retire(region)
