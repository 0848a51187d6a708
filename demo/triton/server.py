"""One tritonserver as a process of its own, on ports that were free a moment ago, with its log in a file.

    with TritonServer(repository, folder) as server:
        server.url                 # host:port of its gRPC
        server.kill()              # SIGKILL; pause() and resume() are SIGSTOP and SIGCONT
        server.start()             # again, on the same ports

Its models are processes too: the server and they are one session of the kernel, and end together.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from demo.triton import wheel

START_S = 60.0
EXIT_S = 15.0
SHM = Path("/dev/shm")


class TritonFailed(Exception):
    """It did not start, or ended; its log is in the text."""


class TritonServer:
    """Ready when `start` returns. `flags` go to tritonserver; `explicit`: callers load and unload models, and those in
    `load` are loaded at the start. `under`: the words of a command that runs it.
    """

    def __init__(
        self,
        repository: Path,
        folder: Path | None = None,
        *flags: str,
        explicit: bool = False,
        load: tuple[str, ...] = (),
        grpc_port: int = 0,
        host: str = "127.0.0.1",
        cpus: int | None = None,
        under: tuple[str, ...] = (),
    ) -> None:
        self.repository = repository
        self._made = None if folder else Path(tempfile.mkdtemp(prefix="tritonserver-"))
        self.folder = folder or self._made or Path()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._wish = [*flags]
        if explicit:
            self._wish += ["--model-control-mode=explicit", *(f"--load-model={model}" for model in load)]
        self._grpc_port, self._http_port = grpc_port, 0
        self._host, self._cpus = host, cpus
        self._under = under
        self._prefix = f"gateway_{os.getpid()}_{id(self):x}_"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> TritonServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what it is

    @property
    def url(self) -> str:
        """Of its gRPC."""
        return f"{self._host}:{self._grpc_port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self._http_port}"

    @property
    def pid(self) -> int:
        assert self._process, "it was never started"
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        file = self.folder / "triton.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def processes(self) -> list[int]:
        """The server and what runs its models: all of its session."""
        return [pid for pid, session in _sessions() if self._process and session == self._process.pid]

    # --- how it begins

    def start(self) -> TritonServer:
        """On the ports it had before; at the first start on free ones. Returns when its models are ready."""
        if self.lives:
            return self
        fixed = bool(self._http_port)
        for attempt in range(5):
            if not fixed:
                ports = [_free_port() for _ in range(2)]
                self._http_port = ports[0]
                self._grpc_port = self._grpc_port or ports[1]
            self._spawn()
            if self._wait_ready():
                return self
            log = self.log
            self.close_processes()
            is_port_taken = "Address already in use" in log or "failed to bind" in log
            if fixed or attempt == 4 or not is_port_taken:
                raise TritonFailed(f"tritonserver did not become ready; its log:\n{log}")
            self._grpc_port = 0
        raise AssertionError("unreachable")

    def spawn(self) -> None:
        """`start` without waiting for it to be ready; the ports are those of an earlier start."""
        assert self._http_port, "the first start waits"
        if not self.lives:
            self._spawn()

    def _spawn(self) -> None:
        found = wheel.find()
        flags = {
            "model-repository": self.repository,
            "backend-directory": found.backends,
            "http-address": "127.0.0.1",
            "http-port": self._http_port,
            "grpc-address": self._host,
            "grpc-port": self._grpc_port,
            "allow-metrics": "false",
            "exit-timeout-secs": 5,
            "backend-config": f"python,shm-region-prefix-name={self._prefix}",
        }
        command = [str(found.binary), *(f"--{name}={value}" for name, value in flags.items()), *self._wish]
        if self._cpus is not None:
            command = ["taskset", "-c", str(self._cpus), *command]
        command = [*self._under, *command]
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, found.libraries)),
            "PYTHONHOME": str(found.python_home),
        }
        for name in (
            "LD_PRELOAD",
            "PYTHONMALLOC",
            "PYTHONPATH",
            "PYTHONSAFEPATH",
        ):  # a debug run of the tests sets them
            environment.pop(name, None)
        with (self.folder / "triton.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _wait_ready(self) -> bool:
        deadline_s = time.monotonic() + START_S
        while self.lives and time.monotonic() < deadline_s:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.http_url}/v2/health/ready", timeout=1):
                return True
            time.sleep(0.02)
        return False

    # --- what befalls it

    def kill(self) -> None:
        """SIGKILL to the server and its models, as when a machine loses power."""
        self.close_processes()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nobody answers."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    # --- how it ends

    def stop(self) -> None:
        """SIGTERM, as an operator would; SIGKILL when that takes too long."""
        if self._process is not None and self.lives:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(EXIT_S)
        self.close_processes()

    def close(self) -> None:
        """Nothing of it is left behind."""
        self.close_processes()
        if self._made:
            shutil.rmtree(self._made, ignore_errors=True)

    def close_processes(self) -> None:
        if self._process is None:
            return
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        deadline_s = time.monotonic() + EXIT_S
        while self.processes() and time.monotonic() < deadline_s:
            time.sleep(0.002)
        for left in SHM.glob(f"{self._prefix}*"):
            left.unlink(missing_ok=True)


def _sessions() -> list[tuple[int, int]]:
    """(process, its session) of all that run here."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            after_name = file.read_text().rpartition(")")[2].split()
            if after_name[0] != "Z":
                found.append((int(file.parent.name), int(after_name[3])))
    return found


def _free_port() -> int:
    """None that the kernel gives to a connection by itself, which could have it while the server is down."""
    for port in random.SystemRandom().sample(range(10_000, 32_000), 1000):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise TritonFailed("no port is free between 10000 and 32000")
