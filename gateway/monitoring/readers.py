"""Which reader a data file needs."""

from __future__ import annotations

from pathlib import Path

from gateway.errors import ConfigError
from gateway.monitoring.csvreader import CsvReader
from gateway.monitoring.jsonreader import JsonLinesReader
from gateway.monitoring.npzreader import NpzReader
from gateway.monitoring.parquetreader import ParquetReader
from gateway.monitoring.reader import Reader

FORMATS = ("csv", "parquet", "jsonl", "npz")
SUFFIXES = {"csv": "csv", "tsv": "csv", "parquet": "parquet", "pq": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}


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
