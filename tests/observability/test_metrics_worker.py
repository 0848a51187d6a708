"""A worker whose snapshots nobody takes: it serves, and it ends as if nothing were."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.config.deployment import WorkerOptions
from gateway.observability.snapshot import Snapshot, decode
from tests.support import onnxmodels
from tests.support.gatewayprocess import ROOT
from tests.support.oip import Client, connect

ROW = {"x": np.zeros((1, 4), np.float32)}


class Worker:
    """`gateway worker` by hand, with its pipes in our hands."""

    def __init__(self, folder: Path) -> None:
        onnxmodels.store(folder / "models", "m", 1, onnxmodels.linear())
        control_fd, theirs = os.pipe()
        self.telemetry_fd, telemetry_fd = os.pipe()
        os.set_blocking(self.telemetry_fd, False)
        self.is_full = False
        self._telemetry_fd = telemetry_fd
        self._folder, self._control_fd = folder, control_fd
        self._options = WorkerOptions(
            models=folder / "models",
            port=0,
            grpc_port=0,
            control_fd=theirs,
            telemetry_fd=telemetry_fd,
            log_format="json",
        )

    def fill(self) -> None:
        """As a supervisor leaves the pipe that has not read for a long time."""
        os.set_blocking(self._telemetry_fd, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self._telemetry_fd, b"x" * 4096)

    def hang_up(self) -> None:
        os.close(self.telemetry_fd)

    def start(self) -> None:
        fds = [fd for fd in (self._options.control_fd, self._options.telemetry_fd) if fd is not None]
        with (self._folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "worker", "--options", self._options.model_dump_json()],
                stderr=log,
                cwd=ROOT,
                pass_fds=fds,
            )
        for fd in fds:
            os.close(fd)
        with os.fdopen(self._control_fd) as lines:
            events = {}
            for line in lines:
                events[json.loads(line)["event"]] = json.loads(line)
                if "ready" in events:
                    break
            self._lines = os.dup(lines.fileno())
        self.port = int(events["listening"]["grpc_port"])

    def snapshots(self) -> list[Snapshot]:
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.telemetry_fd, 65536):
                data += piece
        return [decode(line) for line in data.splitlines()]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path)
    yield worker
    worker.process.kill()
    worker.process.wait()
    os.close(worker._lines)
    with contextlib.suppress(OSError):
        worker.hang_up()


def answered(worker: Worker, n: int) -> None:
    with connect(f"127.0.0.1:{worker.port}") as channel:
        for _ in range(n):
            Client(channel).infer("m", ROW)


def asked_to_end(worker: Worker) -> int:
    worker.process.send_signal(signal.SIGTERM)
    return worker.process.wait(60)


def test_the_last_snapshot_comes_when_it_has_drained_and_holds_everything(worker: Worker) -> None:
    worker.start()
    answered(worker, 7)
    assert asked_to_end(worker) == 0
    last = worker.snapshots()[-1]
    assert [(lane.model, lane.version, lane.counters.requests) for lane in last.lanes] == [("m", "1", {"OK": 7})]
    assert last.versions[0].load_s is not None
    assert last.hub.snapshots_dropped == 0
    assert last.now.open_calls == 0


def test_a_pipe_that_is_full_costs_snapshots_and_nothing_else(worker: Worker) -> None:
    worker.fill()
    worker.start()
    answered(worker, 7)
    assert asked_to_end(worker) == 0


def test_a_pipe_that_nobody_holds_any_more_costs_nothing(worker: Worker, tmp_path: Path) -> None:
    worker.hang_up()
    worker.start()
    answered(worker, 7)
    assert asked_to_end(worker) == 0
    assert "telemetry" not in (tmp_path / "log").read_text()
