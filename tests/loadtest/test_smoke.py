"""Under load for some seconds in each shape: every request is answered, and every answer is right.

What it reaches is printed and never asserted: the machine may be any. `make bench` measures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.loadtest import report
from tests.support.gatewayprocess import ROOT, GatewayProcess

pytestmark = [pytest.mark.load, pytest.mark.slow]

SECONDS = ("--seconds", "2", "--warmup", "0.3", "--no-ceiling")
SHAPES = {
    "many streams": ("--model", "breast_cancer", "--connections", "8", "--streams", "16"),
    "many connections": ("--model", "breast_cancer", "--connections", "64", "--streams", "1"),
    "one at a time": ("--model", "wine", "--connections", "1", "--streams", "1"),
    "many rows": ("--model", "digits", "--connections", "4", "--streams", "8", "--rows", "32"),
    "open loop": ("--model", "wine", "--rate", "1000"),
}


@pytest.fixture(scope="module")
def gateway(trained_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(trained_models, tmp_path_factory.mktemp("smoke"), "--workers", "2") as process:
        yield process


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_lost_and_nothing_is_wrong(
    gateway: GatewayProcess, shape: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "gateway", "bench", f"127.0.0.1:{gateway.port}", *SHAPES[shape], *SECONDS]
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    with capsys.disabled():
        print("", f"[{shape}]", *report.lines(result), sep="\n")
    assert (result["failed"], result["lost"], result["answers"]["wrong"]) == ({}, {}, 0)
    assert result["answers"]["right"] >= result["ok"] > 0
    assert done.returncode == 0
