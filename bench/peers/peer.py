"""What a peer is: how it is started and asked, and what a person must know to judge whether it was treated fairly."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from bench import environments, payloads, procfs
from bench.errors import NotMeasured
from bench.peers.works import Work
from bench.processes import Child
from gateway.loadtest.measure import INFER_PATH

Protocol = Literal["gRPC", "REST"]


@dataclass(frozen=True, slots=True)
class Http:
    """A REST request."""

    path: str
    body: bytes
    content_type: str = "application/json"
    headers: tuple[str, ...] = ()

    def whole(self, port: int) -> bytes:
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *self.headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that serves. `ports`: of each protocol and work."""

    ports: Mapping[tuple[Protocol, str], int]
    pids: Callable[[], list[int]]
    """All its processes, now."""


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    title: str
    protocols: tuple[Protocol, ...]
    settings: str
    """For a person: what was set, what was tried."""
    link: str
    """The page of its documentation that the settings follow."""
    version: Callable[[], str]
    start: Callable[..., AbstractContextManager[Running]]
    """start(scratch folder, works, **variant)"""
    ask: Callable[[Work, np.ndarray], Http] = field(default=lambda work, row: oip_request(work, row))
    """One row by REST."""
    read: Callable[[bytes], np.ndarray] = field(default=lambda body: oip_answer(body))
    """The answer in a REST body; ValueError, KeyError: it is none."""
    grpc_path: bytes = INFER_PATH
    runs_models: bool = True
    """False: a ceiling, which answers all alike. Only the number of its answers is checked."""
    variants: tuple[dict[str, int], ...] = field(default=({},))
    """Settings that its documentation leaves to a trial: the quickest of them on this machine is measured."""
    environment: str = ""
    """In bench.environments."""
    works: tuple[str, ...] = ("small", "large", "image", "text")

    def install(self) -> None:
        if self.environment:
            environments.make(self.environment)


def oip_request(work: Work, row: np.ndarray, *, has_binary: bool = True) -> Http:
    """The Open Inference Protocol: JSON, and binary for images where the server has the extension."""
    path, inputs = f"/v2/models/{work.name}/infer", {"input": row}
    if work.name != "image" or not has_binary:
        return Http(path, payloads.rest_json(inputs))
    body, n_json = payloads.rest_binary(inputs)
    return Http(path, body, "application/octet-stream", (f"Inference-Header-Content-Length: {n_json}",))


def oip_answer(body: bytes) -> np.ndarray:
    """The first output, JSON or binary."""
    document, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    output = document["outputs"][0]
    data = output["data"] if "data" in output else np.frombuffer(body[end:], np.float32)
    return np.array(data, np.float32).reshape(output["shape"])


def plain_request(work: Work, row: np.ndarray) -> Http:
    """For servers without a protocol of their own: {"input": rows} to the path of the model."""
    return Http(f"/{work.name}", json.dumps({"input": payloads.listed(row)}).encode())


def plain_answer(body: bytes) -> np.ndarray:
    return np.array(json.loads(body)["output"], np.float32)


def on_ports(works: tuple[Work, ...], **ports: int) -> dict[tuple[Protocol, str], int]:
    """The same port for every work."""
    found: dict[tuple[Protocol, str], int] = {}
    for work in works:
        if "grpc" in ports:
            found["gRPC", work.name] = ports["grpc"]
        if "rest" in ports:
            found["REST", work.name] = ports["rest"]
    return found


@contextmanager
def child(command: list[str], log: Path, folder: Path, **environment: str) -> Iterator[Child]:
    """A command in `folder`; in the end it and all that descend from it are killed, new sessions too."""
    settings = [f"{name}={value}" for name, value in environment.items()]
    started = Child(["env", "-C", str(folder), "-u", "PYTHONPATH", *settings, *command], log)
    try:
        yield started
    finally:
        family = procfs.tree(started.process.pid)
        started.kill()
        for pid in family[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def package_version(environment: str, package: str) -> str:
    """Of an installed package; "not installed" when its environment was never made."""
    try:
        python = environments.python(environment)
    except NotMeasured:
        return "not installed"
    for found in python.parent.parent.glob(f"lib/python*/site-packages/{package.replace('-', '_')}-*.dist-info"):
        return f"{package} {found.name.removesuffix('.dist-info').rpartition('-')[2]}"
    return "not installed"
