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
WORKERS, SERVERS = 1, 1


@contextmanager
def start(scratch: Path, works: tuple[Work, ...]) -> Iterator[Running]:
    root = write_repository(scratch / "models", works)
    port = free_port()
    command = [str(environments.python("litserve")), str(APPS / "litserve_app.py"), str(port), str(root)]
    with peers.child([*command, str(WORKERS), str(SERVERS)], scratch / "litserve.log", scratch) as started:
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
    settings=f"max_batch_size 64, batch_timeout 1 ms, fast_queue, {WORKERS} worker for each model, "
    f"{SERVERS} API server; images in base64",
    link="https://lightning.ai/docs/litserve/features/batching",
    version=lambda: peers.package_version("litserve", "litserve"),
    start=start,
    ask=ask,
    read=peers.plain_answer,
    environment="litserve",
)
