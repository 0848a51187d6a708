"""JSON lines: a record on each, or a list of values."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from gateway.errors import ConfigError
from gateway.monitoring import reader
from gateway.monitoring.reader import Advance, Counted, Frame, Reader, one_line
from gateway.monitoring.values import Bad, Values, from_arrow, wanted_type


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
        size = 64  # grows to what fits reader.FRAME_BYTES
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
            size = max(1, min(reader.MAX_FRAME_ROWS // 4, reader.FRAME_BYTES // (4 * n_bytes)))

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
            raise ConfigError(f"{self.path}: line {part[0][0]} or soon after: {one_line(error)}") from None
        try:
            return from_arrow(array, datatype)
        except Bad as bad:
            line = part[bad.row][0]
            raise ConfigError(f"{self.path}: line {line}, column {name!r}: {bad}") from None

    def _records(self, advance: Advance) -> Iterator[tuple[int, dict[str, Any]]]:
        import json

        import orjson

        with io.BufferedReader(Counted(self.path, advance), 2**18) as file:
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


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        depth, value = depth + 1, next(iter(value), None)
    return depth


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
