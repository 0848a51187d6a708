"""`python -m demo` run again, after a crash, into a folder of somebody's own, and without its packages."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from demo import folder
from demo.__main__ import PACKAGES
from tests.demo.conftest import Demo, run_python


@pytest.fixture
def models(demo_models: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(demo_models, tmp_path / "models"))


def contents(root: Path) -> dict[Path, tuple[int, bytes]]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root): (path.stat().st_mtime_ns, undated(path)) for path in files}


def undated(path: Path) -> bytes:
    """A profile says when it was built."""
    return re.sub(rb'"created":"[^"]*"', b"", path.read_bytes()) if path.name == folder.PROFILE else path.read_bytes()


def test_a_second_run_changes_nothing_and_says_nothing(run_demo: Demo, models: Path) -> None:
    before = contents(models)
    done = run_demo(models)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert contents(models) == before


def test_a_version_torn_by_a_crash_is_made_again_to_the_byte_and_the_others_stay(run_demo: Demo, models: Path) -> None:
    before = contents(models)
    (models / "wine" / "2" / "golden.npz").unlink()
    (models / "wine" / ".2.partial").mkdir()
    (models / "wine" / ".2.partial" / "model.onnx").write_bytes(b"torn")
    done = run_demo(models)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")
    assert done.stdout.startswith("wine/2: ")
    after = contents(models)
    assert {path: data for path, (_, data) in after.items()} == {path: data for path, (_, data) in before.items()}
    remade = {path for path in after if after[path] != before[path]}
    assert remade == {Path("wine", "2", name) for name in (*folder.FILES, folder.PROFILE)}


def test_a_missing_profile_is_made_and_the_model_stays(run_demo: Demo, models: Path) -> None:
    before = contents(models)
    (models / "wine" / "2" / folder.PROFILE).unlink()
    done = run_demo(models)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wine/2: random forest ... profile, ")
    after = contents(models)
    assert {path for path in after if after[path] != before[path]} == {Path("wine", "2", folder.PROFILE)}
    assert after[Path("wine", "2", folder.PROFILE)][1] == before[Path("wine", "2", folder.PROFILE)][1]


def test_a_model_yaml_that_a_person_edited_is_kept(run_demo: Demo, models: Path) -> None:
    (models / "wine" / "model.yaml").write_text("backend: onnx  # mine\n")
    shutil.rmtree(models / "wine" / "1")
    assert run_demo(models).returncode == 0
    assert (models / "wine" / "model.yaml").read_text() == "backend: onnx  # mine\n"


def test_a_version_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail_half_way(partial: Path) -> None:
        (partial / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.write_version(tmp_path / "wine" / "1", fail_half_way)
    assert list((tmp_path / "wine").iterdir()) == []


def test_a_repository_of_somebodys_own_is_left_alone_when_asked(run_demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "fraud" / "1").mkdir(parents=True)
    done = run_demo("--unless-others", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["fraud"]


def test_a_file_in_the_place_of_the_folder_is_refused_by_name(run_demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "models").touch()
    done = run_demo(tmp_path / "models")
    assert done.returncode == 2
    assert f"{tmp_path / 'models'} is a file; DIR must be a directory" in done.stderr


def test_without_the_demo_packages_the_message_names_them_and_the_cure(tmp_path: Path) -> None:
    hide = f"import sys, importlib.util as u; u.find_spec = lambda name: None if name in {set(PACKAGES)} else name"
    code = f"{hide}; sys.argv = ['demo', {str(tmp_path / 'models')!r}]; import demo.__main__ as d; sys.exit(d.main())"
    done = run_python("-c", code)
    assert done.returncode == 1
    expected = "The demo models need scikit-learn, skl2onnx, onnxruntime, pyarrow: pip install 'gateway[demo,cpu]'\n"
    assert done.stderr == expected
    assert not (tmp_path / "models").exists()
