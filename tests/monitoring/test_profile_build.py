"""A profile from a data set and a real model: what is watched by default and by model.yaml, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.errors import ConfigError
from gateway.monitoring import answers as answers_module
from gateway.monitoring import reader
from gateway.monitoring.csvreader import CsvReader
from gateway.monitoring.profile import Calibration, Categorical, Numeric, Profile, Summary, now_utc
from gateway.monitoring.profilebuild import Built, build
from gateway.monitoring.reader import Frame
from gateway.monitoring.readers import open_reader
from gateway.monitoring.subject import opened
from gateway.monitoring.summaries import summarise
from gateway.registry.digest import digest_folder
from tests.support import onnxmodels

RNG = np.random.default_rng(0)


def built(root: Path, content: bytes, data: Path, settings: str = "", ignored: tuple[str, ...] = ()) -> Built:
    onnxmodels.store(root, "m", 3, content, settings or "backend: onnx")
    with opened(root, "m", None) as it:
        result = build(open_reader(data), it.subject, it.monitoring, it.run, now_utc(), ignored=ignored)
        result.profile.check(it.subject.signature, "m", "3", digest_folder(it.folder))
    return result


def npz(path: Path, **arrays: Any) -> Path:
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def named(profile: Profile) -> dict[str, Any]:
    return {column.name: column for column in profile.watched}


def test_inputs_from_the_data_and_outputs_from_the_model(tmp_path: Path) -> None:
    x = RNG.normal(size=(5000, 4)).astype(np.float32)
    profile = built(tmp_path, onnxmodels.linear(), npz(tmp_path / "d.npz", x=x)).profile
    assert (profile.model, profile.version, profile.rows, profile.source) == ("m", "3", 5000, "data")
    assert [column.name for column in profile.columns] == ["x[0]", "x[1]", "x[2]", "x[3]"]
    assert [column.name for column in profile.outputs] == ["y[0]", "y[1]", "y[2]"]
    y = x @ onnxmodels.weights(4, 3) + 1
    for column, values in zip(profile.watched, (*x.T, *y.T), strict=True):
        assert isinstance(column, Numeric)
        assert len(column.counts) == 32
        assert column.mean == pytest.approx(values.mean(), abs=1e-5)
        if column.tensor == "x":
            assert column.counts == tuple(np.histogram(values.astype(float), column.edges)[0].tolist())


def test_answers_in_the_data_are_taken_and_the_model_is_not_asked(tmp_path: Path) -> None:
    x, y = RNG.normal(size=(600, 4)).astype(np.float32), np.full((600, 3), 7.5, np.float32)
    profile = built(tmp_path, onnxmodels.linear(), npz(tmp_path / "d.npz", x=x, y=y)).profile
    assert [column.mean for column in profile.outputs if isinstance(column, Numeric)] == [7.5] * 3


def test_the_size_of_the_pieces_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = npz(tmp_path / "d.npz", x=RNG.normal(size=(3000, 4)).astype(np.float32))
    whole = built(tmp_path, onnxmodels.linear(), data).profile
    monkeypatch.setattr(reader, "FRAME_BYTES", 1 << 12)
    monkeypatch.setattr(answers_module, "MAX_RUN_ROWS", 7)
    parts = built(tmp_path, onnxmodels.linear(), data).profile
    assert parts.fingerprint == whole.fingerprint
    for part, all_ in zip(parts.watched, whole.watched, strict=True):
        assert isinstance(part, Numeric)
        assert isinstance(all_, Numeric)
        assert part.counts == all_.counts
        assert (part.mean, part.std) == pytest.approx((all_.mean, all_.std), rel=1e-12)


@pytest.mark.parametrize(("distinct", "kind"), [(64, "categorical"), (65, "numeric")])
def test_whole_numbers_are_categories_while_they_are_few(tmp_path: Path, distinct: int, kind: str) -> None:
    x = np.arange(2600, dtype=np.int64) % distinct
    profile = built(tmp_path, onnxmodels.identity("INT64", ("N", 1)), npz(tmp_path / "d.npz", x=x)).profile
    assert {column.kind for column in profile.watched} == {kind}


def test_truth_values_are_the_categories_0_and_1_also_when_one_is_unseen(tmp_path: Path) -> None:
    data = npz(tmp_path / "d.npz", x=np.ones((600, 1), bool))
    column = built(tmp_path, onnxmodels.identity("BOOL", ("N", 1)), data).profile.columns[0]
    assert isinstance(column, Categorical)
    assert (column.vocabulary, column.counts) == ((0, 1), (0, 600))


def text_column(root: Path, values: list[str], settings: str = "") -> Any:
    path = root / "d.parquet"
    pq.write_table(pa.table({"x": values}), path)
    return built(root, onnxmodels.identity("BYTES", ("N", 1)), path, settings).profile.columns[0]


def test_text_is_a_vocabulary_and_prose_its_length_in_bytes(tmp_path: Path) -> None:
    words = text_column(tmp_path, ["Zürich", "Bern", "Bern"] * 200)
    assert (words.vocabulary, words.counts) == (("Bern", "Zürich"), (400, 200))
    prose = text_column(tmp_path, [f"ü{'x' * (at % 40)}{at:05}" for at in range(1000)])
    assert isinstance(prose, Summary)
    assert (prose.statistic, prose.min, prose.max) == ("length", 7, 46)


def test_columns_of_text_reach_the_model_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("city,country\n" + "Bern,CH\nGraz,AT\nWien,AT\n" * 200)
    columns = named(built(tmp_path, onnxmodels.identity("BYTES", ("N", 2)), path).profile)
    assert columns["city"].vocabulary == columns["y[0]"].vocabulary == ("Bern", "Graz", "Wien")
    assert columns["country"].counts == columns["y[1]"].counts == (400, 200)


def test_model_yaml_may_call_prose_categories(tmp_path: Path) -> None:
    settings = "monitoring: {vocabulary: 5, tensors: {x: {categorical: [0]}}}"
    column = text_column(tmp_path, [f"id {at}" for at in range(1000)], settings)
    assert isinstance(column, Categorical)
    assert (len(column.vocabulary), column.other, column.distinct) == (5, 995, 1000)


def test_a_large_tensor_is_watched_by_its_statistics(tmp_path: Path) -> None:
    x = RNG.normal(2, 1, (700, 20, 20)).astype(np.float32)
    x[3, 5, 5] = np.nan
    data = npz(tmp_path / "d.npz", x=x)
    columns = named(built(tmp_path, onnxmodels.identity(shape=("N", 20, 20)), data).profile)
    sides = [[*(f"{name}.{s}" for s in ("mean", "std", "min", "max", "norm"))] for name in ("x", "y")]
    projections = [[f"{name}.projection{seed}" for seed in (1, 2, 3, 4)] for name in ("x", "y")]
    assert list(columns) == [*sides[0], *projections[0], *sides[1], *projections[1]]
    for column in columns.values():
        values = summarise(x.reshape(700, 400), column.statistic, column.projection_seed or 0)
        assert column.nan == 1
        assert column.counts == tuple(np.histogram(np.delete(values, 3), column.edges)[0].tolist())


def test_rows_of_different_length_have_a_length_too_and_each_its_answer(tmp_path: Path) -> None:
    lists = [RNG.integers(0, 99, at % 5).tolist() for at in range(1000)]
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"x": lists}), path)
    columns = named(built(tmp_path, onnxmodels.identity("INT64", ("N", "T")), path).profile)
    assert columns["x.length"].counts == (200,) * 5
    assert columns["x.mean"].nan == 200
    maxima = np.array([max(each) for each in lists if each], float)
    assert columns["x.max"].counts == tuple(np.histogram(maxima, columns["x.max"].edges)[0].tolist())
    for name in ("length", "mean", "max", "projection2"):
        assert columns[f"y.{name}"].counts == columns[f"x.{name}"].counts


def scores(root: Path, y: Any, settings: str = "") -> dict[str, Any]:
    data = npz(root / "d.npz", x=np.zeros((len(y), 2), np.float32), y=y.astype(np.float32))
    return named(built(root, onnxmodels.linear(2, 2), data, settings).profile)


def test_two_outputs_between_0_and_1_are_also_binned_as_a_probability(tmp_path: Path) -> None:
    p = RNG.uniform(size=1000)
    p[:10] = 1.0
    columns = scores(tmp_path, np.stack((1 - p, p), axis=1))
    assert [name for name in columns if name.startswith("y")] == ["y[0]", "y[1]", "y[1].calibration"]
    calibration = columns["y[1].calibration"]
    assert isinstance(calibration, Calibration)
    assert calibration.counts == tuple(np.histogram(np.float32(p).astype(float), Calibration.EDGES)[0].tolist())
    assert calibration.outside == 0


def test_other_outputs_are_not_unless_model_yaml_says_so(tmp_path: Path) -> None:
    y = RNG.uniform(size=(1000, 2)) * 1.01
    assert "y[1].calibration" not in scores(tmp_path, y)
    asked = scores(tmp_path, y, "monitoring: {tensors: {y: {calibration: [1]}}}")["y[1].calibration"]
    assert asked.outside == (y[:, 1].astype(np.float32) > 1).sum()
    assert "y[1].calibration" not in scores(tmp_path, y.clip(0, 1), "monitoring: {tensors: {y: {calibration: []}}}")


def test_model_yaml_names_and_picks_columns(tmp_path: Path) -> None:
    settings = """
