"""Child processes that never outlive the benchmark: own process group, stopped in a finally, output kept for errors."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from bench.errors import BenchError

STOP_S = 40  # the gateway drains for 30 s, then its supervisor kills at 35
_POLL_S = 0.002


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody holds just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Child:
    """One started command; its whole process group goes with it."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        self._name = Path(command[0]).name
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def check_alive(self) -> None:
        """Raises BenchError with the end of its output when it has exited."""
        code = self.process.poll()
        if code is not None:
            raise BenchError(f"{self._name} exited with code {code}: {self.last_words()}")

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-6:]) or "it wrote nothing"

    def terminate(self) -> tuple[float, int]:
        """SIGTERM to the command alone; returns seconds until it exited, and its exit code."""
        start = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        while self.process.poll() is None:  # wait(timeout) backs off to 50 ms, too coarse here
            if time.perf_counter() - start > STOP_S:
                raise BenchError(f"{self._name} did not exit within {STOP_S} s after SIGTERM: {self.last_words()}")
            time.sleep(_POLL_S)
        return time.perf_counter() - start, self.process.returncode

    def kill(self) -> None:
        """Ends the whole group now; harmless when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def wait_until_listening(port: int, child: Child | None, patience_s: float = 60.0) -> None:
    """Returns when a connection to 127.0.0.1:port is accepted; raises BenchError when the child dies or time is up."""
    end = time.monotonic() + patience_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as refused:
            if child is not None:
                child.check_alive()
            if time.monotonic() > end:
                words = f": {child.last_words()}" if child is not None else ""
                raise BenchError(
                    f"nothing accepts connections on 127.0.0.1:{port} after {patience_s:.0f} s{words}"
                ) from refused
            time.sleep(_POLL_S)
