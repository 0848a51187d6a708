"""The digest of a version: what changes it, what does not, and that anybody can check it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import LoadError
from gateway.registry.digest import digest_folder

MODEL = b"\x08\x07 a model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "fraud" / "1"
    path.mkdir(parents=True)
    (path / "model.onnx").write_bytes(MODEL)
    (path / "weights").mkdir()
    (path / "weights" / "layer 0.bin").write_bytes(bytes(3_000_000))
    return path


def test_sha256sum_finds_the_same(folder: Path) -> None:
    script = "find . -type f | sed 's|^./||' | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 sha256sum | sha256sum"
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert digest_folder(folder) == f"sha256:{done.stdout.split()[0]}"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "model.onnx").write_bytes(MODEL + b"."),
        lambda folder: (folder / "model.onnx").rename(folder / "model2.onnx"),
        lambda folder: (folder / "weights" / "layer 0.bin").unlink(),
        lambda folder: (folder / "more.bin").write_bytes(b""),
        lambda folder: (folder / "weights" / "version.yaml").write_text("no version.yaml of ours"),
        lambda folder: (folder / "weights" / "layer 0.bin").rename(folder / "layer 0.bin"),
    ],
    ids=["content", "name", "removed", "added", "added below", "moved"],
)
def test_any_change_of_a_file_of_the_model_is_another_digest(folder: Path, change: Callable[[Path], object]) -> None:
    before = digest_folder(folder)
    change(folder)
    assert digest_folder(folder) != before


def test_what_is_said_about_the_model_is_no_part_of_it(folder: Path) -> None:
    before = digest_folder(folder)
    for name in ("version.yaml", "golden.npz", "profile.json", ".nfs0001", ".DS_Store"):
        (folder / name).write_bytes(b"anything")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("")
    os.utime(folder / "model.onnx", (1, 1))
    assert digest_folder(folder) == before


def test_the_same_files_elsewhere_or_behind_links_are_the_same_version(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.onnx").symlink_to(folder / "model.onnx")
    (other / "weights").symlink_to(folder / "weights")
    assert digest_folder(other) == digest_folder(folder)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(files=st.dictionaries(st.sampled_from(["a", "ab", "b", "a  b", "ä", "z"]), st.binary(max_size=4), min_size=1))
def test_different_files_are_different_digests(tmp_path_factory, files: dict[str, bytes]) -> None:
    def digest(content: dict[str, bytes]) -> str:
        folder = tmp_path_factory.mktemp("version")
        for name, data in content.items():
            (folder / name).write_bytes(data)
        return digest_folder(folder)

    first = digest(files)
    assert digest(dict(reversed(files.items()))) == first
    name = next(iter(files))
    assert digest(files | {name: files[name] + b"\0"}) != first


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: (folder / "pipe").unlink(missing_ok=True) or os.mkfifo(folder / "pipe"), "pipe: is no file"),
        (lambda folder: (folder / "gone").symlink_to("/nowhere"), "gone: is no file, or a link to nowhere"),
        (lambda folder: (folder / "round").symlink_to(folder), "round: is a link to a folder that contains it"),
        (lambda folder: (folder / "two\nlines").write_text(""), "must be printable text"),
    ],
)
def test_what_is_no_plain_file_is_refused_by_name(folder: Path, make: Callable[[Path], object], words: str) -> None:
    make(folder)
    with pytest.raises(LoadError, match=words):
        digest_folder(folder)


def test_a_folder_without_a_model_or_none_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "version.yaml").write_text("")
    with pytest.raises(LoadError, match="has no file of a model in it"):
        digest_folder(tmp_path)
    with pytest.raises(LoadError, match="gone: cannot be read: No such file or directory"):
        digest_folder(tmp_path / "gone")


def test_a_version_without_a_file_is_what_other_servers_call_it(tmp_path: Path) -> None:
    folder = tmp_path / "fraud" / "1"
    folder.mkdir(parents=True)
    with pytest.raises(LoadError, match="has no file"):
        digest_folder(folder)
    settings = folder.parent / "model.yaml"
    settings.write_text("backend: triton\ntriton: {endpoints: [a]}")
    first = digest_folder(folder)
    settings.write_text("backend: triton\ntriton: {endpoints: [b, c]}")
    assert digest_folder(folder) == first
    settings.write_text("backend: triton\ntriton: {endpoints: [b, c], model: fraud_big}")
    assert digest_folder(folder) != first
