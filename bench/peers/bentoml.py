"""BentoML over HTTP, adaptive batching on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench import environments, procfs
from bench.peers import peer as peers
from bench.peers.peer import Peer, Running, on_ports
from bench.peers.works import Work, write_repository
from bench.processes import free_port, wait_until_listening

APPS = Path(__file__).parent / "apps"


@contextmanager
def start(scratch: Path, works: tuple[Work, ...], *, workers: int = 1) -> Iterator[Running]:
    root = write_repository(scratch / "models", works)
    port = free_port()
    command = [str(environments.python("bentoml").with_name("bentoml")), "serve", "bentoml_app:Models"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    settings = {"REPOSITORY": str(root), "WORKERS": str(workers), "BENTOML_DO_NOT_TRACK": "true"}
    settings |= {"BENTOML_HOME": str(scratch / "home")}
    with peers.child(command, scratch / "bentoml.log", APPS, **settings) as started:
        wait_until_listening(port, started)
        yield Running(on_ports(works, rest=port), lambda: procfs.tree(started.process.pid))


PEER = Peer(
    name="bentoml",
    title="BentoML",
    protocols=("REST",),
    settings="adaptive batching (max_batch_size 128), no access log; images as JSON",
    link="https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html",
    version=lambda: peers.package_version("bentoml", "bentoml"),
    start=start,
    ask=peers.plain_request,
    read=lambda body: np.array(json.loads(body), np.float32),
    variants=({"workers": 1}, {"workers": 2}),
    environment="bentoml",
)
