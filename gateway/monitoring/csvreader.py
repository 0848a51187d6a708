"""CSV: parsed by Arrow; where that refuses, a slow second look finds the line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from gateway.errors import ConfigError
from gateway.monitoring import reader
from gateway.monitoring.reader import Advance, Counted, Frame, Reader, arrow_frame, one_line
from gateway.monitoring.values import wanted_type

NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
"""What stands for a number that is not there. In a column of text only the empty cell is none."""


class CsvReader(Reader):
    """A header line, then rows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self._text() as lines:
            header = next((line for line in lines if line.strip()), "")
        if _is_no_utf8(header) or "\0" in header:
            raise ConfigError(
                f"{path}: line 1: is no text in UTF-8; expected the names of columns, or another --format"
            )
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
        # Arrow's own file: it reads ahead in a thread, which must not need Python while Python ends.
        with pa.OSFile(str(self.path)) as file:
            n_bytes = file.size()
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            try:
                with arrow_csv.open_csv(
                    pa.CompressedInputStream(file, "gzip") if is_gzip else file,
                    arrow_csv.ReadOptions(block_size=reader.FRAME_BYTES),
                    arrow_csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                    arrow_csv.ConvertOptions(
                        column_types={name: wanted_type(datatype) for name, datatype in wanted.items()},
                        include_columns=list(wanted),
                        null_values=NULLS,
                        strings_can_be_null=False,
                    ),
                ) as batches:
                    for batch in batches:
                        for at in range(0, batch.num_rows, reader.MAX_FRAME_ROWS):
                            frame = arrow_frame(self, batch.slice(at, reader.MAX_FRAME_ROWS), wanted, first)
                            first += frame.n_rows
                            yield frame
                        advance(file.tell() / n_bytes)
            except (pa.ArrowInvalid, OSError) as error:
                self._find_fault(wanted)
                raise ConfigError(f"{self.path}: {one_line(error)}") from None

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
            parser = csv.reader(lines, delimiter=self._delimiter)
            rows = ((parser.line_num, cells) for cells in parser if cells)
            try:
                next(rows, None)
                for row, (line, cells) in enumerate(rows):
                    yield row, line, cells
            except csv.Error as error:
                raise ConfigError(f"{self.path}: line {parser.line_num}: {error}") from None

    def _text(self) -> io.TextIOWrapper:
        """Bytes that are no UTF-8 come through as surrogates, so that they can be found by line."""
        raw = io.BufferedReader(Counted(self.path, lambda _: None))
        return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cell_fault(cell: str, datatype: str) -> str:
    """What is wrong with a CSV's cell, or ""."""
    cell = cell.strip()
    if _is_no_utf8(cell):
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


def _is_no_utf8(text: str) -> bool:
    """Bytes that could not be decoded were let through as surrogates."""
    return not text.isprintable() and any("\udc80" <= each <= "\udcff" for each in text)
