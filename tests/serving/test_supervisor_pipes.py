"""The pipes between a supervisor and one worker: what the dead left in them, and that none stays open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.deployment import WorkerOptions
from gateway.serving.workerprocess import WorkerProcess

LAST_WORDS = """
import json, os, signal, sys
options = json.loads(sys.argv[1])
os.write(options["control_fd"], b'{"event": "ready"}\\n')
os.write(options["telemetry_fd"], b"first\\nlast\\nhalf a li")
os.kill(os.getpid(), signal.SIGKILL)
"""

GRANDCHILD = """
import os, time
if os.fork() == 0:
    time.sleep(8)
"""


class Heard:
    """A worker that does what `code` says, and all that is heard of it."""

    def __init__(self, code: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.snapshots: list[bytes] = []
        self.process = WorkerProcess(
            lambda options: [sys.executable, "-c", code, options.model_dump_json()],
            WorkerOptions(models=Path(".")),
            self.events.append,
            self.snapshots.append,
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.process.reap)


def pipes() -> set[str]:
    """Open in this process. Sockets come and go as they like, with the threads of clients of earlier tests."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return {name for name in found if name.startswith("pipe:")}


@pytest.fixture(autouse=True)
async def _no_fd_is_left() -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, lambda: None)
    before = pipes()
    yield
    assert pipes() <= before
    loop.remove_signal_handler(signal.SIGCHLD)


async def test_the_last_words_of_a_worker_that_is_killed_are_heard_before_its_end() -> None:
    worker = Heard(LAST_WORDS)
    assert await worker.process.exited == -signal.SIGKILL
    assert worker.events == [{"event": "ready"}]
    assert worker.snapshots == [b"first", b"last"]


async def test_a_grandchild_that_holds_the_pipes_keeps_nothing_open_here() -> None:
    worker = Heard(GRANDCHILD)
    assert await worker.process.exited == 0


async def test_a_worker_that_cannot_be_started_leaves_nothing_open() -> None:
    with pytest.raises(FileNotFoundError):
        WorkerProcess(lambda _: ["/no/such/program"], WorkerOptions(models=Path(".")), print, print)
