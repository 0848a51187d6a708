"""What a slow-path handler sees of a call: the native stream as Python meets it, and the request message as protobuf.

All of it happens on the loop thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Protocol

from google.protobuf.message import DecodeError

from gateway.errors import Code, GatewayError, InvalidArgument
from gateway.observability import logs


class Stream(Protocol):
    """The native side of a streaming call; framing and flow control are its business."""

    @property
    def path(self) -> str: ...

    def send(self, message: bytes) -> None:
        """One response message."""

    def finish(self, code: int = 0, message: str = "") -> None:
        """Status and end; nothing may follow."""


class StreamHandler(Protocol):
    """The Python side of a streaming call. It reports its own errors with `Stream.finish`, and raises none."""

    def on_message(self, message: bytes) -> None: ...

    def on_half_close(self) -> None:
        """The client has sent its last message."""

    def on_cancel(self) -> None:
        """Reset, deadline or disconnect: release everything; nothing may be sent any more."""


def parse(message_class: Any, message: bytes) -> Any:
    """A protobuf message of that class. InvalidArgument names the message type."""
    try:
        return message_class.FromString(message)
    except DecodeError:
        name = message_class.DESCRIPTOR.full_name
        raise InvalidArgument(
            f"got {len(message)} bytes that are no {name} message; is the client's .proto the right one?"
        ) from None


class SlowUnary:
    """A unary call whose answer takes longer than a turn of the loop: `work(message)` runs as a task. `wake()` then has
    the answer sent.

    It goes on when the caller leaves, because what it changes must not be left half done; only the answer is dropped.
    """

    _running: ClassVar[set[asyncio.Task[None]]] = set()  # the loop itself keeps no task alive

    def __init__(self, work: Callable[[bytes], Awaitable[bytes]], wake: Callable[[], None], stream: Stream) -> None:
        self._work, self._wake = work, wake
        self._stream: Stream | None = stream
        self._messages: list[bytes] = []

    def on_message(self, message: bytes) -> None:
        self._messages.append(message)

    def on_half_close(self) -> None:
        if len(self._messages) != 1:
            text = f"a unary call got {len(self._messages)} request messages, expected one"
            self._finish(Code.UNIMPLEMENTED, text)
            return
        task = asyncio.get_running_loop().create_task(self._run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def on_cancel(self) -> None:
        self._stream = None

    async def _run(self) -> None:
        try:
            answer = await self._work(self._messages.pop())
        except GatewayError as error:
            self._finish(error.code, str(error))
        except Exception:
            logs.get().exception("call failed", path=self._stream.path if self._stream else "")
            self._finish(Code.INTERNAL, "the gateway failed on this call")
        else:
            if self._stream:
                self._stream.send(answer)
            self._finish(Code.OK, "")

    def _finish(self, code: Code, text: str) -> None:
        stream, self._stream = self._stream, None
        if stream:
            stream.finish(code, text)
            self._wake()
