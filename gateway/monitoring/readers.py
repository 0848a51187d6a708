"""A data set as a stream of frames: CSV, Parquet, JSON lines, npz. Never more in memory than a few frames, and read as
often as asked, so that a file larger than the machine's memory can be passed over twice.

A frame's columns are already what a tensor wants, or the refusal names the file, the line and the column.
"""

from __future__ import annotations

import abc
import csv
import io
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gateway.errors import ConfigError
from gateway.monitoring.values import Bad, Values, from_arrow, from_numpy, wanted_type

FORMATS = ("csv", "parquet", "jsonl", "npz")
SUFFIXES = {"csv": "csv", "tsv": "csv", "parquet": "parquet", "pq": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}

FRAME_BYTES = 8 * 2**20
"""Of one frame, about: large enough that the work on it is NumPy's, small enough for a hundred columns' copies."""
MAX_FRAME_ROWS = 65536

NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
"""What stands in a CSV for a number that is not there. In a column of text only the empty cell is none."""

Advance = Callable[[float], None]
"""Told the share of the file that is read, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Some consecutive rows. `columns` by the field's name, all of `n_rows`."""

    first_row: int
    n_rows: int
    columns: dict[str, Values]


class Reader(abc.ABC):
    """One file. `names`: its fields, in order."""

    names: list[str]

    def __init__(self, path: Path) -> None:
        self.path = path

    @abc.abstractmethod
    def width(self, name: str) -> int:
        """Values of the field in a row: 1 for a plain column; -1 when only reading tells."""

    @abc.abstractmethod
    def frames(self, wanted: Mapping[str, str], advance: Advance) -> Iterator[Frame]:
        """All rows, of the fields in `wanted` (name to OIP datatype). ConfigError names line and column."""

    def place(self, row: int) -> str:
        """The row as a person finds it in the file."""
        return f"row {row + 1}"

    def refusal(self, row: int, name: str, text: str) -> ConfigError:
        return ConfigError(f"{self.path}: {self.place(row)}, column {name!r}: {text}")


def open_reader(path: Path, format_: str | None = None) -> Reader:
    """By `format_`, else by suffix, else by the first bytes. ConfigError: missing, empty, or of no such format."""
    if str(path) == "-":
        raise ConfigError("DATA: got standard input, expected a file: it is read twice")
    if format_ is not None and format_ not in FORMATS:
        raise ConfigError(f"--format: got {format_!r}, expected {', '.join(FORMATS)}")
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder, expected a file: {', '.join(FORMATS)}")
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if not head.strip():
        raise ConfigError(f"{path}: is empty; expected rows: {', '.join(FORMATS)}")
    name = path.name.lower().removesuffix(".gz")
    match format_ or SUFFIXES.get(name.rpartition(".")[2]) or _sniff(head):
        case "parquet":
            return ParquetReader(path)
        case "npz":
            return NpzReader(path)
        case "jsonl":
            return JsonLinesReader(path)
        case _:
            return CsvReader(path)


def _sniff(head: bytes) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK\x03\x04"):
        return "npz"
    return "jsonl" if head.lstrip()[:1] in b"[{" else "csv"


