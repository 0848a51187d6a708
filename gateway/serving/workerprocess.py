"""One worker as its supervisor holds it: a child process, the lines it reports, its end, and the lifeline it hangs
on.

Four pipes: on `control` the worker writes one JSON object per line, and on `command` we do; on `telemetry` it writes
snapshots, which may be lost; on `lifeline` nobody writes, and its end of file tells the worker that the supervisor is
gone, even by SIGKILL. The child leads a session of its own, so that Ctrl-C in a terminal reaches the supervisor only,
which then asks each worker once.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from gateway.config.deployment import WorkerOptions
from gateway.observability import logs
from gateway.observability.feed import LineReceiver

MAX_LINE_BYTES = 2**20
"""Of one control line; a worker that writes more without a newline is not speaking the protocol."""

_EOF_PATIENCE_S = 1.0  # a dead worker's last lines come first; but a grandchild may hold the pipe open

Command = Callable[[WorkerOptions], Sequence[str]]


class WorkerProcess:
    """A started child. `exited` resolves once, to its return code (negative: the signal), after its last line was
    handled.
    """

    def __init__(
        self,
        command: Command,
        options: WorkerOptions,
        on_event: Callable[[dict[str, Any]], None],
        on_snapshot: Callable[[bytes], None],
    ) -> None:
        """Start it. OSError when it cannot be."""
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self.index = options.worker
        self.is_ready = False
        """Set by who reads its events."""
        self._buffer = b""
        self._unsent = b""
        self._returncode: int | None = None
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._control_fd, control_fd = os.pipe()
        lifeline_fd, self._lifeline_fd = os.pipe()
        snapshots_fd, telemetry_fd = os.pipe()
        command_fd, self._command_fd = os.pipe()
        ours = self._control_fd, self._lifeline_fd, snapshots_fd, self._command_fd
        theirs = control_fd, lifeline_fd, telemetry_fd, command_fd
        try:
            names = ("control_fd", "lifeline_fd", "telemetry_fd", "command_fd")
            full = options.model_copy(update=dict(zip(names, theirs, strict=True)))
            self._process = subprocess.Popen(
                command(full), stdin=subprocess.DEVNULL, pass_fds=theirs, start_new_session=True
            )
        except OSError:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self._telemetry = LineReceiver(snapshots_fd, on_snapshot)
        os.set_blocking(self._control_fd, False)
        os.set_blocking(self._command_fd, False)
        self._loop.add_reader(self._control_fd, self._on_readable)
        self._is_reading = True

    @property
    def pid(self) -> int:
        return self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing happens when it has already ended."""
        self._process.send_signal(number)

    def send(self, line: dict[str, Any]) -> None:
        """A JSON object to the worker, as soon as its pipe takes it. Nothing happens when it has ended."""
        if self.exited.done():
            return
        self._unsent += json.dumps(line).encode() + b"\n"
        self._on_writable()

    def _on_writable(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._command_fd, self._unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent = b""
        if self._unsent:
            self._loop.add_writer(self._command_fd, self._on_writable)
        else:
            self._loop.remove_writer(self._command_fd)

    def reap(self) -> None:
        """To be called on each SIGCHLD."""
        if self._returncode is None and (code := self._process.poll()) is not None:
            self._returncode = code
            if self._is_reading:
                self._loop.call_later(_EOF_PATIENCE_S, self._settle)
            else:
                self._settle()

    def _on_readable(self) -> None:
        try:
            data = os.read(self._control_fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self._stop_reading()
            if self._returncode is not None:
                self._settle()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._on_line(line)
        if len(self._buffer) > MAX_LINE_BYTES:
            self._complain(self._buffer)
            self._buffer = b""

    def _on_line(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            self._on_event(event)
        else:
            self._complain(line)

    def _complain(self, line: bytes) -> None:
        logs.get().warning("control line ignored", worker=self.index, got=repr(line[:80]), expected="a JSON object")

    def _settle(self) -> None:
        assert self._returncode is not None
        if self.exited.done():
            return
        self._stop_reading()
        self._telemetry.close()
        os.close(self._lifeline_fd)
        self._loop.remove_writer(self._command_fd)
        os.close(self._command_fd)
        self.exited.set_result(self._returncode)

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._control_fd)
            os.close(self._control_fd)


def exit_text(returncode: int) -> str:
    """`exit code 3`, `killed by SIGSEGV`."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
