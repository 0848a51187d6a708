"""Data files in pieces: the same rows whatever the format, and each fault by its line and column."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.backends.base import Signature, TensorSpec
from gateway.config.monitoring import Monitoring
from gateway.errors import ConfigError
from gateway.monitoring import reader as reader_module
from gateway.monitoring.layout import check_rows, lay_out
from gateway.monitoring.readers import open_reader
from gateway.monitoring.values import Values, bf16_bits, from_numpy

MIXED = Signature(
    (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("age", "INT64", (-1, 1)), TensorSpec("city", "BYTES", (-1, 1))),
    (TensorSpec("score", "FP32", (-1,)),),
    True,
)
N_ROWS = 300
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N_ROWS, 2)).astype(np.float32)
AGE = RNG.integers(-5, 90, N_ROWS)
CITY = RNG.choice(["Bern", "Zürich", "", 'a "b",\n c'], N_ROWS)
SCORE = RNG.uniform(size=N_ROWS).astype(np.float32)


def read(path: Path, signature: Signature = MIXED, ignored: tuple[str, ...] = ()) -> dict[str, Values]:
    """Everything at once, checked as a build checks it."""
    reader = open_reader(path)
    layout = lay_out(reader, signature, Monitoring(), ignored)
    found: dict[str, list[Values]] = {}
    shares: list[float] = []
    n_rows = 0
    for frame in reader.frames(layout.datatypes, shares.append):
        assert frame.first_row == n_rows
        n_rows += frame.n_rows
        tensors = layout.tensors(frame)
        check_rows(tensors, signature, frame, reader, layout)
        for name, values in tensors.items():
            found.setdefault(name, []).append(values)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    return {name: joined(parts) for name, parts in found.items()}


def joined(parts: list[Values]) -> Values:
    n_rows = sum(part.n_rows for part in parts)
    if parts[0].text is not None:
        return Values(n_rows, text=pa.concat_arrays([part.text for part in parts]), width=parts[0].width)
    return Values(n_rows, np.concatenate([part.matrix() for part in parts]), width=parts[0].width)


def as_csv(path: Path, delimiter: str = ",", head: str = "") -> Path:
    lines = [delimiter.join(["x[0]", "x[1]", "age", "city", "score"])]
    for row in range(N_ROWS):
        city = '"' + CITY[row].replace('"', '""') + '"' if CITY[row] else ""
        lines.append(
            delimiter.join([repr(float(X[row, 0])), repr(float(X[row, 1])), str(AGE[row]), city, str(SCORE[row])])
        )
    path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def as_gzip(path: Path) -> Path:
    plain = as_csv(path.with_suffix(".plain"))
    path = path.with_suffix(".csv.gz")
    path.write_bytes(gzip.compress(plain.read_bytes()))
    return path


def as_parquet(path: Path) -> Path:
    table = pa.table({"city": CITY.tolist(), "score": SCORE, "x": X.tolist(), "age": AGE.astype(np.int16)})
    pq.write_table(table, path, row_group_size=70)
    return path


def as_json_lines(path: Path) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for row in range(N_ROWS):
            record = {"x": X[row].tolist(), "age": int(AGE[row]), "city": CITY[row] or None, "score": float(SCORE[row])}
            file.write(json.dumps(record) + "\n" * (1 + row % 2))
    return path


def as_npz(path: Path) -> Path:
    arrays = {"input:x": X, "input:age": AGE[:, None], "input:city": CITY[:, None], "output:score": SCORE}
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return path


def as_compressed_npz(path: Path) -> Path:
    with path.open("wb") as file:
        np.savez_compressed(file, x=X, age=AGE, city=CITY, score=SCORE)
    return path


FORMATS: dict[str, Callable[[Path], Path]] = {
    "rows.csv": as_csv,
    "semicolons.csv": lambda path: as_csv(path, ";"),
    "mark.csv": lambda path: as_csv(path, head="\ufeff"),
    "rows.gz": as_gzip,
    "rows.parquet": as_parquet,
    "rows.jsonl": as_json_lines,
    "rows.npz": as_npz,
    "small.npz": as_compressed_npz,
    "no-suffix-csv": as_csv,
    "no-suffix-parquet": as_parquet,
    "no-suffix-jsonl": as_json_lines,
    "no-suffix-npz": as_npz,
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("frame_bytes", [1 << 12, 8 << 20])
def test_every_format_gives_the_same_rows(
    tmp_path: Path, name: str, frame_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "FRAME_BYTES", frame_bytes)
    found = read(FORMATS[name](tmp_path / name))
    assert found.keys() == {"x", "age", "city", "score"}
    assert np.array_equal(found["x"].matrix(), X)
    assert np.array_equal(found["age"].column(0), AGE)
    assert found["city"].text.to_pylist() == CITY.tolist()
    assert np.array_equal(found["score"].column(0), SCORE)


ONE = Signature((TensorSpec("input", "FP32", (-1, 3)),), (TensorSpec("label", "INT64", (-1,)),), True)


def csv(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_of_their_own_names_are_the_row_in_order(tmp_path: Path) -> None:
    found = read(csv(tmp_path, "age,income,debt", "1,2,3", "4,,6"), ONE)["input"].matrix()
    assert np.array_equal(found, [[1, 2, 3], [4, np.nan, 6]], equal_nan=True)


def test_an_output_by_its_name_and_an_ignored_column_are_no_part_of_the_row(tmp_path: Path) -> None:
    path = csv(tmp_path, "id,age,label,income,debt", "x,1,7,2,3")
    found = read(path, ONE, ("id",))
    assert found["input"].matrix().tolist() == [[1, 2, 3]]
    assert found["label"].column(0).tolist() == [7]


def test_infinity_and_nan_are_numbers(tmp_path: Path) -> None:
    found = read(csv(tmp_path, "a,b,c", "inf,-inf,NaN", "1e300,NA,-0"), ONE)["input"].matrix()
    assert np.array_equal(found, [[np.inf, -np.inf, np.nan], [np.inf, np.nan, 0]], equal_nan=True)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["a,b,c", "1,2,3", "4,five,6"], "line 3, column 'b': got 'five', expected a number (FP32)"),
        (["a,b,c", "1,2,3", "", "4,5"], "line 4: got 2 cells, expected 3 as in the header"),
        (["a,b,c", '"1","2","3"', '"4\n",5,6,7'], "line 4: got 4 cells, expected 3"),
        (["a,b,c,label", "1,2,3,4", "1,2,3,"], "line 3, column 'label': has no value, expected a whole number (INT64)"),
        (["a,b,c,label", "1,2,3,4.5"], "line 2, column 'label': got '4.5', expected a whole number (INT64)"),
        (["a,b,c,d", "1,2,3,4"], "got 4 columns (a, b, c, d), expected 3 for 'input' FP32 [-1, 3]; leave some out"),
        (["a,b", "1,2"], "got 2 columns (a, b), expected 3 for 'input' FP32 [-1, 3]; name the columns"),
        (["a,b,a", "1,2,3"], "line 1: the header names column 'a' twice"),
        (["1,2,3", "1,2,3"], "line 1: got '1,2,3', expected the names of the columns"),
    ],
)
def test_a_fault_of_a_csv_is_named_by_line_and_column(tmp_path: Path, lines: list[str], fault: str) -> None:
    path = csv(tmp_path, *lines)
    with pytest.raises(ConfigError) as refusal:
        read(path, ONE)
    assert str(refusal.value).startswith(f"{path}: ")
    assert fault in str(refusal.value)


def test_a_fault_far_down_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "FRAME_BYTES", 1 << 12)
    path = csv(tmp_path, "a,b,c", *["1,2,3"] * 5000, "1,2,x")
    with pytest.raises(ConfigError, match=r"line 5002, column 'c': got 'x'"):
        read(path, ONE)


SMALL = Signature((TensorSpec("n", "UINT8", (-1, 1)),), (), True)


@pytest.mark.parametrize(
    ("content", "signature", "fault"),
    [
        ("n\n1\n300\n", SMALL, "line 3, column 'n': got 300, expected 0 to 255 (UINT8)"),
        ("n\n1\n-1\n", SMALL, "line 3, column 'n': got -1, expected 0 to 255 (UINT8)"),
        ("input\n1\n", ONE, "column 'input': got 1 values in a row, expected 3 as in 'input' FP32 [-1, 3]"),
    ],
)
def test_a_value_that_the_datatype_cannot_hold_is_refused(
    tmp_path: Path, content: str, signature: Signature, fault: str
) -> None:
    path = csv(tmp_path, *content.splitlines())
    with pytest.raises(ConfigError) as refusal:
        read(path, signature)
    assert fault in str(refusal.value)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (['{"input": [1, 2, 3]}', '{"input": [1, "2", 3]}'], "line 2, column 'input': got '2', expected a number"),
        (['{"input": [1, 2, 3]}', "", '{"input": [1, 2]}'], "line 3, column 'input': got 2 values, expected 3"),
        (['{"input": [1, 2, 3]}', '{"inptu": [1, 2, 3]}'], "line 2: has no field 'input', as line 1 has"),
        (['{"input": [1, 2, 3]}', '{"input": [1, 2, 3]'], "line 2, column "),
        (['{"input": [1, 2, 3]}', "7"], "line 2: expected a record"),
        (['{"input": [1, 2, 3], "label": true}'], "line 1, column 'label': got True, expected a whole number"),
        (['{"input": [1, 2, 3], "label": null}'], "line 1, column 'label': has no value, expected a whole number"),
        (['{"input": [1, 2, 3], "label": 99999999999999999999}'], "column 'label'"),
        (["[", " [1, 2, 3]", "]"], "line 1, column 1: not JSON"),
    ],
)
def test_a_fault_of_json_lines_is_named(tmp_path: Path, lines: list[str], fault: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as refusal:
        read(path, ONE)
    assert str(refusal.value).startswith(f"{path}: ")
    assert fault in str(refusal.value)


def test_rows_of_json_may_be_lists_and_have_nan(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("[1, 2, 3]\n[4, NaN, null]\n")
    expected = [[1, 2, 3], [4, np.nan, np.nan]]
    assert np.array_equal(read(path, ONE)["input"].matrix(), expected, equal_nan=True)


def parquet(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"n": [1, None]}, "row 2, column 'n': has no value, expected a whole number (UINT8)"),
        ({"n": [1.0, 2.5]}, "row 2, column 'n': got 2.5, expected a whole number (UINT8)"),
        ({"n": ["1", "x"]}, "row 1, column 'n': got string such as '1', expected numbers (UINT8)"),
        ({"m": [1], "k": [2]}, "got 2 columns (m, k), expected 1 for 'n' UINT8 [-1, 1]"),
        ({"n": [[1], None]}, "row 2, column 'n': got null, expected a list of values"),
        ({"n": [[1], [1, 2]]}, "row 2, column 'n': got 2 values, expected 1"),
    ],
)
def test_a_fault_of_parquet_is_named_by_row_and_column(tmp_path: Path, columns: Any, fault: str) -> None:
    path = parquet(tmp_path, **columns)
    with pytest.raises(ConfigError) as refusal:
        read(path, SMALL)
    assert str(refusal.value).startswith(f"{path}: ")
    assert fault in str(refusal.value)


def test_whole_numbers_kept_as_fractions_are_taken(tmp_path: Path) -> None:
    assert read(parquet(tmp_path, n=[1.0, 2.0]), SMALL)["n"].column(0).tolist() == [1, 2]


TEXT = Signature((TensorSpec("t", "BYTES", (-1, 1)),), (), True)


def test_text_may_be_a_dictionary_or_bytes_but_no_number(tmp_path: Path) -> None:
    words = pa.array(["a", None, "a"]).dictionary_encode()
    assert read(parquet(tmp_path, t=words), TEXT)["t"].text.to_pylist() == ["a", "", "a"]
    assert read(parquet(tmp_path, t=pa.array([b"\xc3\xbc"])), TEXT)["t"].text.to_pylist() == ["ü"]
    with pytest.raises(ConfigError, match="row 2, column 't': got bytes that are no UTF-8"):
        read(parquet(tmp_path, t=pa.array([b"ok", b"\xff"])), TEXT)
    with pytest.raises(ConfigError, match="column 't': got int64, expected text"):
        read(parquet(tmp_path, t=[1, 2]), TEXT)


def test_bytes_that_are_no_utf8_in_a_csv_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"t\nok\n\xff\xfe\n")
    with pytest.raises(ConfigError, match=r"rows\.csv: line 3, column 't': got bytes that are no UTF-8"):
        read(path, TEXT)


def test_a_picture_and_another_model_s_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\x1a\n0000")
    with pytest.raises(ConfigError, match=r"picture: line 1: is no text in UTF-8"):
        open_reader(tmp_path / "picture")
    with pytest.raises(ConfigError, match=r"has no column for 'x' FP32 \[-1, 2\]; it has age, city"):
        read(csv(tmp_path, "age,city", "1,2"))


def test_a_torn_gzip_is_refused(tmp_path: Path) -> None:
    path = as_gzip(tmp_path / "rows.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ConfigError, match="cannot be read to its end"):
        read(path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"PK\x03\x04junk", "no readable npz"),
        (b"PAR1junk", "no readable Pa"),
    ],
)
def test_an_empty_or_torn_file_is_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=fault):
        open_reader(path)


def test_other_refusals_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.csv: no such file"):
        open_reader(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match="is a folder"):
        open_reader(tmp_path)
    with pytest.raises(ConfigError, match="got standard input, expected a file: it is read twice"):
        open_reader(Path("-"))
    with pytest.raises(ConfigError, match="--format: got 'xls', expected csv, parquet, jsonl, npz"):
        open_reader(tmp_path, "xls")
    (tmp_path / "none.jsonl").write_bytes(b"\n\n")
    with pytest.raises(ConfigError, match="is empty"):
        open_reader(tmp_path / "none.jsonl")


def npz(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "rows.npz"
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"n": np.array([object()])}, "holds Python objects; save text as array.astype(str)"),
        ({"n": np.float64(3)}, "has no dimensions"),
        ({"n": np.asfortranarray(np.zeros((3, 2)))}, "lies column by column"),
        ({"n": np.zeros((3, 2))}, "column 'n': got 2 values in a row, expected 1"),
        ({"n": np.array([1, 300])}, "row 2, column 'n': got 300, expected 0 to 255"),
        ({"n": np.array([1, 2], complex)}, "got an array of complex128, expected numbers"),
    ],
)
def test_a_fault_of_an_npz_is_named(tmp_path: Path, arrays: Any, fault: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(npz(tmp_path, **arrays), SMALL)
    assert fault in str(refusal.value)


def test_arrays_of_different_length_are_refused(tmp_path: Path) -> None:
    path = npz(tmp_path, x=X, age=AGE[:5], city=CITY)
    with pytest.raises(ConfigError, match="different numbers of rows: 'x' 300, 'age' 5"):
        read(path)


def test_lists_of_different_length_keep_their_rows(tmp_path: Path) -> None:
    tokens = Signature((TensorSpec("ids", "INT64", (-1, -1)),), (), True)
    reader = open_reader(parquet(tmp_path, ids=[[1, 2, 3], [], [4], [5, 6, 7]]))
    (frame,) = reader.frames({"ids": "INT64"}, lambda _: None)
    values = lay_out(reader, tokens, Monitoring()).tensors(frame)["ids"]
    assert values.lengths().tolist() == [3, 0, 1, 3]
    groups = {tuple(rows.tolist()): numbers.tolist() for rows, numbers in values.by_length()}
    assert groups == {(1,): [[]], (2,): [[4]], (0, 3): [[1, 2, 3], [5, 6, 7]]}


def test_bf16_is_rounded_as_the_wire_would_hold_it() -> None:
    values = from_numpy(np.array([1.0, 1.00390625, 1.01171875, np.inf, np.nan, -3.3]), "BF16").column(0)
    assert np.array_equal(values, np.float32([1, 1, 1.015625, np.inf, np.nan, -3.296875]), equal_nan=True)
    assert bf16_bits(np.float32([1.0, -2.0])).tolist() == [0x3F80, 0xC000]
