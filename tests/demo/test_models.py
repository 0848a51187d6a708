"""What the demo puts on disk: models that give the golden answers, under the names and types that callers are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml

from demo.catalogue import MODELS
from gateway.monitoring.profile import load_profile
from gateway.monitoring.subject import opened

NUMBERED = [(model.name, version.number) for model in MODELS for version in model.versions]
FLOAT, INT64, STRING = "tensor(float)", "tensor(int64)", "tensor(string)"
SIGNATURES: dict[str, tuple[dict[str, tuple[str, int]], dict[str, tuple[str, list[int | None]]]]] = {
    "breast_cancer": ({"input": (FLOAT, 30)}, {"label": (INT64, [None]), "probabilities": (FLOAT, [None, 2])}),
    "digits": ({"input": (FLOAT, 64)}, {"label": (INT64, [None]), "probabilities": (FLOAT, [None, 10])}),
    "wine": (
        {
            "body": (STRING, 1),
            "colour": (STRING, 1),
            "flavanoids": (FLOAT, 1),
            "hue": (FLOAT, 1),
            "malic_acid": (FLOAT, 1),
            "proline": (FLOAT, 1),
        },
        {"label": (STRING, [None]), "probabilities": (FLOAT, [None, 3])},
    ),
}


def load(path: Path, kind: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(path) as arrays:  # refuses pickles
        return {
            name.removeprefix(f"{kind}:"): arrays[name].astype(object)
            if arrays[name].dtype.kind == "U"
            else arrays[name]
            for name in arrays
            if name.startswith(f"{kind}:")
        }


@pytest.mark.parametrize(("model", "version"), NUMBERED)
def test_a_version_has_the_inputs_and_outputs_that_callers_are_told(
    demo_models: Path, model: str, version: int
) -> None:
    session = onnxruntime.InferenceSession(demo_models / model / str(version) / "model.onnx")
    inputs, outputs = SIGNATURES[model]
    assert {x.name: (x.type, x.shape) for x in session.get_inputs()} == {
        name: (kind, [None, columns]) for name, (kind, columns) in inputs.items()
    }
    assert {x.name: (x.type, x.shape) for x in session.get_outputs()} == outputs


@pytest.mark.parametrize(("model", "version"), NUMBERED)
def test_golden_rows_give_the_golden_outputs_together_and_one_by_one(
    demo_models: Path, model: str, version: int
) -> None:
    folder = demo_models / model / str(version)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    inputs, expected = load(folder / "golden.npz", "input"), load(folder / "golden.npz", "output")
    assert {len(values) for values in [*inputs.values(), *expected.values()]} == {16}
    together = dict(zip(expected, session.run(list(expected), inputs), strict=True))
    singly = [
        session.run(list(expected), {name: rows[at : at + 1] for name, rows in inputs.items()}) for at in range(16)
    ]
    for at, name in enumerate(expected):
        alone = np.concatenate([answer[at] for answer in singly])
        assert together[name].dtype == expected[name].dtype
        if expected[name].dtype == np.float32:
            np.testing.assert_allclose(together[name], expected[name], atol=1e-6)
            np.testing.assert_allclose(alone, expected[name], atol=1e-6)
        else:
            assert together[name].tolist() == alone.tolist() == expected[name].tolist()


@pytest.mark.parametrize(("model", "version"), NUMBERED)
def test_the_reference_is_a_sample_of_inputs_in_the_callers_types(demo_models: Path, model: str, version: int) -> None:
    folder = demo_models / model / str(version)
    reference, golden = load(folder / "reference.npz", "input"), load(folder / "golden.npz", "input")
    assert reference.keys() == golden.keys() == SIGNATURES[model][0].keys()
    (rows,) = {len(values) for values in reference.values()}
    assert 100 <= rows <= 1000
    for name, values in reference.items():
        assert (values.dtype, values.shape[1:]) == (golden[name].dtype, golden[name].shape[1:])


@pytest.mark.parametrize("model", [model.name for model in MODELS])
def test_the_two_versions_of_a_model_answer_differently(demo_models: Path, model: str) -> None:
    first, second = (load(demo_models / model / version / "golden.npz", "output") for version in "12")
    assert first.keys() == second.keys()
    assert np.max(np.abs(first["probabilities"] - second["probabilities"])) > 0.01


@pytest.mark.parametrize("model", [model.name for model in MODELS])
def test_model_yaml_names_the_backend(demo_models: Path, model: str) -> None:
    assert yaml.safe_load((demo_models / model / "model.yaml").read_text())["backend"] == "onnx"


@pytest.mark.parametrize(("model", "version"), NUMBERED)
def test_the_profile_is_of_the_version_and_of_its_reference(demo_models: Path, model: str, version: int) -> None:
    with opened(demo_models, model, version) as it:
        profile = load_profile(it.folder)
        profile.check(it.subject.signature, model, str(version), it.subject.digest)
    (rows,) = {len(values) for values in load(demo_models / model / str(version) / "reference.npz", "input").values()}
    assert (profile.source, profile.rows) == ("data", rows)
    assert {column.tensor for column in profile.columns} == SIGNATURES[model][0].keys()
    assert {column.tensor for column in profile.outputs} == SIGNATURES[model][1].keys()


def test_the_columns_of_a_table_go_by_their_names(demo_models: Path) -> None:
    names = [column.name for column in load_profile(demo_models / "breast_cancer" / "1").columns]
    assert (len(names), names[0], names[-1]) == (30, "mean radius", "worst fractal dimension")