class _Counted(io.RawIOBase):
    """A file that tells how far it has been read; gzip by its magic number."""

    def __init__(self, path: Path, advance: Advance) -> None:
        super().__init__()
        self._path = path
        self._raw = path.open("rb")
        self._n_bytes = max(1, path.stat().st_size)
        self._advance = advance
        self._file: Any = self._raw
        if self._raw.peek(2)[:2] == b"\x1f\x8b":
            import gzip

            self._file = gzip.GzipFile(fileobj=self._raw)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            n = int(self._file.readinto(buffer))
        except (EOFError, OSError, zlib.error) as error:
            raise ConfigError(f"{self._path}: cannot be read to its end: {_one_line(error)}") from None
        self._advance(min(1.0, self._raw.tell() / self._n_bytes))
        return n

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class CsvReader(Reader):
    """A header line, then rows. Parsed by Arrow; where that refuses, a slow second look finds the line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self._text() as lines:
            header = next((line for line in lines if line.strip()), "")
        self._delimiter = next((mark for mark in ",;\t" if mark in header), ",")
        try:
            self.names = next(csv.reader([header], delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            raise ConfigError(f"{path}: line 1: {error}") from None
        for name in self.names:
            if self.names.count(name) > 1:
                raise ConfigError(f"{path}: line 1: the header names column {name!r} twice")
        if all(_is_number(name) for name in self.names):
            raise ConfigError(
                f"{path}: line 1: got {header.strip()[:60]!r}, expected the names of the columns; put a header above"
            )

    def width(self, name: str) -> int:
        return 1

    def place(self, row: int) -> str:
        line = next((line for at, line, _ in self._rows() if at == row), None)
        return f"row {row + 1}" if line is None else f"line {line}"

    def frames(self, wanted: Mapping[str, str], advance: Advance) -> Iterator[Frame]:
        from pyarrow import csv as arrow_csv

        first = 0
        with _Counted(self.path, advance) as file:
            try:
                with arrow_csv.open_csv(
                    file,
                    arrow_csv.ReadOptions(block_size=FRAME_BYTES),
                    arrow_csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                    arrow_csv.ConvertOptions(
                        column_types={name: wanted_type(datatype) for name, datatype in wanted.items()},
                        include_columns=list(wanted),
                        null_values=NULLS,
                        strings_can_be_null=False,
                    ),
                ) as reader:
                    for batch in reader:
                        for at in range(0, batch.num_rows, MAX_FRAME_ROWS):
                            frame = _arrow_frame(self, batch.slice(at, MAX_FRAME_ROWS), wanted, first)
                            first += frame.n_rows
                            yield frame
            except pa.ArrowInvalid as error:
                self._find_fault(wanted)
                raise ConfigError(f"{self.path}: {_one_line(error)}") from None

    def _find_fault(self, wanted: Mapping[str, str]) -> None:
        """Raise for the first row that is not as wide as the header, or the first cell that is no such value."""
        at = {name: self.names.index(name) for name in wanted}
        for _, line, cells in self._rows():
            if len(cells) != len(self.names):
                raise ConfigError(
                    f"{self.path}: line {line}: got {len(cells)} cells, expected {len(self.names)} as in the header"
                )
            for name, datatype in wanted.items():
                if fault := _cell_fault(cells[at[name]], datatype):
                    raise ConfigError(f"{self.path}: line {line}, column {name!r}: {fault}")

    def _rows(self) -> Iterator[tuple[int, int, list[str]]]:
        """Row, line, cells; the header is left out. The line is the one on which the row ends."""
        with self._text() as lines:
            reader = csv.reader(lines, delimiter=self._delimiter)
            rows = ((reader.line_num, cells) for cells in reader if cells)
            try:
                next(rows, None)
                for row, (line, cells) in enumerate(rows):
                    yield row, line, cells
            except csv.Error as error:
                raise ConfigError(f"{self.path}: line {reader.line_num}: {error}") from None

    def _text(self) -> io.TextIOWrapper:
        """Bytes that are no UTF-8 come through as surrogates, so that they can be found by line."""
        raw = io.BufferedReader(_Counted(self.path, lambda _: None))
        return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


class ParquetReader(Reader):
    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        super().__init__(path)
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                self._schema, self._n_rows = file.schema_arrow, file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{path}: is no readable Parquet file: {_one_line(error)}") from None
        self.names = self._schema.names

    def width(self, name: str) -> int:
        return _arrow_width(self._schema.field(name).type)

    def frames(self, wanted: Mapping[str, str], advance: Advance) -> Iterator[Frame]:
        import pyarrow.parquet as pq

        first = 0
        try:
            with pq.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as file:
                n_bytes = sum(file.metadata.row_group(at).total_byte_size for at in range(file.num_row_groups))
                rows = max(1, min(MAX_FRAME_ROWS, FRAME_BYTES * self._n_rows // max(1, n_bytes)))
                for batch in file.iter_batches(rows, columns=list(wanted)):
                    yield _arrow_frame(self, batch, wanted, first)
                    first += batch.num_rows
                    advance(first / self._n_rows)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{self.path}: after row {first}: {_one_line(error)}") from None


class JsonLinesReader(Reader):
    """A record {"name": value} on each line, or a list of values: its fields are then called 0, 1, 2. A value may be a
    list.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._first = next(self._records(lambda _: None), None)
        if self._first is None:
            raise ConfigError(f"{path}: holds no rows")
        self.names = list(map(str, self._first[1]))

    def width(self, name: str) -> int:
        assert self._first is not None
        return -1 if isinstance(self._first[1].get(name), list) else 1

    def place(self, row: int) -> str:
        line = next((line for at, (line, _) in enumerate(self._records(lambda _: None)) if at == row), None)
        return f"row {row + 1}" if line is None else f"line {line}"

    def frames(self, wanted: Mapping[str, str], advance: Advance) -> Iterator[Frame]:
        records = self._records(advance)
        first = 0
        size = 64  # grows to what fits FRAME_BYTES
        while part := list(itertools.islice(records, size)):
            columns = {}
            for name, datatype in wanted.items():
                try:
                    columns[name] = self._column([record[name] for _, record in part], name, datatype, part, first)
                except KeyError:
                    line = next(line for line, record in part if name not in record)
                    raise ConfigError(f"{self.path}: line {line}: has no field {name!r}, as line 1 has") from None
            yield Frame(first, len(part), columns)
            first += len(part)
            n_bytes = max(1, sum(column.n_bytes for column in columns.values()) // len(part))
            size = max(1, min(MAX_FRAME_ROWS // 4, FRAME_BYTES // (4 * n_bytes)))

    def _column(
        self, values: list[Any], name: str, datatype: str, part: Sequence[tuple[int, Any]], first: int
    ) -> Values:
        try:
            kind = wanted_type(datatype)
            for depth in range(_depth(next((value for value in values if value is not None), None))):
                kind = pa.list_(kind)
                del depth
            array = pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
            for (line, _), value in zip(part, values, strict=True):
                if fault := _json_fault(value, datatype):
                    raise ConfigError(f"{self.path}: line {line}, column {name!r}: {fault}") from None
            raise ConfigError(f"{self.path}: line {part[0][0]} or soon after: {_one_line(error)}") from None
        try:
            return from_arrow(array, datatype)
        except Bad as bad:
            line = part[bad.row][0]
            raise ConfigError(f"{self.path}: line {line}, column {name!r}: {bad}") from None

    def _records(self, advance: Advance) -> Iterator[tuple[int, dict[str, Any]]]:
        import json

        import orjson

        with io.BufferedReader(_Counted(self.path, advance), 2**18) as file:
            for line, content in enumerate(file, 1):
                if not content.strip():
                    continue
                try:
                    record = orjson.loads(content)
                except orjson.JSONDecodeError as error:
                    try:
                        record = json.loads(content)  # NaN and Infinity, which Python writes and JSON lacks
                    except (ValueError, RecursionError):
                        raise ConfigError(
                            f"{self.path}: line {line}, column {error.colno}: not JSON: {error.msg}; "
                            f"expected one record on each line"
                        ) from None
                if isinstance(record, list):
                    record = {str(at): value for at, value in enumerate(record)}
                if not isinstance(record, dict) or not record:
                    raise ConfigError(f'{self.path}: line {line}: expected a record such as {{"age": 42}} or a list')
                yield line, record


class NpzReader(Reader):
    """Arrays by tensor name, rows first; `input:` and `output:` before a name are as in golden.npz. Read in pieces out
    of the archive, compressed or not.
    """

    def __init__(self, path: Path) -> None:
        import zipfile

        super().__init__(path)
        self._shapes: dict[str, tuple[int, ...]] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    with archive.open(member) as file:
                        shape, _, _ = self._header(file, member)
                    if not shape:
                        raise ConfigError(f"{path}: array {member!r} has no dimensions, expected rows first")
                    self._shapes[member.removesuffix(".npy")] = shape
        except (zipfile.BadZipFile, OSError) as error:
            raise ConfigError(f"{path}: is no readable npz: {error}") from None
        self.names = list(self._shapes)

    def width(self, name: str) -> int:
        return int(np.prod(self._shapes[name][1:], dtype=np.int64))

    def frames(self, wanted: Mapping[str, str], advance: Advance) -> Iterator[Frame]:
        import contextlib
        import zipfile

        shapes = {name: self._shapes[name] for name in wanted}
        rows = {shape[0] for shape in shapes.values()}
        if len(rows) > 1:
            told = ", ".join(f"{name!r} {shape[0]}" for name, shape in shapes.items())
            raise ConfigError(f"{self.path}: the arrays have different numbers of rows: {told}")
        n_rows = rows.pop()
        with zipfile.ZipFile(self.path) as archive, contextlib.ExitStack() as stack:
            files, dtypes = {}, {}
            for name in wanted:
                files[name] = stack.enter_context(archive.open(f"{name}.npy"))
                _, _, dtypes[name] = self._header(files[name], name)
            row_bytes = {name: dtypes[name].itemsize * self.width(name) for name in wanted}
            step = max(1, min(MAX_FRAME_ROWS, FRAME_BYTES // max(1, *row_bytes.values())))
            for first in range(0, n_rows, step):
                n = min(step, n_rows - first)
                columns = {}
                for name, datatype in wanted.items():
                    content = _read_exactly(files[name], n * row_bytes[name])
                    if len(content) < n * row_bytes[name]:
                        raise ConfigError(f"{self.path}: array {name!r} ends early, in row {first + 1} or later")
                    array = np.frombuffer(content, dtypes[name]).reshape(n, *shapes[name][1:])
                    try:
                        columns[name] = from_numpy(array, datatype)
                    except Bad as bad:
                        raise self.refusal(first + bad.row, name, str(bad)) from None
                yield Frame(first, n, columns)
                advance((first + n) / n_rows)

    def _header(self, file: Any, member: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(file)
        except ValueError as error:
            raise ConfigError(f"{self.path}: {member!r} is no array: {error}") from None
        if dtype.hasobject:
            raise ConfigError(f"{self.path}: array {member!r} holds Python objects; save text as array.astype(str)")
        if is_fortran and len(shape) > 1:
            raise ConfigError(
                f"{self.path}: array {member!r} lies column by column; save it as numpy.ascontiguousarray(array)"
            )
        return shape, is_fortran, dtype


def _read_exactly(file: Any, n_bytes: int) -> bytes:
    pieces = []
    while n_bytes and (piece := file.read(n_bytes)):
        pieces.append(piece)
        n_bytes -= len(piece)
    return b"".join(pieces)


def _arrow_frame(reader: Reader, batch: pa.RecordBatch, wanted: Mapping[str, str], first: int) -> Frame:
    columns = {}
    for name, datatype in wanted.items():
        try:
            columns[name] = from_arrow(batch.column(batch.schema.get_field_index(name)), datatype)
        except Bad as bad:
            raise reader.refusal(first + bad.row, name, str(bad)) from None
    return Frame(first, batch.num_rows, columns)


def _arrow_width(kind: pa.DataType) -> int:
    width = 1
    while pa.types.is_nested(kind):
        if not pa.types.is_fixed_size_list(kind):
            return -1
        width, kind = width * kind.list_size, kind.value_type
    return width


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        depth, value = depth + 1, next(iter(value), None)
    return depth


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cell_fault(cell: str, datatype: str) -> str:
    """What is wrong with a CSV's cell, or ""."""
    cell = cell.strip()
    if not cell.isprintable() and any("\udc80" <= each <= "\udcff" for each in cell):
        return "got bytes that are no UTF-8"
    if datatype == "BYTES":
        return ""
    if cell in NULLS:
        return "" if wanted_type(datatype) == pa.float64() else f"got {cell!r}, expected a whole number ({datatype})"
    if datatype == "BOOL":
        is_bool = cell.lower() in ("true", "false", "0", "1")
        return "" if is_bool else f"got {cell[:40]!r}, expected true or false"
    try:
        (float if wanted_type(datatype) == pa.float64() else int)(cell)
    except ValueError:
        what = "a number" if wanted_type(datatype) == pa.float64() else "a whole number"
        return f"got {cell[:40]!r}, expected {what} ({datatype})"
    return ""


def _json_fault(value: Any, datatype: str) -> str:
    """The same for a value of JSON, at any depth."""
    if isinstance(value, list):
        return next((fault for each in value if (fault := _json_fault(each, datatype))), "")
    kinds, what = {
        pa.string(): ((str,), "text"),
        pa.float64(): ((int, float, type(None)), "a number"),
        pa.bool_(): ((bool,), "true or false"),
    }.get(wanted_type(datatype), ((int,), "a whole number"))
    is_right = isinstance(value, kinds) and (datatype == "BOOL" or not isinstance(value, bool))
    return "" if is_right else f"got {value!r:.40}, expected {what} ({datatype})"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
