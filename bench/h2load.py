"""Runs h2load and reads its report. Closed loop: a client sends its next request when an answer came.

h2load sees HTTP, not gRPC: an error answer is a 200 to it. Therefore the bytes of the answers are counted against the
size that the right answer has.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.payloads import MODEL_INFER

MAX_RUN_S = 120  # a run takes seconds; longer means that answers do not come
_CURE = "install it (Debian: apt-get install nghttp2-client nghttp2-server; Fedora: dnf install nghttp2)"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of h2load."""

    requests_per_s: float
    seconds: float
    requests: int
    succeeded: int
    answer_bytes: int  # payload of DATA frames, all answers together

    def check_statuses(self, who: str) -> None:
        """Raises BenchError unless every answer was a success: enough for REST, whose failures have a status."""
        if self.succeeded != self.requests:
            raise BenchError(f"{who}: {self.requests - self.succeeded} of {self.requests} requests failed in h2load")

    def check(self, who: str, answer_bytes: int) -> None:
        """Raises BenchError unless every request got an answer of `answer_bytes` (0.5 % of slack for ids in it)."""
        self.check_statuses(who)
        mean = self.answer_bytes / self.requests
        if abs(mean - answer_bytes) > max(0.005 * answer_bytes, 0.5):
            raise BenchError(f"{who}: answers of {mean:.1f} bytes on average, but the right one has {answer_bytes}")


def tool(name: str) -> str:
    """The path of h2load or nghttpd; raises BenchError with the cure."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise BenchError(f"{name} is not installed: {_CURE}")
    return path


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked: a path, its headers, and whether by HTTP/1.1."""

    path: str
    headers: tuple[str, ...]
    is_http1: bool = False


GRPC = Call(MODEL_INFER, ("content-type: application/grpc", "te: trailers"))


def rest(model: str, *headers: str) -> Call:
    """REST inference over HTTP/1.1; JSON unless `headers` say otherwise."""
    return Call(f"/v2/models/{model}/infer", headers or ("content-type: application/json",), is_http1=True)


def command(
    port: int,
    body: Path,
    connections: int,
    streams: int,
    *,
    requests: int | None = None,
    seconds: float | None = None,
    call: Call = GRPC,
) -> list[str]:
    """The argument list: one thread; `requests` in all or `seconds`."""
    amount = ["-n", str(requests)] if requests is not None else ["-D", str(seconds)]
    headers = [argument for header in call.headers for argument in ("-H", header)]
    protocol = ["--h1"] if call.is_http1 else []
    return [
        tool("h2load"), "-t1", *protocol, "-c", str(connections), "-m", str(streams), *amount, "-d", str(body),
        *headers, f"http://127.0.0.1:{port}{call.path}",
    ]  # fmt: skip


def run(port: int, body: Path, connections: int, streams: int, requests: int, call: Call = GRPC) -> Run:
    """Sends `requests` over `connections`, `streams` at a time on each; raises BenchError when it does not end."""
    arguments = command(port, body, connections, streams, requests=requests, call=call)
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=MAX_RUN_S, start_new_session=True)
    except subprocess.TimeoutExpired as late:
        raise BenchError(f"h2load {connections}x{streams} to port {port}: no end after {MAX_RUN_S} s") from late
    return parse(done.stdout + done.stderr)


def parse(report: str) -> Run:
    """Reads h2load's report; raises BenchError with its last lines when it has none."""
    finished = re.search(r"^finished in ([\d.]+)(us|ms|s|m)(?: *([\d.]+)s)?, ([\d.]+) req/s", report, re.M)
    counts = re.search(r"^requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded", report, re.M)
    traffic = re.search(r"^traffic: .*?\((\d+)\) data", report, re.M)
    if not (finished and counts and traffic):
        raise BenchError("h2load gave no report: " + " | ".join(report.strip().splitlines()[-4:]))
    scale = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[finished[2]]
    return Run(
        requests_per_s=float(finished[4]),
        seconds=float(finished[1]) * scale + float(finished[3] or 0),
        requests=int(counts[1]),
        succeeded=int(counts[2]),
        answer_bytes=int(traffic[1]),
    )
