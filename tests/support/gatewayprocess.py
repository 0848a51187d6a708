"""`gateway serve` as a process of its own, on ports that the kernel picks, with its log in a file."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.conditions import eventually
from tests.support.controlclient import ControlClient

ROOT = Path(__file__).parents[2]

START_S = 80.0  # a debug build under sanitizers starts slowly
EXIT_S = 60.0


class GatewayProcess:
    """Ready when the constructor returns, unless `wait` is False. `folder` takes the log and the config file.

    `flags` go to the command line, `config` into a --config file, `env` over the environment;
    `before` goes before the command, and becomes it in the end.
    """

    def __init__(
        self,
        models: Path,
        folder: Path,
        *flags: str,
        config: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        wait: bool = True,
        before: Sequence[str] = (),
    ) -> None:
        self.models = models
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "log"
        self._host = "127.0.0.1"
        command = [sys.executable, "-m", "gateway", "serve", "--models", str(models), "--log-format", "json"]
        for port in ("--port", "--grpc-port", "--control-port"):
            command += [] if port in flags else [port, "0"]
        if config is not None:
            (folder / "gateway.yaml").write_text(yaml.safe_dump(config))
            command += ["--config", str(folder / "gateway.yaml")]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*before, *command, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
            )
        if wait:
            self.wait_ready()

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- what it says

    @property
    def log(self) -> str:
        """All it wrote."""
        return self._log.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its log lines of that event."""
        found = []
        for line in self.log.splitlines():
            with contextlib.suppress(ValueError):
                if (event := json.loads(line)).get("event") == name:
                    found.append(event)
        return found

    def wait_ready(self) -> None:
        def is_ready() -> list[dict[str, Any]]:
            assert self.process.poll() is None, f"the gateway ended with {self.process.returncode}:\n{self.log}"
            return self.events("gateway ready")

        eventually(is_ready, f"the gateway is ready; its log:\n{self.log}", START_S)

    @property
    def grpc_url(self) -> str:
        return f"{self._host}:{self.port}"

    @property
    def rest_url(self) -> str:
        """Where REST will be; HTTP/2 gRPC until then."""
        return f"{self._host}:{self.events('gateway ready')[0]['port']}"

    @property
    def port(self) -> int:
        return int(self.events("gateway ready")[0]["grpc_port"])

    @property
    def control_url(self) -> str:
        return f"http://{self._host}:{self.events('gateway ready')[0]['control_port']}"

    def control(self, actor: str = "ada") -> ControlClient:
        return ControlClient(self.control_url, actor)

    def wait_routed(self, *models: str) -> ControlClient:
        """Until the control plane is there and each model has its first route; a client of it."""
        client = self.control()
        eventually(lambda: all(map(client.generation, models)), f"first routes; its log:\n{self.log}", START_S)
        return client

    @property
    def control_pid(self) -> int | None:
        """None: it does not live now."""
        return next(iter(self._children(b"control")), None)

    def workers(self) -> list[int]:
        """Process ids of the workers that live."""
        return self._children(b"worker")

    def _children(self, command: bytes) -> list[int]:
        pid = self.process.pid
        children: set[int] = set()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            children |= {int(child) for child in task.read_text().split()}
        return sorted(child for child in children if command in _command_line(child).split(b"\0"))

    def worker_of(self, client: socket.socket) -> int | None:
        """Process id of the worker that accepted this connection; None while none has."""
        here, there = client.getsockname()[1], client.getpeername()[1]
        inode = ""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, *rest = line.split()
            if (int(local[-4:], 16), int(remote[-4:], 16)) == (there, here):
                inode = rest[6]
        for worker in self.workers():
            for file in Path(f"/proc/{worker}/fd").glob("*"):
                with contextlib.suppress(OSError):
                    if os.readlink(file) == f"socket:[{inode}]":
                        return worker
        return None

    def rss_bytes(self) -> int:
        """Resident memory of all workers."""
        pages = 0
        for worker in self.workers():
            pages += int(Path(f"/proc/{worker}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def metrics(self) -> dict[tuple[str, ...], float]:
        """All samples of /metrics by name and the values of their labels, in the order of the labels' names."""
        status, text = self.control().ask("GET", "/metrics")
        assert status == 200, text
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name, *(sample.labels[label] for label in sorted(sample.labels))] = float(sample.value)
        return found

    # --- how it ends

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = EXIT_S) -> int:
        """The exit code."""
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """SIGTERM and its exit code; nothing of it is left behind, whatever happens."""
        workers = [*self.workers(), *self._children(b"control")] if self.process.poll() is None else []
        if self.process.poll() is None:
            self.terminate()
        try:
            return self.wait()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            for worker in workers:
                if b"gateway" in _command_line(worker):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def free_port() -> int:
    """A port that nobody has now, for what must be known before the server says it: one of those that the kernel gives
    to nobody by itself, and not one that was given out here before.
    """
    for port in _ports:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are taken")


_ports = iter(random.SystemRandom().sample(range(10_000, 32_000), 22_000))  # two runs side by side seldom meet
