"""The control plane as the supervisor holds it: a child process that is started again when it dies, and never matters
to a request.

It inherits the bound socket of the control port, so that callers wait for a restart instead of being refused; a link on
which it asks what the workers have counted; and a lifeline, as workers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import orjson

import gateway
from gateway.config.deployment import ControlOptions
from gateway.observability import logs
from gateway.observability.aggregate import Aggregate
from gateway.observability.totals import to_json
from gateway.serving.backoff import Backoff
from gateway.serving.workerprocess import exit_text

BACKLOG = 64
START_PATIENCE_S = 1.0
"""It waits that long for the workers to be ready: on a machine with few cores they need them more."""
STOP_PATIENCE_S = 3.0
_REAP_PATIENCE_S = 5.0

ControlCommand = Callable[[ControlOptions], Sequence[str]]


def control_command(options: ControlOptions) -> list[str]:
    """The real one; -P as for workers."""
    own_folder = Path(gateway.__file__).resolve().parent.parent
    isolation = [] if own_folder == Path.cwd() else ["-P"]
    return [sys.executable, *isolation, "-m", "gateway", "control", "--options", options.model_dump_json()]


class ControlProcess:
    """Runs once, on the supervisor's loop. `options` without descriptors; `sock` is bound."""

    def __init__(
        self, command: ControlCommand, options: ControlOptions, sock: socket.socket, aggregate: Aggregate
    ) -> None:
        self._command, self._options, self._sock, self._aggregate = command, options, sock, aggregate
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._backoff = Backoff()
        self._process: subprocess.Popen[bytes] | None = None
        self._exited: asyncio.Future[int] | None = None
        self._log = logs.get()

    @contextlib.asynccontextmanager
    async def running(self, is_due: asyncio.Event) -> AsyncIterator[None]:
        """From when it is due, or a moment later, until the context ends."""
        self._sock.listen(BACKLOG)  # at once: who comes early waits instead of being refused
        task = self._loop.create_task(self._keep(is_due))
        try:
            yield
        finally:
            self._stop.set()
            if self._process:
                self._process.send_signal(signal.SIGTERM)
            _, late = await asyncio.wait({task}, timeout=STOP_PATIENCE_S)
            if late:
                self._log.error("control plane hangs and is killed")
                self.kill()
                await asyncio.wait({task}, timeout=_REAP_PATIENCE_S)
            task.cancel()

    def reap(self) -> None:
        """To be called on each SIGCHLD."""
        if self._process and self._exited and not self._exited.done():
            code = self._process.poll()
            if code is not None:
                self._exited.set_result(code)

    def kill(self) -> None:
        if self._process:
            self._process.kill()

    async def _keep(self, is_due: asyncio.Event) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(is_due.wait(), START_PATIENCE_S)
        while not self._stop.is_set():
            began_s = self._loop.time()
            exit_ = await self._live()
            if self._stop.is_set():
                return
            pause_s = self._backoff.pause_s(self._loop.time() - began_s)
            self._log.error("control plane died, requests are served without it", exit=exit_, restart_in_s=pause_s)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause_s)

    async def _live(self) -> str:
        """One life; how it ended."""
        ours, theirs = socket.socketpair()
        lifeline_fd, held_fd = os.pipe()
        fds = {"listen_fd": self._sock.fileno(), "link_fd": theirs.fileno(), "lifeline_fd": lifeline_fd}
        self._exited = self._loop.create_future()
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - milliseconds, and SIGCHLD is the supervisor's
                self._command(self._options.model_copy(update=fds)),
                stdin=subprocess.DEVNULL,
                pass_fds=[*fds.values()],
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            os.close(held_fd)
            return f"could not be started: {error.strerror}"
        finally:
            theirs.close()
            os.close(lifeline_fd)
        link = self._loop.create_task(self._answer(ours))
        try:
            return exit_text(await self._exited)
        finally:
            self._process = None
            os.close(held_fd)
            link.cancel()
            await asyncio.wait({link})

    async def _answer(self, sock: socket.socket) -> None:
        """{"ask": n, "do": "totals"} -> {"answer": n, "totals": {...}}"""
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            while line := await reader.readline():
                number = int(orjson.loads(line)["ask"])
                writer.write(b'{"answer":%d,"totals":%s}\n' % (number, to_json(self._aggregate.totals())))
                await writer.drain()
        except (OSError, ValueError, KeyError) as error:
            self._log.warning("link to the control plane is broken", error=str(error))
        finally:
            writer.close()
