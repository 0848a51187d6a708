"""`python -m demo.traffic`, as a person runs it beside a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from demo import tables
from demo.traffic import drift_from
from tests.demo.conftest import run_python
from tests.support.gatewayprocess import GatewayProcess


def test_every_request_sent_is_answered_and_counted_at_its_version(demo_models: Path, tmp_path: Path) -> None:
    with GatewayProcess(demo_models, tmp_path) as gateway:
        done = run_python(
            "-m",
            "demo.traffic",
            "wine",
            "--rate",
            200,
            "--seconds",
            1,
            "--json",
            "--url",
            f"127.0.0.1:{gateway.port}",
        )
    assert done.returncode == 0, done.stderr
    score = json.loads(done.stdout)
    assert score["failed"] == {}
    assert sum(score["answered"].values()) == score["sent"] >= 190


def test_a_drifted_column_moves_by_standard_deviations_and_no_other_does() -> None:
    table = tables.breast_cancer()
    moved = drift_from("input[3]+1.5", table).apply(table)
    difference = moved.inputs["input"].mean(axis=0) - table.inputs["input"].mean(axis=0)
    assert difference[3] == pytest.approx(1.5 * table.inputs["input"][:, 3].std(), rel=1e-3)
    assert np.count_nonzero(difference) == 1


@pytest.mark.parametrize(
    ("drift", "complaint"),
    [
        ("input", "got 'input', expected INPUT[I]+S"),
        ("body+1", "got column 'body', expected one of flavanoids, hue, malic_acid, proline"),
        ("hue[7]+1", "got hue[7], expected an index below 1"),
    ],
)
def test_a_drift_that_cannot_be_names_what_can(drift: str, complaint: str) -> None:
    done = run_python("-m", "demo.traffic", "wine", "--drift", drift)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_a_gateway_that_is_not_there_is_said(unused_tcp_port: int) -> None:
    done = run_python("-m", "demo.traffic", "digits", "--seconds", 0.2, "--url", f"127.0.0.1:{unused_tcp_port}")
    assert done.returncode == 1
    assert "UNAVAILABLE" in done.stdout
