"""A TCP proxy on a thread of its own that can be slow, cut connections, or refuse them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK_BYTES = 65536


class Proxy:
    """`url` leads to `target`. Its behaviour may be changed at any time, also for connections that are open."""

    def __init__(self, target: str, seed: int = 1) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.delay_s = 0.0
        """Of each piece of an answer."""
        self.cut_after: tuple[int, int] | None = None
        """Bytes of answers after which a connection is reset: between these, drawn for each."""
        self.n_connections = self.n_cut = 0
        self._dice = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Every connection that is open, in the middle of whatever it says."""
        self._loop.call_soon_threadsafe(self._cut_all)

    def _cut_all(self) -> None:
        for writer in self._writers:
            self.n_cut += 1
            writer.transport.abort()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.n_connections += 1
        try:
            there = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there[1]}
        left = self._dice.randint(*self.cut_after) if self.cut_after else None
        try:
            await asyncio.gather(self._pump(reader, there[1], None, False), self._pump(there[0], writer, left, True))
        finally:
            self._writers -= {writer, there[1]}
            writer.transport.abort()
            there[1].transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None, is_answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if is_answer and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if left is not None and self.cut_after:
                    data, left = data[:left], left - len(data)
                writer.write(data)
                await writer.drain()
                if left is not None and left <= 0 and self.cut_after:
                    self.n_cut += 1
                    break
        writer.transport.abort()
