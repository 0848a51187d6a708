"""Reads what a person has (JSON, CSV, npz) into one of three forms, before any model is known: cells, rows or tensors.

Each form remembers where a value stood, so that a bad one can be named by line and column once the model said what it
wants.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError

FORMATS = ("json", "csv", "npz")


@dataclass(frozen=True, slots=True)
class Cells:
    """Named columns of equal length. A cell is a value, or a nested list for an input of more dimensions."""

    source: str
    names: list[str]
    columns: list[list[Any]]
    where: Callable[[int, str], str]
    """(row index, column) -> `line 3, column 'age'`."""
    is_text: bool = False
    """CSV: numbers are still text."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows without names: lists, or single values."""

    source: str
    rows: list[Any]


@dataclass(frozen=True, slots=True)
class Given:
    """One whole tensor as a file gave it. `data` is a NumPy array, or a list with shape and datatype beside it."""

    data: Any
    shape: list[int] | None = None
    datatype: str | None = None


@dataclass(frozen=True, slots=True)
class Tensors:
    """Whole tensors by input name."""

    source: str
    tensors: dict[str, Given]


Data = Cells | Rows | Tensors


def read(path: str, format_: str | None) -> Data:
    """`path` is a file or "-" for standard input; without a format it is told by suffix, else by the first bytes.

    ConfigError names the file and, where there is one, the line.
    """
    if format_ is not None and format_ not in FORMATS:
        raise ConfigError(f"--format: got {format_!r}, expected {', '.join(FORMATS)}")
    if path == "-":
        source, content = "standard input", sys.stdin.buffer.read()
    else:
        source, content = path, _content(Path(path))
    if not content.strip():
        raise ConfigError(f"--data {source}: is empty; expected JSON, CSV with a header line, or npz")
    suffix = Path(path).suffix.lower().lstrip(".")
    match format_ or (suffix if suffix in FORMATS else _sniff(content)):
        case "npz":
            return _read_npz(source, content)
        case "json":
            return _read_json(source, content)
        case _:
            return _read_csv(source, content)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"--data {path}: no such file; '-' reads standard input") from None
    except OSError as error:
        raise ConfigError(f"--data {path}: cannot be read: {error.strerror}") from None


def _sniff(content: bytes) -> str:
    if content.startswith(b"PK\x03\x04"):  # npz is a zip
        return "npz"
    return "json" if content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in b"[{" else "csv"


def _text(source: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--data {source}: byte {error.start} is no UTF-8; is it text, and which --format?") from None


def _read_csv(source: str, content: bytes) -> Cells:
    text = _text(source, content)
    header, _, _ = text.lstrip().partition("\n")
    delimiter = next((mark for mark in ",;\t" if mark in header), ",")
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    lines: list[int] = []
    rows: list[list[str]] = []
    names: list[str] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if not names:
                names = [name.strip() for name in row]
                _no_repeats(source, names)
                continue
            if len(row) != len(names):
                place = f"--data {source}: line {reader.line_num}"
                raise ConfigError(f"{place}: got {len(row)} cells, expected {len(names)} as in the header")
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise ConfigError(f"--data {source}: line {reader.line_num}: {error}") from None
    if not rows:
        raise ConfigError(f"--data {source}: holds a header and no rows")
    columns = [[cell.strip() for cell in column] for column in zip(*rows, strict=True)]
    return Cells(source, names, columns, lambda row, name: f"line {lines[row]}, column {name!r}", is_text=True)


def _no_repeats(source: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"--data {source}: the header names column {name!r} twice")


def _read_json(source: str, content: bytes) -> Data:
    try:
        value = json.loads(_text(source, content))
    except json.JSONDecodeError as error:
        raise ConfigError(f"--data {source}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ConfigError(f"--data {source}: nested too deeply") from None
    if isinstance(value, dict):
        if _is_oip(value):
            return Tensors(source, {tensor["name"]: _given(source, tensor) for tensor in value["inputs"]})
        return _columns(source, value)
    if isinstance(value, list) and value:
        return _records(source, value) if all(isinstance(row, dict) for row in value) else Rows(source, value)
    raise ConfigError(
        f"--data {source}: got {json.dumps(value)[:40]}, expected a list of rows, a list of records, "
        f'{{"input": [...]}}, or an Open Inference Protocol body with "inputs"'
    )


def _is_oip(value: dict[str, Any]) -> bool:
    inputs = value.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        return False
    return all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in inputs)


def _given(source: str, tensor: dict[str, Any]) -> Given:
    for field, kind, what in (
        ("shape", list, "a list of numbers"),
        ("datatype", str, "text"),
        ("data", list, "a list"),
    ):
        if not isinstance(tensor.get(field), kind):
            raise ConfigError(f"--data {source}: input {tensor['name']!r}: {field}: missing or not {what}")
    if not all(type(size) is int and size >= 0 for size in tensor["shape"]):
        raise ConfigError(f"--data {source}: input {tensor['name']!r}: shape: expected sizes of 0 or more")
    return Given(tensor["data"], tensor["shape"], tensor["datatype"])


def _columns(source: str, value: dict[str, Any]) -> Cells:
    for name, column in value.items():
        if not isinstance(column, list):
            raise ConfigError(
                f"--data {source}: field {name!r}: got {json.dumps(column)[:40]}, expected a list of values"
            )
    return Cells(source, list(value), list(value.values()), lambda row, name: f"field {name!r}, row {row + 1}")


def _records(source: str, records: list[dict[str, Any]]) -> Cells:
    names = list(records[0])
    for number, record in enumerate(records, 1):
        if record.keys() != records[0].keys():
            odd = sorted(record.keys() ^ records[0].keys())
            raise ConfigError(f"--data {source}: record {number}: field {odd[0]!r} is not in every record")
    columns = [[record[name] for record in records] for name in names]
    return Cells(source, names, columns, lambda row, name: f"record {row + 1}, field {name!r}")


def _read_npz(source: str, content: bytes) -> Tensors:
    """Arrays by input name; a file that has `input:<name>` keys, as golden.npz, is read by those alone."""
    import zipfile

    import numpy as np

    tensors: dict[str, Given] = {}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ConfigError(f"--data {source}: is a single .npy array, expected npz; write it with numpy.savez")
            marked = any(key.startswith("input:") for key in arrays.files)
            for key in arrays.files:
                if marked and not key.startswith("input:"):
                    continue
                try:
                    tensors[key.removeprefix("input:")] = Given(arrays[key])
                except ValueError:
                    raise ConfigError(
                        f"--data {source}: array {key!r} holds Python objects; save strings as array.astype(str)"
                    ) from None
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise ConfigError(f"--data {source}: is no readable npz: {error}") from None
    return Tensors(source, tensors)
