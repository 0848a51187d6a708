"""`python -m demo.traffic`, as a person runs it beside a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from demo.traffic import drift_from
from tests.demo.conftest import run_python
from tests.support.gatewayprocess import GatewayProcess


def test_every_request_sent_is_answered_and_counted_at_its_version(demo_models: Path, tmp_path: Path) -> None:
    with GatewayProcess(demo_models, tmp_path) as gateway:
        done = run_python(
            "-m",
            "demo.traffic",
            "wine",
            "--models",
            demo_models,
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


def test_a_drifted_column_moves_by_standard_deviations_and_no_other_does(demo_models: Path) -> None:
    folder = demo_models / "breast_cancer" / "1"
    with np.load(folder / "reference.npz") as file:
        inputs = {"input": file["input:input"]}
    moved = drift_from("mean texture=+1.5", folder, inputs).apply(inputs, np.random.default_rng(0))["input"]
    difference = moved.mean(axis=0) - inputs["input"].mean(axis=0)
    assert difference[1] == pytest.approx(1.5 * inputs["input"][:, 1].std(), rel=1e-3)
    assert np.count_nonzero(difference) == 1
    lost = drift_from("mean texture=nan:0.25", folder, inputs).apply(inputs, np.random.default_rng(0))["input"]
    assert 0.15 < np.isnan(lost[:, 1]).mean() < 0.35
    assert not np.isnan(np.delete(lost, 1, axis=1)).any()


@pytest.mark.parametrize(
    ("drift", "complaint"),
    [
        ("hue", "got 'hue', expected COLUMN=+1.5 or COLUMN=nan:0.2"),
        ("body=+1", "got column 'body', expected one of flavanoids, hue, malic_acid, proline"),
        ("hue=much", "got 'much' for hue, expected deviations"),
        ("hue=nan:7", "got 'nan:7' for hue, expected a share from 0 to 1"),
    ],
)
def test_a_drift_that_cannot_be_names_what_can(demo_models: Path, drift: str, complaint: str) -> None:
    done = run_python("-m", "demo.traffic", "wine", "--models", demo_models, "--drift", drift)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_a_model_that_is_not_there_is_said_with_the_cure(tmp_path: Path) -> None:
    done = run_python("-m", "demo.traffic", "wine", "--models", tmp_path)
    assert done.returncode == 2
    assert "make demo-models" in done.stderr


def test_a_gateway_that_is_not_there_is_said(demo_models: Path, unused_tcp_port: int) -> None:
    done = run_python(
        "-m",
        "demo.traffic",
        "digits",
        "--models",
        demo_models,
        "--seconds",
        0.2,
        "--url",
        f"127.0.0.1:{unused_tcp_port}",
    )
    assert done.returncode == 1
    assert "UNAVAILABLE" in done.stdout
