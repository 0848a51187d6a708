"""Ray Serve over HTTP, serve.batch on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench import environments, procfs
from bench.errors import BenchError
from bench.peers import peer as peers
from bench.peers.peer import Http, Peer, Running, on_ports
from bench.peers.works import Work, write_repository
from bench.processes import free_port

APPS = Path(__file__).parent / "apps"
OPTIMIZED = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}
"""HAProxy in front of the replicas, instead of the proxy in Python: eight times as many requests."""
START_S = 120


@contextmanager
def start(scratch: Path, works: tuple[Work, ...], *, replicas: int = 1) -> Iterator[Running]:
    root = write_repository(scratch / "models", works)
    port = free_port()
    command = [str(environments.python("rayserve")), str(APPS / "rayserve_app.py"), str(port), str(root)]
    command += [str(scratch / "ray"), str(replicas)]
    settings = {**OPTIMIZED, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    log = scratch / "ray.log"
    with peers.child(command, log, scratch, **settings) as started:
        until_s = time.monotonic() + START_S
        while "everything is ready" not in log.read_text(errors="replace"):
            started.check_alive()
            if time.monotonic() > until_s:
                raise BenchError(f"Ray Serve is not ready after {START_S} s: {started.last_words()}")
            time.sleep(0.1)
        yield Running(on_ports(works, rest=port), lambda: procfs.tree(started.process.pid))


def ask(work: Work, row: np.ndarray) -> Http:
    if work.name == "image":
        return Http(f"/{work.name}", row.tobytes(), "application/octet-stream")
    return peers.plain_request(work, row)


PEER = Peer(
    name="rayserve",
    title="Ray Serve",
    protocols=("REST",),
    settings="RAY_SERVE_THROUGHPUT_OPTIMIZED=1, RAY_SERVE_ENABLE_HA_PROXY=1, serve.batch (64, no wait), no access log; "
    "images as plain bytes",
    link="https://docs.ray.io/en/latest/serve/advanced-guides/performance.html",
    version=lambda: peers.package_version("rayserve", "ray"),
    start=start,
    ask=ask,
    read=peers.plain_answer,
    variants=({"replicas": 1}, {"replicas": 2}),
    environment="rayserve",
)
