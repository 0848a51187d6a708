"""Parquet: read by Arrow, a slice of a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from gateway.errors import ConfigError
from gateway.monitoring import reader
from gateway.monitoring.reader import Advance, Frame, Reader, arrow_frame, one_line


class ParquetReader(Reader):
    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        super().__init__(path)
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                self._schema, self._n_rows = file.schema_arrow, file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{path}: is no readable Parquet file: {one_line(error)}") from None
        self.names = self._schema.names

    def width(self, name: str) -> int:
        return _arrow_width(self._schema.field(name).type)

    def frames(self, wanted: Mapping[str, str], advance: Advance) -> Iterator[Frame]:
        import pyarrow.parquet as pq

        first = 0
        try:
            with pq.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as file:
                n_bytes = sum(file.metadata.row_group(at).total_byte_size for at in range(file.num_row_groups))
                rows = max(1, min(reader.MAX_FRAME_ROWS, reader.FRAME_BYTES * self._n_rows // max(1, n_bytes)))
                for batch in file.iter_batches(rows, columns=list(wanted)):
                    yield arrow_frame(self, batch, wanted, first)
                    first += batch.num_rows
                    advance(first / self._n_rows)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{self.path}: after row {first}: {one_line(error)}") from None


def _arrow_width(kind: pa.DataType) -> int:
    width = 1
    while pa.types.is_nested(kind):
        if not pa.types.is_fixed_size_list(kind):
            return -1
        width, kind = width * kind.list_size, kind.value_type
    return width
