"""The limit of HTTP/2 itself: nghttpd answers each request with a file of the right answer's size."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.h2load import tool
from bench.peers.limit import limit
from bench.peers.peer import Peer, Running
from bench.peers.works import Work

ANSWER_BYTES = 80
"""Of a ModelInferResponse with one output and one row of it, framed; forty more do not show."""


@contextmanager
def start(scratch: Path, works: tuple[Work, ...]) -> Iterator[Running]:
    with ExitStack() as stack:
        wide = any(work.name == "image" for work in works)
        served = stack.enter_context(limit(scratch, ANSWER_BYTES, wide_windows=wide, is_grpc=True))
        yield Running({("gRPC", work.name): served.port for work in works}, served.pids)


PEER = Peer(
    name="limit",
    title="limit of HTTP/2: nghttpd, no model",
    protocols=("gRPC",),
    settings="one thread; a file of the answer's size, with the trailer grpc-status: 0; windows of 1 GB",
    link="https://nghttp2.org/documentation/nghttpd.1.html",
    version=lambda: subprocess.run([tool("nghttpd"), "--version"], capture_output=True, text=True).stdout.strip(),
    start=start,
    runs_models=False,
)
