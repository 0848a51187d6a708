"""LitServe over HTTP, batching on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench import environments, procfs
from bench.peers import peer as peers
from bench.peers.peer import Http, Peer, Running, on_ports
from bench.peers.works import Work, write_repository
from bench.processes import free_port, wait_until_listening

APPS = Path(__file__).parent / "apps"


@contextmanager
def start(scratch: Path, works: tuple[Work, ...], *, workers: int = 1, api_servers: int = 1) -> Iterator[Running]:
    root = write_repository(scratch / "models", works)
    port = free_port()
    command = [str(environments.python("litserve")), str(APPS / "litserve_app.py"), str(port), str(root)]
    with peers.child([*command, str(workers), str(api_servers)], scratch / "litserve.log", scratch) as started:
        wait_until_listening(port, started)
        yield Running(on_ports(works, rest=port), lambda: procfs.tree(started.process.pid))


def ask(work: Work, row: np.ndarray) -> Http:
    """Images as its examples send them, in base64."""
    if work.name != "image":
        return peers.plain_request(work, row)
    document = {"base64": base64.b64encode(row.tobytes()).decode(), "shape": row.shape}
    return Http(f"/{work.name}", json.dumps(document).encode())


PEER = Peer(
    name="litserve",
    title="LitServe",
    protocols=("REST",),
    settings="max_batch_size 64, batch_timeout 1 ms, fast_queue; images in base64",
    link="https://lightning.ai/docs/litserve/features/batching",
    version=lambda: peers.package_version("litserve", "litserve"),
    start=start,
    ask=ask,
    read=peers.plain_answer,
    variants=({"api_servers": 1}, {"api_servers": 2}, {"api_servers": 2, "workers": 2}),
    environment="litserve",
)
