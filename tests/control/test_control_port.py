"""--control-port of `gateway serve`."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.support.conditions import eventually
from tests.support.gatewayprocess import ROOT


def serve(models: Path, *flags: str) -> list[str]:
    ports = ["--port", "0", "--grpc-port", "0"]
    return [sys.executable, "-m", "gateway", "serve", "--models", str(models), *ports, *flags]


def test_a_port_in_use_is_refused_by_its_flag(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        command = serve(tmp_path, "--control-port", str(number))
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: --control-port {number}: in use on 127.0.0.1; stop what listens there")
    assert done.stderr.count("\n") == 1


def test_port_0_is_a_free_one_that_the_banner_shows(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "empty").mkdir()
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(serve(models, "--control-port", "0"), stdout=out, stderr=err, cwd=ROOT)
    try:
        text = eventually(lambda: (now := (tmp_path / "out").read_text()).count("Metrics: ") and now, "the banner", 60)
        line = next(line for line in text.splitlines() if "Metrics: " in line)
        url = line.split()[1]
        assert line == f"  Metrics: {url} (--control-port)"
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert b'\ngateway_worker_up{worker="0"} 1.0\n' in answer.read()
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
