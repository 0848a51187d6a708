"""`gateway predict` against a real gRPC server: what is sent for each form of data, printed, and refused."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from tests.support.oip_server import Answers, OipServer, serving


def add_up(request: Any) -> Answers:
    """total = sum of each row, plus the row count seen, as FP32 and INT64."""
    x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
    totals = x.sum(axis=tuple(range(1, x.ndim)), dtype=np.float32)
    n = np.full(len(x), len(x), np.int64)
    return [("total", "FP32", [len(x)], totals.tobytes()), ("n", "INT64", [len(x)], n.tobytes())]


def spell(request: Any) -> Answers:
    """Echo of the inputs `age` INT64 and `city` BYTES: both [-1,1]."""
    shape = list(request.inputs[0].shape)
    age, city = request.raw_input_contents
    return [("age_out", "INT64", shape, age), ("city_out", "BYTES", shape, city)]


@pytest.fixture(scope="module")
def adder() -> Iterator[OipServer]:
    outputs = [("total", "FP32", [-1]), ("n", "INT64", [-1])]
    with serving(OipServer([("x", "FP32", [-1, 3])], outputs, add_up)) as server:
        yield server


@pytest.fixture(scope="module")
def speller() -> Iterator[OipServer]:
    inputs = [("age", "INT64", [-1, 1]), ("city", "BYTES", [-1, 1])]
    outputs = [("age_out", "INT64", [-1, 1]), ("city_out", "BYTES", [-1, 1])]
    with serving(OipServer(inputs, outputs, spell)) as server:
        yield server


@pytest.fixture(autouse=True)
def _forget(adder: OipServer, speller: OipServer) -> None:
    adder.requests.clear()
    speller.requests.clear()


def run(server: OipServer | str, *arguments: str, stdin: str | bytes | None = None) -> Result:
    url = server if isinstance(server, str) else server.url
    return CliRunner().invoke(app, ["predict", "m", "--url", url, *arguments], input=stdin)


def answer(result: Result) -> dict[str, list[Any]]:
    assert result.exit_code == 0, result.stderr
    return {output["name"]: output["data"] for output in json.loads(result.stdout)["outputs"]}


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


OIP = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}], "id": "7"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", "[[1, 2, 3], [4, 5, 6]]"),
        ("records.json", '[{"a": 1, "b": 2, "c": 3}, {"c": 6, "b": 5, "a": 4}]'),
        ("columns.json", '{"x": [[1, 2, 3], [4, 5, 6]]}'),
        ("features.json", '{"a": [1, 4], "b": [2, 5], "c": [3, 6]}'),
        ("record_of_input.json", '[{"x": [1, 2, 3]}, {"x": [4, 5, 6]}]'),
        ("oip.json", json.dumps(OIP)),
        ("nested_oip.json", json.dumps({"inputs": [{**OIP["inputs"][0], "data": [[1, 2, 3], [4, 5, 6]]}]})),  # type: ignore[index, dict-item]
        ("table.csv", "a,b,c\n1,2,3\n4,5,6\n"),
        ("bom.csv", "\ufeffa;b;c\r\n1;2;3\r\n\r\n4; 5 ;6\r\n"),
        ("no_suffix", "a,b,c\n1,2,3\n4,5,6\n"),
        ("json_without_suffix", " [[1, 2, 3], [4, 5, 6]]"),
    ],
)
def test_every_form_of_the_same_data_gives_the_same_answer(
    tmp_path: Path, adder: OipServer, name: str, content: str
) -> None:
    result = run(adder, "--data", write(tmp_path, name, content), "--json")
    assert answer(result) == {"total": [6.0, 15.0], "n": [2, 2]}
    (request,) = adder.requests
    assert (request.model_name, request.model_version) == ("m", "")
    assert (request.inputs[0].name, request.inputs[0].datatype, list(request.inputs[0].shape)) == ("x", "FP32", [2, 3])


@pytest.mark.parametrize("keys", [["x"], ["input:x", "output:total", "x"]])
def test_npz_is_read_by_input_name_or_by_the_golden_keys(tmp_path: Path, adder: OipServer, keys: list[str]) -> None:
    arrays = {key: np.array([[1, 2, 3], [4, 5, 6]], np.float64) for key in keys}
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    assert answer(run(adder, "--data", str(tmp_path / "a.npz"), "--json"))["total"] == [6.0, 15.0]


@pytest.mark.parametrize("content", ["[[1, 2, 3]]", "a,b,c\n1,2,3\n", "[1, 2, 3]"])
def test_standard_input_is_told_by_its_content(adder: OipServer, content: str) -> None:
    assert answer(run(adder, "--data", "-", "--json", stdin=content))["total"] == [6.0]


def test_npz_on_standard_input_is_told_too(tmp_path: Path, adder: OipServer) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((1, 3), np.float32))
    content = (tmp_path / "a.npz").read_bytes()
    assert answer(run(adder, "--data", "-", "--json", stdin=content))["total"] == [3.0]


def test_the_format_can_be_forced(tmp_path: Path, adder: OipServer) -> None:
    path = write(tmp_path, "odd.txt", "a,b,c\n1,2,3\n")
    assert answer(run(adder, "--data", path, "--format", "csv", "--json"))["total"] == [6.0]


def test_csv_columns_are_matched_to_several_inputs_by_name(tmp_path: Path, speller: OipServer) -> None:
    path = write(tmp_path, "people.csv", 'city,id,age\n"Köln, West",7,30\nRome,8,-5\n')
    assert answer(run(speller, "--data", path, "--json")) == {"age_out": [30, -5], "city_out": ["Köln, West", "Rome"]}


def test_records_and_rows_fill_several_inputs(tmp_path: Path, speller: OipServer) -> None:
    expected = {"age_out": [30, 31], "city_out": ["Bonn", ""]}
    records = write(tmp_path, "a.json", '[{"age": 30, "city": "Bonn"}, {"age": 31, "city": ""}]')
    rows = write(tmp_path, "b.json", '[[30, "Bonn"], [31, ""]]')
    assert answer(run(speller, "--data", records, "--json")) == expected
    assert answer(run(speller, "--data", rows, "--json")) == expected


def test_strings_of_an_npz_are_sent_as_bytes(tmp_path: Path, speller: OipServer) -> None:
    np.savez(tmp_path / "a.npz", age=np.array([[1]], np.int32), city=np.array([["Köln"]]))
    assert answer(run(speller, "--data", str(tmp_path / "a.npz"), "--json"))["city_out"] == ["Köln"]


def test_rows_are_sent_in_pieces_of_batch_and_put_together_in_order(tmp_path: Path, adder: OipServer) -> None:
    path = write(tmp_path, "a.json", json.dumps([[i, 0, 0] for i in range(7)]))
    result = answer(run(adder, "--data", path, "--batch", "3", "--json"))
    assert result == {"total": [0, 1, 2, 3, 4, 5, 6], "n": [3, 3, 3, 3, 3, 3, 1]}


def test_large_rows_are_split_without_being_asked(tmp_path: Path) -> None:
    wide = OipServer([("x", "FP32", [-1, -1])], [("total", "FP32", [-1]), ("n", "INT64", [-1])], add_up)
    np.savez(tmp_path / "a.npz", x=np.ones((6, 300_000), np.float32))  # 7.2 MB; grpcio's server takes 4
    with serving(wide):
        assert answer(run(wide, "--data", str(tmp_path / "a.npz"), "--json"))["total"] == [300_000] * 6
    assert len(wide.requests) == 2


def test_the_version_is_passed_on_and_shown(tmp_path: Path, adder: OipServer) -> None:
    path = write(tmp_path, "a.json", "[[1, 2, 3]]")
    assert json.loads(run(adder, "--data", path, "--version", "1", "--json").stdout)["model_version"] == "1"
    assert "m version 3" in run(adder, "--data", path).stdout


def test_the_table_shows_rows_with_their_outputs(tmp_path: Path, adder: OipServer) -> None:
    text = run(adder, "--data", write(tmp_path, "a.json", "[[1, 2, 3], [4, 5, 6.5]]")).stdout
    assert "total" in text
    assert "FP32" in text
    rows = [line.replace("│", " ").split() for line in text.splitlines() if "│" in line]
    assert rows[-2:] == [["1", "6", "2"], ["2", "15.5", "2"]]


def test_a_long_table_is_cut_and_says_so(tmp_path: Path, adder: OipServer) -> None:
    path = write(tmp_path, "a.json", json.dumps([[1, 2, 3]] * 45))
    assert run(adder, "--data", path).stdout.endswith("and 5 more rows; --json prints all\n")


def test_a_model_without_rows_takes_whole_tensors(tmp_path: Path) -> None:
    fixed = OipServer([("x", "FP32", [2, 2])], [("total", "FP32", [2]), ("n", "INT64", [2])], add_up)
    with serving(fixed):
        for content in ('{"x": [[1, 2], [3, 4]]}', "[[1, 2], [3, 4]]"):
            path = write(tmp_path, "a.json", content)
            assert answer(run(fixed, "--data", path, "--json"))["total"] == [3, 7]
        assert "[2]" in run(fixed, "--data", path).stdout
        refused = run(fixed, "--data", path, "--batch", "1")
        assert (refused.exit_code, "no row dimension" in refused.stderr) == (2, True)
        csv = run(fixed, "--data", write(tmp_path, "a.csv", "a,b\n1,2\n3,4\n"))
        assert (csv.exit_code, "give whole tensors by input name" in csv.stderr) == (2, True)


BAD = [
    ("a.csv", "a,b,c\n1,2,3\n4,x,6\n", "line 3, column 'b': got 'x', expected a number (FP32)"),
    ("a.csv", "a,b,c\n1,,3\n", "line 2, column 'b': got '', expected a number (FP32); write nan"),
    ("a.csv", 'a,b,c\n1,"2\n\n",3\nq,5,6\n', "line 5, column 'a': got 'q'"),
    ("a.csv", "a,b,c\n1,2\n", "line 2: got 2 cells, expected 3 as in the header"),
    ("a.csv", "a,b\n1,2\n", "got 2 columns ('a', 'b'), expected the inputs of 'm': 'x' FP32 [-1, 3]; give exactly 3"),
    ("a.csv", "a,b,a\n1,2,3\n", "the header names column 'a' twice"),
    ("a.csv", "a,b,c\n", "holds a header and no rows"),
    ("a.csv", "a,b,c\n1,1e39,3\n", "line 2, column 'b': got 1e39, too large for FP32"),
    ("a.csv", b"a,b,c\n1,\xff,3\n", "byte 8 is no UTF-8"),
    ("a.json", "", "is empty; expected JSON, CSV with a header line, or npz"),
    ("a.json", '[[1, 2, 3],\n [4, "5", 6]]', "row 2, value 2: got '5', expected a number (FP32)"),
    ("a.json", "[[1, 2, 3], [4, 5]]", "row 2, value 1: got 2 values, expected 3 values for input 'x' FP32 [-1, 3]"),
    ("a.json", "[[1, 2, true]]", "row 1, value 3: got true, expected a number"),
    ("a.json", "[[1, 2, null]]", "row 1, value 3: got null, expected a number"),
    ("a.json", "[[1, 2, [3]]]", "row 1, value 1: got lists of different lengths inside one row"),
    ("a.json", '[{"a": 1, "b": 2, "c": 3}, {"a": 1, "b": "two", "c": 3}]', "record 2, field 'b': got 'two', expected"),
    ("a.json", '[{"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2}]', "record 2: field 'c' is not in every record"),
    ("a.json", '{"x": 5}', "field 'x': got 5, expected a list of values"),
    ("a.json", "[[1, 2, 3]", "line 1, column 11: Expecting ',' delimiter"),
    ("a.json", "5", "got 5, expected a list of rows, a list of records"),
    ("a.json", "[" * 100_000, "nested too deeply"),
    (
        "a.json",
        '{"inputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}]}',
        "no tensor for input 'x' FP32 [-1, 3]; the file has 'y'",
    ),
    (
        "a.json",
        '{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 3], "data": [1, 2, 3]}]}',
        "input 'x': datatype: got FP64, expected FP32",
    ),
    (
        "a.json",
        '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2]}]}',
        "input 'x': got 2 values, expected 3 for shape [1, 3]",
    ),
    (
        "a.json",
        '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}',
        "input 'x': got shape [1, 4], expected [-1, 3]",
    ),
    (
        "a.json",
        '{"inputs": [{"name": "x", "datatype": "FP32", "data": []}]}',
        "input 'x': shape: missing or not a list",
    ),
    ("a.npz", b"PK\x03\x04nonsense", "is no readable npz"),
]


@pytest.mark.parametrize(("name", "content", "text"), BAD)
def test_bad_data_is_refused_by_place_before_anything_is_sent(
    tmp_path: Path, adder: OipServer, name: str, content: str | bytes, text: str
) -> None:
    path = write(tmp_path, name, content)
    result = run(adder, "--data", path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: --data {path}: ")
    assert text in result.stderr
    assert adder.requests == []


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("30.5", "line 2, column 'age': got '30.5', expected a whole number from -9223372036854775808 to"),
        ("9223372036854775808", "line 2, column 'age': got '9223372036854775808', expected a whole number"),
    ],
)
def test_whole_numbers_are_whole_and_in_range(tmp_path: Path, speller: OipServer, cell: str, text: str) -> None:
    result = run(speller, "--data", write(tmp_path, "a.csv", f"age,city\n{cell},Rome\n"))
    assert (result.exit_code, text in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.ones((2, 4), np.float32), "input 'x': got shape [2, 4], expected [-1, 3]"),
        (np.full((1, 3), 1e300), "input 'x': holds values too large for FP32"),
        (np.array([["a", "b", "c"]]), "input 'x': got an array of <U1, expected FP32"),
        (np.array([[None, 1, 2]], dtype=object), "array 'x' holds Python objects; save strings as array.astype(str)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, adder: OipServer, array: Any, text: str) -> None:
    np.savez(tmp_path / "a.npz", x=array)
    result = run(adder, "--data", str(tmp_path / "a.npz"))
    assert (result.exit_code, text in result.stderr) == (2, True), result.stderr


def test_nobody_at_the_address_is_said_with_the_cure() -> None:
    with socket.socket() as held:  # bound, not listening: nobody else takes the port meanwhile
        held.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{held.getsockname()[1]}"
        result = run(url, "--data", "-", stdin="[[1]]")
    assert result.exit_code == 1
    assert result.stderr == f"error: nothing answers at {url} (--url): start one with make serve\n"


@pytest.mark.parametrize("url", ["localhost", "http://127.0.0.1:1", "127.0.0.1:x", ":8001", "127.0.0.1:99999"])
def test_an_address_of_another_form_is_a_usage_error(url: str) -> None:
    result = run(url, "--data", "-", stdin="[[1]]")
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: --url: got {url!r}, expected HOST:PORT such as 127.0.0.1:8001\n",
    )


def test_the_servers_refusal_is_shown_with_code_and_text(adder: OipServer) -> None:
    result = CliRunner().invoke(app, ["predict", "nobody", "--data", "-", "--url", adder.url], input="[[1]]")
    assert result.exit_code == 1
    assert "answered ModelMetadata with NOT_FOUND: model 'nobody' not found; models here: 'm'" in result.stderr


def test_a_server_that_does_not_answer_in_time_is_named_with_the_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        result = run(url, "--data", "-", "--timeout", "0.2", stdin="[[1]]")
    assert result.exit_code == 1
    assert "DEADLINE_EXCEEDED" in result.stderr
    assert "(--timeout 0.2)" in result.stderr


def test_an_output_whose_bytes_do_not_fit_is_the_servers_fault(tmp_path: Path) -> None:
    broken = OipServer([("x", "FP32", [-1, 1])], [("y", "FP32", [-1])], lambda _: [("y", "FP32", [2], b"123")])
    with serving(broken):
        result = run(broken, "--data", write(tmp_path, "a.json", "[1, 2]"))
    assert (result.exit_code, "output 'y': 3 bytes are no FP32 [2]" in result.stderr) == (1, True)


def test_a_missing_file_and_an_unknown_format_name_their_flags(adder: OipServer) -> None:
    missing = run(adder, "--data", "nowhere.json")
    assert (missing.exit_code, missing.stderr) == (
        2,
        "error: --data nowhere.json: no such file; '-' reads standard input\n",
    )
    odd = run(adder, "--data", "-", "--format", "xml", stdin="1")
    assert (odd.exit_code, odd.stderr) == (2, "error: --format: got 'xml', expected json, csv, npz\n")


def test_nan_becomes_null_in_json_and_stays_nan_in_the_table(tmp_path: Path, adder: OipServer) -> None:
    path = write(tmp_path, "a.csv", "a,b,c\nnan,2,3\n")
    assert answer(run(adder, "--data", path, "--json"))["total"] == [None]
    assert "nan" in run(adder, "--data", path).stdout


# --- the command as a process


def gateway(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "gateway", *arguments], **options)


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path, adder: OipServer) -> None:
    path = write(tmp_path, "a.json", json.dumps([[1, 2, 3]] * 50_000))
    arguments = ["predict", "m", "--url", adder.url, "--data", path, "--json"]
    with gateway(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 0)


def test_many_requests_show_progress_on_a_terminal_and_only_there(tmp_path: Path, adder: OipServer) -> None:
    path = write(tmp_path, "a.json", json.dumps([[1, 2, 3]] * 8))
    arguments = ["predict", "m", "--url", adder.url, "--data", path, "--json", "--batch", "1"]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    with gateway(*arguments, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        assert process.stdout
        assert json.loads(process.stdout.read())["model_name"] == "m"
        assert process.wait(60) == 0
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert b"Requests" in shown


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:  # Linux says EIO when the other side of a terminal is gone
        return b""


def test_help_and_usage_errors_import_neither_grpc_nor_numpy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from gateway.cli import app\n"
        "CliRunner().invoke(app, ['predict', '--help']); CliRunner().invoke(app, ['serve', '--models', 'none'])\n"
        "print([name for name in ('grpc', 'numpy', 'onnxruntime', 'google.protobuf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True)
    assert done.stdout == "[]\n"