monitoring:
  bins: 8
  tensors:
    x: {names: [age, income, debt, kind], only: [debt, 0, kind], categorical: [kind]}
    y: {watch: none}
"""
    path = tmp_path / "d.csv"
    lines = [f"{at % 3},{at},{at * 2},{at * 3}" for at in range(1000)]
    path.write_text("\n".join(["kind,debt,age,income", *lines]) + "\n")  # in another order: the names tell
    profile = built(tmp_path, onnxmodels.linear(), path, settings).profile
    columns = named(profile)
    assert list(columns) == ["debt", "age", "kind"]
    assert [columns[name].index for name in columns] == [2, 0, 3]
    assert (columns["debt"].max, columns["age"].max) == (999, 1998)
    assert len(columns["age"].counts) == 8
    assert columns["kind"].vocabulary == (0, 1, 2)
    assert profile.outputs == ()


def test_a_misspelt_name_among_right_ones_is_no_file_without_names(tmp_path: Path) -> None:
    """In order, `income` would be taken for `age`."""
    settings = "monitoring: {tensors: {x: {names: [age, income, debt, kind]}}}"
    path = tmp_path / "d.csv"
    path.write_text("income,agee,debt,kind\n" + "1,2,3,4\n" * 9)
    with pytest.raises(ConfigError, match=r"d\.csv: has no column 'age', and names others .*; left are income, agee"):
        built(tmp_path, onnxmodels.linear(), path, settings)
    path.write_text("a,b,c,d\n" + "1,2,3,4\n" * 9)
    assert list(named(built(tmp_path, onnxmodels.linear(), path, settings).profile))[:4] == [
        "age",
        "income",
        "debt",
        "kind",
    ]


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        ("z: {}", "monitoring.tensors.z: no such tensor, expected x, y"),
        ("x: {names: [a]}", "monitoring.tensors.x.names: got 1 names, and a row has 4 values"),
        ("x: {only: [4]}", "monitoring.tensors.x.only[0]: got index 4, and a row has 4 values"),
        ("x: {only: [age]}", "monitoring.tensors.x.only[0]: got 'age', expected an index or one of x[0], x[1]"),
        ("x: {only: [1, 1]}", "monitoring.tensors.x.only[1]: 'x[1]' is there twice"),
        ("{x: {watch: none}, y: {watch: none}}", "monitoring.tensors: watches nothing"),
    ],
)
def test_a_fault_of_model_yaml_is_named_with_its_field(tmp_path: Path, tensors: str, fault: str) -> None:
    data = npz(tmp_path / "d.npz", x=np.zeros((9, 4), np.float32))
    settings = f"monitoring: {{tensors: {tensors if tensors.startswith('{') else '{' + tensors + '}'}}}"
    with pytest.raises(ConfigError) as refusal:
        built(tmp_path, onnxmodels.linear(), data, settings)
    assert f"model.yaml: {fault}" in str(refusal.value)


def test_columns_open_in_shape_cannot_be_watched_one_by_one(tmp_path: Path) -> None:
    data = npz(tmp_path / "d.npz", x=np.zeros((9, 4), np.float32))
    with pytest.raises(ConfigError, match=r"monitoring\.tensors\.x\.watch: got columns, and its shape \[-1, -1\] is"):
        built(tmp_path, onnxmodels.identity(shape=("N", "T")), data, "monitoring: {tensors: {x: {watch: columns}}}")


def test_the_row_that_the_model_refuses_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("x\n" + "3\n" * 700 + "9\n" + "2\n" * 30 + "11\n")
    with pytest.raises(ConfigError, match=r"d\.csv: line 702: .*refused the input"):
        built(tmp_path, onnxmodels.lookup(8), path)


def test_a_model_without_rows_is_asked_one_by_one(tmp_path: Path) -> None:
    x = RNG.normal(size=(50, 6, 4)).astype(np.float32)
    columns = named(built(tmp_path, onnxmodels.total(), npz(tmp_path / "d.npz", x=x)).profile)
    assert columns["y"].mean == pytest.approx(x.sum(axis=(1, 2)).mean(), rel=1e-5)
    assert columns["x.norm"].n_finite == 50


def test_bf16_goes_in_and_comes_out_as_numbers(tmp_path: Path) -> None:
    x = np.float32([[1.0, -2.5], [0.5, 100.0]] * 300)
    columns = named(built(tmp_path, onnxmodels.bf16_double(), npz(tmp_path / "d.npz", x=x)).profile)
    assert [columns[f"y[{at}]"].mean for at in (0, 1)] == [1.5, 97.5]


def test_few_rows_and_unused_columns_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("x,id\n1,a\n2,b\n")
    notes = built(tmp_path, onnxmodels.lookup(8), path).notes
    assert any(note == "not used: id" for note in notes)
    assert any(note.startswith("only 2 rows: too few") for note in notes)


def test_no_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("x\n")
    with pytest.raises(ConfigError, match=r"d\.csv: holds no rows"):
        built(tmp_path, onnxmodels.lookup(8), path)


class Growing(CsvReader):
    """Has a row more after each time it was read."""

    def frames(self, *arguments: Any) -> Iterator[Frame]:
        yield from super().frames(*arguments)
        self.path.write_text(self.path.read_text() + "1\n")


@pytest.mark.parametrize("with_model", [False, True])
def test_a_file_that_grows_meanwhile_is_refused(tmp_path: Path, with_model: bool) -> None:
    (tmp_path / "d.csv").write_text("x\n" + "1\n" * 100)
    onnxmodels.store(tmp_path, "m", 1, onnxmodels.lookup(8))
    with opened(tmp_path, "m", 1) as it:
        run = it.run if with_model else None
        with pytest.raises(ConfigError, match="build from a file at rest"):
            build(Growing(tmp_path / "d.csv"), it.subject, it.monitoring, run, now_utc())


def peak_bytes(root: Path, data: Path) -> int:
    """Of a process of its own that builds the profile."""
    command = [sys.executable, "-m", "gateway", "profile", "build", data, "--model", "m", "--models", root]
    child = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_maxrss * 1024


@pytest.mark.slow
@pytest.mark.leak
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    root = tmp_path / "models"
    onnxmodels.store(root, "m", 1, onnxmodels.linear())
    peaks = []
    for n_groups in (2, 10):
        path = tmp_path / f"{n_groups}.parquet"
        with pq.ParquetWriter(path, pa.schema([(f"x[{at}]", pa.float32()) for at in range(4)])) as writer:
            for _ in range(n_groups):
                part = RNG.normal(size=(200_000, 4)).astype(np.float32)
                writer.write_table(pa.table({f"x[{at}]": part[:, at] for at in range(4)}))
        peaks.append(peak_bytes(root, path))
    assert peaks[1] - peaks[0] < 15e6  # the rows that it has more are 26 MB, as doubles 51
