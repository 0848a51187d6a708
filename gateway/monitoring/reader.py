"""A data set as a stream of frames: never more in memory than a few of them, and read as often as asked, so that a file
larger than the machine's memory can be passed over twice.

A frame's columns are already what a tensor wants, or the refusal names the file, the line and the column.
"""

from __future__ import annotations

import abc
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gateway.errors import ConfigError
from gateway.monitoring.values import Bad, Values, from_arrow

FRAME_BYTES = 8 * 2**20
"""Of one frame, about: large enough that the work on it is NumPy's, small enough for a hundred columns' copies."""

MAX_FRAME_ROWS = 16384
"""A column of doubles then stays in a core's own cache from one step to the next."""

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


class Counted(io.RawIOBase):
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
            raise ConfigError(f"{self._path}: cannot be read to its end: {one_line(error)}") from None
        self._advance(min(1.0, self._raw.tell() / self._n_bytes))
        return n

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def arrow_frame(reader: Reader, batch: pa.RecordBatch, wanted: Mapping[str, str], first: int) -> Frame:
    columns = {}
    for name, datatype in wanted.items():
        try:
            columns[name] = from_arrow(batch.column(batch.schema.get_field_index(name)), datatype)
        except Bad as bad:
            raise reader.refusal(first + bad.row, name, str(bad)) from None
    return Frame(first, batch.num_rows, columns)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
