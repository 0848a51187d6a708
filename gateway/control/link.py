"""The control process's line to its supervisor, which alone knows what all workers have counted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket

import orjson

from gateway.errors import Unavailable
from gateway.observability.aggregate import Totals
from gateway.observability.feed import MAX_LINE_BYTES
from gateway.observability.totals import from_json

PATIENCE_S = 5.0


class Link:
    """Made on the loop. Without a socket nobody is asked: a control plane that was started by hand has no workers of
    its own.
    """

    def __init__(self, sock: socket.socket | None) -> None:
        self._sock = sock
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        if self._sock:
            reader, self._writer = await asyncio.open_connection(sock=self._sock, limit=MAX_LINE_BYTES)
            self._task = asyncio.get_running_loop().create_task(self._read(reader))

    async def totals(self) -> Totals | None:
        """None: there is nobody to ask. Unavailable: the supervisor does not answer."""
        if self._writer is None:
            return None
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(orjson.dumps({"ask": number, "do": "totals"}) + b"\n")
            line = await asyncio.wait_for(answer, PATIENCE_S)
        except (OSError, TimeoutError):
            raise Unavailable("the supervisor does not say what its workers have counted") from None
        finally:
            del self._asked[number]
        return await asyncio.to_thread(from_json, line)

    async def close(self) -> None:
        if self._writer:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            head, _, rest = line.partition(b',"totals":')
            answer = self._asked.get(int(head.removeprefix(b'{"answer":')))
            if answer and not answer.done():
                answer.set_result(rest.rstrip().removesuffix(b"}"))
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())
