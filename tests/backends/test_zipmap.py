"""Classifiers as skl2onnx exports them by default: a ZipMap at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from gateway.backends.base import Backend
from gateway.backends.onnx import load
from gateway.backends.zipmap import mentions_zipmap, without_zipmap
from gateway.config.model import ModelConfig
from gateway.errors import LoadError
from tests.support import onnxmodels


def classifier(labels: list[Any], n_rows: int = 150) -> tuple[Any, np.ndarray]:
    """Logistic regression on irises, with labels of our choice."""
    x, y = load_iris(return_X_y=True)
    x = x.astype(np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x, np.array(labels)[y])
    return model, x[:n_rows]


def loaded(folder: Path, content: bytes) -> Backend:
    return load(onnxmodels.store(folder, "fraud", 3, content), ModelConfig())


@pytest.mark.parametrize("labels", [[0, 1, 2], [-7, 0, 900], ["setosa", "versicolor", "virginica"]])
def test_the_matrix_of_probabilities_takes_the_place_of_the_map(tmp_path: Path, labels: list[Any]) -> None:
    model, x = classifier(labels)
    content = to_onnx(model, x[:1]).SerializeToString()
    assert b"ZipMap" in content
    backend = loaded(tmp_path, content)
    label, probability = backend.signature.outputs
    assert (label.name, label.datatype, label.shape) == (
        "output_label",
        "BYTES" if isinstance(labels[0], str) else "INT64",
        (-1,),
    )
    assert (probability.name, probability.datatype, probability.shape) == ("output_probability", "FP32", (-1, 3))
    assert backend.signature.batched
    got_labels, got = backend.run([x])
    assert got_labels.tolist() == model.predict(x).tolist()
    assert np.allclose(got, model.predict_proba(x), atol=1e-5)


def test_answers_equal_those_of_an_export_without_zipmap(tmp_path: Path) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = x.astype(np.float32)
    model = RandomForestClassifier(10, random_state=0).fit(x, y)
    plain = to_onnx(model, x[:1], options={"zipmap": False}).SerializeToString()
    mapped = to_onnx(model, x[:1]).SerializeToString()
    left, right = loaded(tmp_path / "a", plain), loaded(tmp_path / "b", mapped)
    for ours, theirs in zip(left.run([x]), right.run([x]), strict=True):
        assert (ours == theirs).all()


def test_a_pipeline_of_text_and_numbers_is_served(tmp_path: Path) -> None:
    colours, sizes = np.array([["red"], ["blue"], ["grün"], ["red"]] * 5, object), np.arange(20.0)[:, None]
    rows = np.hstack([colours, sizes])
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), [0]), (StandardScaler(), [1])),
        LogisticRegression(),
    ).fit(rows, sizes[:, 0] > 9)
    inputs = [("colour", StringTensorType([None, 1])), ("size", FloatTensorType([None, 1]))]
    backend = loaded(tmp_path, to_onnx(model, initial_types=inputs).SerializeToString())
    backend.warm_up()
    assert [spec.datatype for spec in backend.signature.inputs] == ["BYTES", "FP32"]
    assert backend.notes == []
    _, got = backend.run([colours, sizes.astype(np.float32)])
    assert np.allclose(got, model.predict_proba(rows), atol=1e-5)


def test_columns_are_left_as_they_are(tmp_path: Path) -> None:
    model, x = classifier(["a", "b", "c"])
    backend = loaded(tmp_path, to_onnx(model, x[:1], options={"zipmap": "columns"}).SerializeToString())
    assert [spec.name for spec in backend.signature.outputs] == ["output_label", "sa", "sb", "sc"]
    assert [spec.shape for spec in backend.signature.outputs] == [(-1,)] * 4
    assert np.allclose(np.stack(backend.run([x])[1:], axis=1), model.predict_proba(x), atol=1e-5)


def test_two_maps_are_both_taken_out(tmp_path: Path) -> None:
    model, x = classifier([0, 1, 2])
    exported = to_onnx(model, x[:1])
    zipmap = next(node for node in exported.graph.node if node.op_type == "ZipMap")
    twin = exported.graph.node.add()
    twin.CopyFrom(zipmap)
    twin.name, twin.output[0] = "twin", "again"
    output = exported.graph.output.add()
    output.CopyFrom(exported.graph.output[1])
    output.name = "again"
    _, first, second = loaded(tmp_path, exported.SerializeToString()).run([x])
    assert (first == second).all()


def test_weights_in_another_file_are_found(tmp_path: Path) -> None:
    model, x = classifier([0, 1, 2])
    exported = to_onnx(model, x[:1])
    offset = numpy_helper.from_array(np.array([[0.0, 0.0, 0.0, 0.0]], np.float32), "zeros")  # any tensor worth a file
    exported.graph.initializer.append(offset)
    first = exported.graph.node[0]
    exported.graph.node.insert(0, onnxmodels.node("Add", [first.input[0], "zeros"], ["shifted"]))
    exported.graph.node[1].input[0] = "shifted"
    folder = onnxmodels.store_external(tmp_path, "fraud", 3, exported.SerializeToString())
    assert onnx.load(folder / "model.onnx", load_external_data=False).graph.initializer[-1].external_data
    _, got = load(folder, ModelConfig()).run([x])
    assert np.allclose(got, model.predict_proba(x), atol=1e-5)


def test_without_the_onnx_package_the_map_is_refused_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = classifier([0, 1, 2])
    content = to_onnx(model, x[:1]).SerializeToString()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(LoadError) as caught:
        loaded(tmp_path, content)
    text = str(caught.value)
    assert 'output "output_probability" is seq(map(int64,tensor(float)))' in text
    assert "export with options={'zipmap': False}" in text
    assert "pip install onnx" in text


def test_a_model_that_only_mentions_zipmap_is_left_alone(tmp_path: Path) -> None:
    content = onnxmodels.build(
        [onnxmodels.node("Identity", ["ZipMap"], ["y"])], [onnxmodels.tensor("ZipMap")], [onnxmodels.tensor("y")]
    )
    file = onnxmodels.store(tmp_path, "fraud", 3, content) / "model.onnx"
    assert mentions_zipmap(file)
    assert without_zipmap(file) is None
    assert loaded(tmp_path, content).signature.inputs[0].name == "ZipMap"
