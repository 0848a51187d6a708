"""Between one worker and all of them: what this worker is told to do, and what it asks of every worker.

Lines of JSON. On the command pipe come {"command": n, "do": "load", ...fields} and, to what was asked here,
{"answer": n, "results": [...]} or {"answer": n, "error": {"code", "text"}}. On the control pipe go {"event": "ask",
"id": n, "do": ..., ...fields} and {"event": "done", "command": n, "result": ...} or {..., "error": {"code", "text"}}.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from gateway.errors import Code, GatewayError
from gateway.observability import logs

Handler = Callable[..., Coroutine[Any, Any, Any]]


class Refused(GatewayError):
    """What another process said; its code and text as they came."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code

    @classmethod
    def from_line(cls, error: Mapping[str, Any]) -> Refused:
        return cls(Code(error["code"]), str(error["text"]))


def as_line(error: Exception) -> dict[str, Any]:
    """An error as the other side's `Refused.from_line` reads it."""
    if isinstance(error, GatewayError):
        return {"code": int(error.code), "text": str(error)}
    return {"code": int(Code.INTERNAL), "text": "the gateway failed on this call"}


class Commands:
    """`handlers` by command, called with its fields; `tell(**event)` writes a line to the supervisor. Without a pipe (a
    worker that was started by hand) what is asked is done here alone.
    """

    def __init__(self, fd: int | None, tell: Callable[..., None], handlers: Mapping[str, Handler]) -> None:
        self._fd, self._tell, self._handlers = fd, tell, handlers
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._n_asked = 0
        self._asked: dict[int, asyncio.Future[list[Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        if fd is not None:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._on_readable, fd)

    async def ask(self, do: str, **fields: Any) -> list[Any]:
        """Have every worker do it; the results of those that did. Raises the GatewayError of one that refused."""
        if self._fd is None:
            return [await self._handlers[do](**fields)]
        self._n_asked += 1
        number = self._n_asked
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        self._asked[number] = answer
        try:
            self._tell(event="ask", id=number, do=do, **fields)
            return await answer
        finally:
            del self._asked[number]

    def close(self) -> None:
        """Hear no more."""
        if self._fd is not None:
            self._loop.remove_reader(self._fd)

    def _on_readable(self, fd: int) -> None:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        if not data:  # the supervisor is gone; the lifeline says so too, and is what counts
            self._loop.remove_reader(fd)
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._on_line(json.loads(line))

    def _on_line(self, line: dict[str, Any]) -> None:
        if "answer" in line:
            answer = self._asked.get(line["answer"])
            if answer is None or answer.done():
                return
            if error := line.get("error"):
                answer.set_exception(Refused.from_line(error))
            else:
                answer.set_result(line["results"])
            return
        task = self._loop.create_task(self._perform(line.pop("command"), line.pop("do"), line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _perform(self, number: int, do: str, fields: dict[str, Any]) -> None:
        try:
            result = await self._handlers[do](**fields)
        except Exception as error:
            if not isinstance(error, GatewayError):
                logs.get().exception("command failed", do=do)
            self._tell(event="done", command=number, error=as_line(error))
        else:
            self._tell(event="done", command=number, result=result)
