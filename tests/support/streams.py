"""A stream that records what a slow-path handler does with it, and insists on the rules of the native one."""

from __future__ import annotations


class RecordedStream:
    """`sent` holds serialized messages, `finished` (code, message) or None."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.sent: list[bytes] = []
        self.finished: tuple[int, str] | None = None

    def send(self, message: bytes) -> None:
        assert self.finished is None, "send after finish"
        assert isinstance(message, bytes)
        self.sent.append(message)

    def finish(self, code: int = 0, message: str = "") -> None:
        assert self.finished is None, "finish twice"
        self.finished = (int(code), message)
