"""The models of `make demo` are what its story says; that the story comes about is shown by tests/rollouts_e2e."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from demo.rollouts import models
from demo.rollouts.__main__ import PLAN
from gateway.backends import onnx
from gateway.config.model import ModelConfig
from gateway.errors import BackendFailure
from gateway.registry import golden
from gateway.rollout.acceptance import compare, signature_fault
from gateway.rollout.plan import parse

pytestmark = pytest.mark.timeout(400)  # the first one waits until all are trained


@pytest.fixture
def folder(released_models: Path) -> Path:
    return released_models


def answers(folder: Path, model: str, version: int) -> tuple[list[object], list[str]]:
    """To each row of the traffic, None where it fails; and the truth."""
    backend = onnx.load(folder / "models" / model / str(version), ModelConfig())
    with np.load(folder / "rows" / f"{model}.npz") as file:
        inputs = {name.removeprefix("input:"): file[name] for name in file.files if name.startswith("input:")}
        truth = [str(label) for label in file["truth"]]
    rows = golden.Golden(inputs, {}, len(truth))
    said: list[object] = []
    for row in range(rows.n):
        try:
            said.append(str(backend.run(rows.arrays(backend.signature, slice(row, row + 1)))[0][0]))
        except BackendFailure:
            said.append(None)
    return said, truth


def right(folder: Path, model: str, version: int) -> float:
    said, truth = answers(folder, model, version)
    return sum(a == b for a, b in zip(said, truth, strict=True)) / len(truth)


@pytest.mark.parametrize("model", [model.name for model in models.MODELS])
def test_every_release_passes_what_is_tried_before_traffic(folder: Path, model: str) -> None:
    stable, release = (onnx.load(folder / "models" / model / str(v), ModelConfig()) for v in (1, 2))
    assert signature_fault(stable.signature, release.signature) == ""
    examples = golden.read(folder / "models" / model / "2", release.signature)
    assert examples is not None
    got = release.run(examples.arrays(release.signature, slice(0, examples.n)))[0]
    assert compare("label", examples.outputs["label"], got, 1e-3, 0, examples.n).fault == ""


def test_the_good_release_is_better_on_rows_that_neither_has_seen(folder: Path) -> None:
    assert right(folder, "postcodes", 2) > right(folder, "postcodes", 1) > 0.9


def test_the_failing_release_fails_on_three_in_a_hundred_and_stable_on_none(folder: Path) -> None:
    said, _ = answers(folder, "wine_lab", 2)
    assert 0.02 <= said.count(None) / len(said) <= 0.04
    assert None not in answers(folder, "wine_lab", 1)[0]


def test_the_shifted_release_answers_everything_and_calls_nearly_twice_as_many_ill(folder: Path) -> None:
    said, _ = answers(folder, "screening", 2)
    stable, _ = answers(folder, "screening", 1)
    assert None not in said
    assert said.count("0") > 1.6 * stable.count("0")
    assert right(folder, "screening", 2) < 0.8 < right(folder, "screening", 1)


def test_the_plan_is_a_plan_and_needs_nothing_but_model_and_candidate(folder: Path) -> None:
    plan = parse({"model": "postcodes", "candidate": 2, **yaml.safe_load(PLAN.read_text())})
    assert plan.strategy == ("canary",)
    assert set(plan.guardrails) >= {"errors", "latency", "outputs"}


def test_training_again_changes_nothing(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    models.train(folder, lambda _: pytest.fail("it trained again"))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
