"""What a slow-path handler sees of a call: the native stream as Python meets it, and the request message as protobuf.

All of it happens on the loop thread.
"""

from __future__ import annotations

from typing import Any, Protocol

from google.protobuf.message import DecodeError

from gateway.errors import InvalidArgument


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
