"""profile.json: what it holds, and the line that an operator reads when it is wrong or for another version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.base import Signature, TensorSpec
from gateway.errors import ConfigError
from gateway.monitoring.profile import Calibration, Profile, load_profile, parse_profile

NUMERIC: dict[str, Any] = {
    "name": "age",
    "tensor": "input",
    "index": 2,
    "kind": "numeric",
    "edges": [0, 1.5, 2],
    "counts": [3, 4],
    "nan": 1,
    "centre": 1.0,
    "scale": 0.5,
    "mean": 1.0,
    "std": 1,
    "min": 0.0,
    "max": 1.9,
    "iqr": 1.0,
}
SUMMARY: dict[str, Any] = NUMERIC | {"name": "norm", "kind": "summary", "index": None, "statistic": "norm"}
WORDS: dict[str, Any] = {
    "name": "label",
    "tensor": "label",
    "kind": "categorical",
    "vocabulary": ["yes", "no"],
    "counts": [5, 1],
    "other": 1,
    "missing": 1,
    "distinct": 3,
}
CALIBRATION: dict[str, Any] = {
    "name": "p",
    "tensor": "p",
    "index": 1,
    "kind": "calibration",
    "counts": [7, *[0] * 19],
    "outside": 1,
}
PROFILE: dict[str, Any] = {
    "format": 1,
    "model": "fraud",
    "version": "7",
    "digest": "ab" * 32,
    "source": "data",
    "rows": 8,
    "created": "2026-01-01T00:00:00Z",
    "columns": [NUMERIC, SUMMARY],
    "outputs": [WORDS, CALIBRATION],
}
SIGNATURE = Signature(
    (TensorSpec("input", "FP32", (-1, 3)),),
    (TensorSpec("label", "BYTES", (-1,)), TensorSpec("p", "FP32", (-1, 2))),
    True,
)


def parsed(**fields: Any) -> Profile:
    return parse_profile(json.dumps(PROFILE | fields).encode())


def without(column: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in column.items() if name != field}


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    profile = parsed()
    (tmp_path / "profile.json").write_bytes(profile.to_json())
    assert load_profile(tmp_path) == profile
    assert [column.name for column in profile.watched] == ["age", "norm", "label", "p"]
    assert json.loads(profile.to_json())["columns"][0]["edges"] == [0.0, 1.5, 2.0]


def test_a_profile_without_outputs_is_a_profile() -> None:
    assert parse_profile(parsed(outputs=[]).to_json()).outputs == ()


def test_a_sure_probability_falls_into_the_last_bin() -> None:
    assert len(Calibration.EDGES) == 21
    assert Calibration.EDGES[19] < 1.0 < Calibration.EDGES[20]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"columns": [NUMERIC | {"edges": [0, 2, 2]}]}, "columns[0].edges: edges must increase: edges[1] is 2.0"),
        ({"columns": [NUMERIC | {"edges": ["a", 1, 2]}]}, 'columns[0].edges[0]: got "a", expected a number'),
        ({"columns": [NUMERIC | {"counts": [8]}]}, "'age' has 1 counts for 3 edges, expected one less than edges"),
        ({"columns": [NUMERIC | {"counts": [9, -1]}]}, "columns[0].counts[1]: got -1, expected 0 or more"),
        ({"columns": [NUMERIC | {"scale": 3}]}, "columns[0].scale: got 3, expected a power of two"),
        ({"columns": [NUMERIC | {"centre": True}]}, "columns[0].centre: got true, expected a number"),
        ({"columns": [NUMERIC | {"edgse": []}]}, "columns[0].edgse: unknown field, expected edges"),
        ({"columns": [NUMERIC, NUMERIC]}, "the name 'age' stands 2 times"),
        ({"columns": [NUMERIC | {"nan": 2}]}, "'age' counts 9 rows in its cells, expected 8"),
        ({"rows": 7}, "'age' counts 8 rows in its cells, expected 7"),
        ({"columns": [SUMMARY | {"index": 1}]}, "expected no index"),
        ({"columns": [SUMMARY | {"statistic": "projection"}]}, "is a projection, expected a projection_seed"),
        ({"columns": [SUMMARY | {"projection_seed": 1}]}, "is a norm, expected no projection_seed"),
        ({"columns": [], "outputs": []}, "0 columns and outputs"),
        ({"outputs": [WORDS | {"vocabulary": ["yes", "yes"]}]}, "has 'yes' twice in its vocabulary"),
        ({"outputs": [WORDS | {"vocabulary": ["yes", ""]}]}, "the empty text is counted as missing"),
        ({"outputs": [WORDS | {"vocabulary": ["yes", 1]}]}, "outputs[0].vocabulary[1]: got 1, expected text"),
        ({"outputs": [WORDS | {"counts": [6]}]}, "has 1 counts for 2 words"),
        ({"outputs": [CALIBRATION | {"counts": [7]}]}, "outputs[0].counts: got [7], expected at least 20 entries"),
        ({"format": 2}, "format: got 2, expected 1; build it again"),
        ({"version": 7}, "version: got 7, expected text"),
        ({"digest": "abc"}, 'digest: got "abc", expected text that matches'),
        ({"source": "dream"}, 'source: got "dream", expected data or live'),
    ],
)
def test_a_fault_is_named_with_its_field(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parsed(**fields)
    assert line in str(refusal.value)


def test_an_unlisted_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"columns\[0\]\.edges: missing"):
        parsed(columns=[without(NUMERIC, "edges")])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "line 1, column 1: not JSON"),
        (b'{"format": 1,\n "rows" 3}', "line 2, column 9: not JSON"),
        (b"[]", "JSON without fields"),
        (b"{}", "format: got None, expected 1"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, content: bytes, line: str) -> None:
    (tmp_path / "profile.json").write_bytes(content)
    with pytest.raises(ConfigError) as refusal:
        load_profile(tmp_path)
    assert str(tmp_path / "profile.json") in str(refusal.value)
    assert line in str(refusal.value)


def test_a_missing_file_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gateway profile build writes it"):
        load_profile(tmp_path)


def test_it_fits_the_version_it_was_built_for() -> None:
    parsed().check(SIGNATURE, "fraud", "7", "sha256:" + "ab" * 32)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"columns": [NUMERIC | {"index": 3}]}, "got index 3, and input 'input' has 3 values in a row"),
        ({"columns": [without(NUMERIC, "index")]}, "got no index, and input 'input' has more than one value"),
        ({"columns": [NUMERIC | {"tensor": "x"}]}, "got tensor 'x', expected an input: input"),
        (
            {"outputs": [NUMERIC | {"name": "x", "tensor": "label", "index": 0}]},
            "output 'label' is text; expected categorical",
        ),
        ({"outputs": [SUMMARY | {"name": "x", "tensor": "label"}]}, "got the norm of text, expected its length"),
        ({"outputs": [WORDS | {"vocabulary": [1, 2]}]}, "got 1 in the vocabulary of a tensor of BYTES"),
        ({"outputs": [WORDS | {"tensor": "p", "index": 0}]}, "got 'yes' in the vocabulary of a tensor of FP32"),
    ],
)
def test_a_signature_it_does_not_fit_is_named(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parsed(**fields).check(SIGNATURE, "fraud", "7")
    assert line in str(refusal.value)
    assert "gateway profile build --model fraud --version 7" in str(refusal.value)


def test_another_version_is_named() -> None:
    with pytest.raises(ConfigError, match="is of fraud version 7, expected fraud version 8"):
        parsed().check(SIGNATURE, "fraud", "8")


def test_other_files_under_the_same_number_are_told_by_digest() -> None:
    with pytest.raises(ConfigError, match=r"digest: got abababababab\.\.\., expected cdcdcdcdcdcd"):
        parsed().check(SIGNATURE, "fraud", "7", "cd" * 32)


def test_the_fingerprint_is_of_the_cells_and_not_of_their_counts() -> None:
    same = parsed(rows=9, columns=[NUMERIC | {"nan": 2}, SUMMARY | {"nan": 2}], outputs=[]).fingerprint
    assert parsed(outputs=[]).fingerprint == same
    moved = parsed(columns=[NUMERIC | {"edges": [0, 1.25, 2]}, SUMMARY], outputs=[])
    assert moved.fingerprint != same
    assert parsed(columns=[NUMERIC | {"scale": 1}, SUMMARY], outputs=[]).fingerprint != same
