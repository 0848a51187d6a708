"""Lines through a pipe, from a worker to its supervisor, neither of which may ever wait for the other.

The sender drops a line when the one before is still on its way, and counts it; a line is never cut. Affinity: the loop
thread of either side.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

MAX_LINE_BYTES = 64 * 2**20
"""What the receiver keeps of an unfinished line: thousands of versions fit, a sender gone wrong does not."""

_READ_BYTES = 65536
_POLL_S = 0.01


class LineSender:
    """Owns `fd`, the write end. After the receiver is gone, everything is dropped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""
        self._is_open = True
        self._is_waiting = False
        self.n_dropped = 0
        os.set_blocking(fd, False)

    @property
    def is_clear(self) -> bool:
        """Nothing is on its way."""
        return not self._rest

    def send(self, line: bytes) -> bool:
        """`line` ends in a newline. False: dropped."""
        if not self._is_open or self._rest:
            self.n_dropped += 1
            return False
        self._rest = line
        self._write()
        return self._is_open

    async def close(self, patience_s: float) -> None:
        """Give what is on its way this long."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + patience_s
        while self._rest and loop.time() < until_s:  # noqa: ASYNC110  (once in a life)
            await asyncio.sleep(_POLL_S)
        self._close()

    def _write(self) -> None:
        try:
            self._rest = self._rest[os.write(self._fd, self._rest) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads any more
            self._close()
            return
        if bool(self._rest) != self._is_waiting:
            loop = asyncio.get_running_loop()
            self._is_waiting = not self._is_waiting
            if self._is_waiting:
                loop.add_writer(self._fd, self._write)
            else:
                loop.remove_writer(self._fd)

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._rest = b""
            if self._is_waiting:
                asyncio.get_running_loop().remove_writer(self._fd)
            os.close(self._fd)


class LineReceiver:
    """Owns `fd`, the read end; hands `on_line` each line without its newline."""

    def __init__(self, fd: int, on_line: Callable[[bytes], None]) -> None:
        self._fd, self._on_line = fd, on_line
        self._buffer = bytearray()
        self._is_overlong = False
        self._is_open = True
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def close(self) -> None:
        """Take what is still in the pipe, without waiting for more."""
        while self._is_open:
            if not self._read():
                self._close()

    def _read(self) -> bool:
        """Whether anything came."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close()
            return False
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._buffer += data[start:end]
            line, self._buffer, start = bytes(self._buffer), bytearray(), end + 1
            if not self._is_overlong:
                self._on_line(line)
            self._is_overlong = False
        self._buffer += data[start:]
        if len(self._buffer) > MAX_LINE_BYTES:
            self._buffer, self._is_overlong = bytearray(), True
        return True

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
