"""`gateway profile`: written beside the model, drawn in the terminal, painted to a file, refused with a line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.monitoring.drawing import bar, number, ruler, sparkline, spread
from gateway.monitoring.profile import load_profile
from tests.support import onnxmodels


@pytest.fixture
def models(tmp_path: Path) -> Path:
    settings = "monitoring: {tensors: {x: {names: [age, income, debt, kind]}}}"
    onnxmodels.store(tmp_path / "models", "loan", 1, onnxmodels.linear(), settings)
    onnxmodels.store(tmp_path / "models", "loan", 2, onnxmodels.linear())
    return tmp_path / "models"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    rows = np.random.default_rng(0).normal(50, 10, (800, 3)).round(3)
    lines = [f"{age},{income},{debt},{at % 3},no" for at, (age, income, debt) in enumerate(rows.tolist())]
    lines[7] = "," + lines[7].split(",", 1)[1]
    path.write_text("\n".join(["age,income,debt,kind,is_bad", *lines]) + "\n")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["profile", *map(str, arguments)])


def test_build_writes_beside_the_highest_version(models: Path, data: Path) -> None:
    done = run("build", data, "--model", "loan", "--models", models, "--ignore", "is_bad")
    path = models / "loan" / "2" / "profile.json"
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: 4 columns and 3 outputs of 800 rows, ")
    profile = load_profile(path)
    assert (profile.version, [column.name for column in profile.columns]) == ("2", ["age", "income", "debt", "kind"])
    assert list(path.parent.glob(".*")) == []


def test_build_writes_where_it_is_told(models: Path, data: Path, tmp_path: Path) -> None:
    at = ("build", data, "--model", "loan", "--version", 1, "--models", models)
    assert run(*at, "--out", tmp_path / "p.json").exit_code == 0
    assert load_profile(tmp_path / "p.json").version == "1"
    printed = run(*at, "--out", "-", "--no-run-model")
    assert json.loads(printed.stdout)["outputs"] == []
    assert printed.stderr.splitlines() == [
        "note: not used: is_bad",
        "note: outputs are not watched: they are not in the data, and the model was not run",
    ]
    assert not (models / "loan" / "1" / "profile.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("--model", "laon"), 1, 'error: model "laon": no such folder in the model repository'),
        (("--model", "loan", "--version", "7"), 2, "error: --version: loan has no version 7; there is 1, 2"),
        (("--model", "loan", "--ignore", "isbad"), 2, "error: --ignore: "),
        (("--model", "loan", "--format", "xls"), 2, "error: --format: got 'xls'"),
        (("--model", "loan", "--out", "/nowhere/p.json"), 2, "error: /nowhere/p.json (--out): cannot be written"),
    ],
)
def test_what_build_refuses(models: Path, data: Path, arguments: tuple[str, ...], code: int, line: str) -> None:
    done = run("build", data, "--models", models, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert line in done.stderr
    assert len([each for each in done.stderr.splitlines() if each.startswith("error: ")]) == 1


def test_a_faulty_line_is_told_and_the_old_profile_stays(models: Path, data: Path) -> None:
    run("build", data, "--model", "loan", "--models", models)
    path = models / "loan" / "2" / "profile.json"
    before = path.read_bytes()
    data.write_text(data.read_text() + "40,forty,1,1,no\n")
    done = run("build", data, "--model", "loan", "--models", models)
    assert done.exit_code == 2
    assert f"error: {data}: line 802, column 'income': got 'forty', expected a number (FP32)" in done.stderr
    assert path.read_bytes() == before


def test_a_fault_in_a_large_file_ends_the_command_in_good_order(models: Path, data: Path) -> None:
    data.write_text(data.read_text() + "1,2,x,4,no\n" + "1,2,3,4,no\n" * 2_000_000)  # more than is read ahead
    command = [sys.executable, "-m", "gateway", "profile", "build", data, "--model", "loan", "--models", models]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {data}: line 802, column 'debt': got 'x', expected a number (FP32)\n"


def test_show_has_a_line_for_each_column_with_its_shape(models: Path, data: Path) -> None:
    run("build", data, "--model", "loan", "--models", models)
    done = run("show", "--model", "loan", "--models", models)
    assert done.exit_code == 0
    assert "loan version 2: 800 rows from data" in done.stdout
    (age,) = [line for line in done.stdout.splitlines() if "age" in line]
    assert "█" in age
    assert "0.12%" in age  # the missing one of 800
    assert sum("█" in line for line in done.stdout.splitlines()) == 7


def test_show_draws_a_column_large(models: Path, data: Path) -> None:
    run("build", data, "--model", "loan", "--models", models)
    done = run("show", models / "loan" / "2", "--column", "kind", "--column", "age")
    assert done.stdout.splitlines()[:4] == [
        "kind  numeric  0.9988 ± 0.8162",
        f"  0 {'█' * 48}  33.38%",
        f"  1 {'█' * 48}  33.38%",
        f"  2 {bar(266 / 267, 48):<48}  33.25%",
    ]
    assert "  (NaN) " in done.stdout


def test_show_prints_json_and_names_an_unknown_column(models: Path, data: Path) -> None:
    run("build", data, "--model", "loan", "--models", models)
    path = models / "loan" / "2" / "profile.json"
    assert run("show", path, "--json").stdout_bytes == path.read_bytes()
    done = run("show", path, "--column", "incom")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--column: got 'incom', expected one of 7 such as income" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [((), "got neither or both of FILE and --model"), (("x.json", "--model", "loan"), "got neither or both")],
)
def test_show_wants_one_profile(arguments: tuple[str, ...], line: str) -> None:
    done = run("show", *arguments)
    assert done.exit_code == 2
    assert line in done.stderr


def test_show_of_a_version_without_a_profile_names_the_cure(models: Path) -> None:
    done = run("show", "--model", "loan", "--models", models)
    assert done.exit_code == 2
    assert "profile.json: no such file; gateway profile build writes it" in done.stderr


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plot_paints_a_file(models: Path, data: Path, tmp_path: Path, suffix: str, magic: bytes) -> None:
    run("build", data, "--model", "loan", "--models", models)
    path = tmp_path / f"p.{suffix}"
    done = run("show", "--model", "loan", "--models", models, "--plot", path)
    assert (done.exit_code, done.stderr, done.stdout) == (0, f"wrote {path}\n", "")
    assert path.read_bytes().startswith(magic)
    if suffix == "svg":
        assert path.read_text().count("<!-- age -->") == 1


def test_plot_refuses_another_suffix(models: Path, data: Path, tmp_path: Path) -> None:
    run("build", data, "--model", "loan", "--models", models)
    done = run("show", "--model", "loan", "--models", models, "--plot", tmp_path / "p.jpg")
    assert done.exit_code == 2
    assert "got .jpg, expected .png or .svg" in done.stderr


def test_a_person_at_a_terminal_sees_a_bar(models: Path, data: Path) -> None:
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "gateway", "profile", "build", data, "--model", "loan", "--models", models]
    done = subprocess.run(
        list(map(str, command)), stderr=child, stdout=subprocess.PIPE, timeout=90, env={**os.environ, "TERM": "xterm"}
    )
    os.close(child)
    seen = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        seen += piece
    os.close(parent)
    assert done.returncode == 0
    assert b"100%" in seen
    assert "━".encode() in seen


def test_a_spread_keeps_all_rows_and_shows_density() -> None:
    edges, counts = (0.0, 1.0, 2.0, 10.0), (100, 100, 100)
    marks = ruler(edges, counts, 10)
    amounts = spread(edges, counts, marks)
    assert (marks[0], marks[-1]) == (0, 10)
    assert amounts.sum() == pytest.approx(300)
    assert amounts[:3].tolist() == pytest.approx([100, 100, 12.5])


def test_a_far_outlier_does_not_flatten_the_drawing() -> None:
    values = np.append(np.random.default_rng(0).normal(size=10_000), 1e6)
    edges = (*np.quantile(values, np.arange(32) / 32), 1e6 + 1)
    counts = np.histogram(values, edges)[0].tolist()
    amounts = spread(edges, counts, ruler(edges, counts, 20))
    assert amounts.sum() == pytest.approx(10_001)
    assert (amounts > 0).sum() >= 2


def test_a_constant_is_drawn_in_the_middle() -> None:
    edges = (3.0, float(np.nextafter(np.float32(3), np.float32(4))))
    amounts = spread(edges, (50,), ruler(edges, (50,), 9))
    assert amounts.sum() == 50


def test_characters() -> None:
    assert sparkline([0, 0.01, 4, 8]) == " ▁▄█"
    assert sparkline([0, 0]) == "  "
    assert (bar(0.5, 4), bar(1.0, 4), bar(0.53, 4)) == ("██", "████", "██▏")
    assert (number(3.0), number(0.123456), number(1e9)) == ("3", "0.1235", "1e+09")
