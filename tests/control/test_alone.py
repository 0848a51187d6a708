"""`gateway worker` and `gateway control` started alone: they meet in the store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tritonclient.grpc as triton

from tests.support.conditions import eventually
from tests.support.control import ask, put, times
from tests.support.controlclient import ControlClient
from tests.support.gatewayprocess import ROOT, free_port


@pytest.mark.slow
def test_workers_and_a_control_plane_that_are_started_alone_meet_in_the_store(tmp_path: Path) -> None:
    models, state = tmp_path / "models", tmp_path / "state"
    for version in (1, 2):
        put(models, "m", version, times(version))
    common = [sys.executable, "-m", "gateway"]
    where = ["--models", str(models), "--state", str(state)]
    ports = [free_port() for _ in range(5)]
    processes = []
    with (tmp_path / "log").open("wb") as log:

        def start(command: str, *flags: str) -> None:
            line = [*common, command, *where, *flags]
            processes.append(subprocess.Popen(line, cwd=ROOT, stdout=log, stderr=log))

        try:
            start("worker", "--port", str(ports[0]), "--grpc-port", str(ports[1]))
            start("worker", "--port", str(ports[2]), "--grpc-port", str(ports[3]))
            start("control", "--control-port", str(ports[4]))
            control = ControlClient(f"http://127.0.0.1:{ports[4]}")
            eventually(lambda: control.generation("m"), f"a first route; {(tmp_path / 'log').read_text()}", 80)
            eventually(lambda: len(control.get("/v1/routes/m")["acknowledged"]) == 2, "both workers")
            status, body = control.put_route("m", {"versions": {"1": 100}})
            assert (status, len(set(body["acknowledged"])), body["missing"]) == (200, 2, [])
            for port in (ports[1], ports[3]):
                with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
                    assert ask(client, "m") == 1.0
            assert control.ask("GET", "/metrics")[0] == 200  # its own only: no supervisor counts here
            for process in processes:
                process.terminate()
            assert [process.wait(60) for process in processes] == [0, 0, 0]
        finally:
            for process in processes:
                process.kill()
                process.wait()
