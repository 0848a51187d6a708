"""The limit: nghttpd, the C server of the nghttp2 project, serving a file of the size of the right answer.

Everything that HTTP/2 costs here, and nothing that a gateway adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import procfs
from bench.h2load import tool
from bench.payloads import MODEL_INFER
from bench.processes import Child, free_port, wait_until_listening


@dataclass(frozen=True, slots=True)
class Limit:
    """A running nghttpd that answers every POST to the ModelInfer path with `answer_bytes` bytes."""

    port: int
    answer_bytes: int

    def pids(self) -> list[int]:
        return procfs.listeners(self.port)


@contextmanager
def limit(scratch: Path, answer_bytes: int, *, wide_windows: bool = False, is_grpc: bool = False) -> Iterator[Limit]:
    """Starts nghttpd over a folder made in `scratch`. `wide_windows`: 1 GB, so that uploads never wait for credit.
    `is_grpc`: each answer ends with the trailer `grpc-status: 0`, for clients that look.
    """
    root = scratch / f"limit-{answer_bytes}"
    file = root / MODEL_INFER.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(answer_bytes))
    port = free_port()
    windows = ["-w30", "-W30"] if wide_windows else []
    trailer = ["--trailer", "grpc-status: 0"] if is_grpc else []
    command = [tool("nghttpd"), "--no-tls", "-a", "127.0.0.1", *windows, *trailer, "-d", str(root), str(port)]
    child = Child(command, scratch / "nghttpd.log")
    try:
        wait_until_listening(port, child)
        yield Limit(port, answer_bytes)
    finally:
        child.kill()
