"""What a scan finds in a model repository, and what it says of the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config.model import ModelConfig
from gateway.errors import ConfigError
from gateway.registry.repository import ModelFolder, scan
from tests.support import onnxmodels

CONTENT = onnxmodels.identity()


def only(root: Path) -> ModelFolder:
    (folder,) = scan(root)
    return folder


def test_models_are_sorted_by_name_and_versions_by_number(tmp_path: Path) -> None:
    for model, version in [("iris", 2), ("fraud", 10), ("fraud", 9), ("iris", 1), ("fraud", 1)]:
        onnxmodels.store(tmp_path, model, version, CONTENT)
    found = scan(tmp_path)
    assert [(folder.name, [version.number for version in folder.versions]) for folder in found] == [
        ("fraud", [1, 9, 10]),
        ("iris", [1, 2]),
    ]
    assert found[0].versions[0].path == tmp_path / "fraud" / "1"
    assert all(folder.config == ModelConfig() and folder.error is None and folder.notes == () for folder in found)


def test_model_yaml_is_read(tmp_path: Path) -> None:
    onnxmodels.store(tmp_path, "fraud", 1, CONTENT, "batching: {max_batch_size: 8}")
    folder = only(tmp_path)
    assert folder.config is not None
    assert folder.config.batching.max_batch_size == 8


def test_a_bad_model_yaml_is_the_reason_of_all_its_versions_and_no_other_models(tmp_path: Path) -> None:
    for version in (1, 2):
        onnxmodels.store(tmp_path, "fraud", version, CONTENT, "batching: {max_delay: 5 parsecs, instances: 0}")
    onnxmodels.store(tmp_path, "iris", 1, CONTENT)
    fraud, iris = scan(tmp_path)
    assert fraud.config is None
    assert [version.number for version in fraud.versions] == [1, 2]
    assert fraud.error is not None
    assert f'{tmp_path}/fraud/model.yaml: batching.max_delay: got "5 parsecs", expected a duration' in fraud.error
    assert "; " in fraud.error
    assert "\n" not in fraud.error
    assert iris.error is None


def test_folders_that_are_no_versions_are_noted(tmp_path: Path) -> None:
    onnxmodels.store(tmp_path, "fraud", 1, CONTENT)
    for name in ("0", "-1", "01", "1.5", "v2", "latest", "\uff11", "1" * 30):
        (tmp_path / "fraud" / name).mkdir()
    (tmp_path / "fraud" / "3").write_text("a file")
    (tmp_path / "fraud" / "README.md").write_text("fine")
    (tmp_path / "fraud" / ".ipynb_checkpoints").mkdir()
    folder = only(tmp_path)
    assert [version.number for version in folder.versions] == [1]
    assert folder.error is None
    assert len(folder.notes) == 8
    assert f"{tmp_path}/fraud/v2 is ignored: a version's folder is a positive whole number such as 1" in folder.notes


def test_a_model_without_versions_has_an_error_with_the_layout(tmp_path: Path) -> None:
    (tmp_path / "fraud").mkdir()
    folder = only(tmp_path)
    assert folder.versions == ()
    assert folder.error == f"{tmp_path}/fraud has no version, expected {tmp_path}/fraud/1/model.onnx"


def test_a_model_file_outside_a_version_is_told_where_to_go(tmp_path: Path) -> None:
    (tmp_path / "fraud").mkdir()
    (tmp_path / "fraud" / "model.onnx").write_bytes(CONTENT)
    folder = only(tmp_path)
    assert folder.error is not None
    assert f"fraud/model.onnx is ignored: move it to {tmp_path}/fraud/1/model.onnx" in folder.error


def test_a_version_without_a_model_file_is_listed(tmp_path: Path) -> None:
    (tmp_path / "fraud" / "1").mkdir(parents=True)
    assert [version.number for version in only(tmp_path).versions] == [1]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    real = onnxmodels.store(tmp_path / "store", "any", 7, CONTENT)
    (tmp_path / "models" / "fraud").mkdir(parents=True)
    (tmp_path / "models" / "fraud" / "1").symlink_to(real)
    (tmp_path / "models" / "fraud" / "2").symlink_to(tmp_path / "gone")
    folder = only(tmp_path / "models")
    assert [version.number for version in folder.versions] == [1]
    assert "fraud/2 is ignored" in folder.notes[0]


def test_files_and_hidden_folders_beside_models_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    onnxmodels.store(tmp_path, "fraud", 1, CONTENT)
    (tmp_path / ".git").mkdir()
    (tmp_path / "stray.onnx").write_bytes(CONTENT)
    os.mkdir(os.fsencode(tmp_path) + b"/bad\xff")
    (tmp_path / "two\nlines").mkdir()
    assert only(tmp_path).name == "fraud"
    assert "stray.onnx is ignored: not a folder; expected" in caplog.text
    assert caplog.text.count("is printable text") == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "does not exist; expected "),
        (lambda root: root.write_text(""), "is a file; expected "),
        (lambda root: root.mkdir(), "has no model in it; expected "),
        (lambda root: (root / ".git").mkdir(parents=True), "has no model in it; expected "),
    ],
)
def test_a_directory_without_models_is_an_error_that_shows_the_layout(tmp_path: Path, make, words: str) -> None:
    root = tmp_path / "models"
    make(root)
    with pytest.raises(ConfigError) as caught:
        scan(root)
    assert str(caught.value) == f"models directory {root} {words}{root}/<model>/<version>/model.onnx"
