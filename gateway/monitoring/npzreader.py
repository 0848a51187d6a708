"""npz: arrays out of the archive in pieces, compressed or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gateway.errors import ConfigError
from gateway.monitoring import reader
from gateway.monitoring.reader import Advance, Frame, Reader
from gateway.monitoring.values import Bad, from_numpy


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
            step = max(1, min(reader.MAX_FRAME_ROWS, reader.FRAME_BYTES // max(1, *row_bytes.values())))
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
