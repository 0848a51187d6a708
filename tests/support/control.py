"""A model repository that changes while it is served, and an unmodified Triton client to tell the server so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.support.onnxmodels import build, node, tensor

ROW = np.ones((1, 4), np.float32)


def times(factor: float, width: int | str = 4) -> bytes:
    """y = factor * x, so that an answer tells which model gave it."""
    return build(
        [node("Mul", ["x", "factor"], ["y"])],
        [tensor("x", shape=("N", width))],
        [tensor("y", shape=("N", width))],
        {"factor": np.float32(factor)},
    )


def heavy(mebibytes: int, seed: int = 0) -> bytes:
    """y = x + w, with a weight of that size."""
    weight = np.random.default_rng(seed).standard_normal((1, mebibytes * 2**18), np.float32)
    return build(
        [node("Add", ["x", "w"], ["sum"]), node("ReduceSum", ["sum", "axes"], ["y"], keepdims=1)],
        [tensor("x", shape=("N", 1))],
        [tensor("y", shape=("N", 1))],
        {"w": weight, "axes": np.array([1], np.int64)},
    )


def put(root: Path, model: str, version: int, content: bytes, settings: str | None = None) -> None:
    """As `store`, but as careful people replace a file that is served: a new one, moved over the old."""
    folder = root / model / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fresh").write_bytes(content)
    (folder / "fresh").replace(folder / "model.onnx")
    if settings is not None:
        (root / model / "model.yaml").write_text(settings)


def remove(root: Path, model: str, version: int | None = None) -> None:
    shutil.rmtree(root / model if version is None else root / model / str(version))


def ask(client: triton.InferenceServerClient, model: str, version: str = "") -> float:
    """The factor of the model that answers."""
    x = triton.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(ROW)
    (factor,) = set(client.infer(model, [x], version).as_numpy("y").ravel().tolist())
    return float(factor)


def index(client: triton.InferenceServerClient, model: str) -> dict[str, tuple[str, str]]:
    """(state, reason) by version."""
    models = client.get_model_repository_index().models
    return {entry.version: (entry.state, entry.reason) for entry in models if entry.name == model}


def refusal(call: Any, *arguments: Any, **wishes: Any) -> tuple[str, str]:
    """Code and text of a call that must fail."""
    try:
        call(*arguments, **wishes)
    except InferenceServerException as error:
        return str(error.status()).removeprefix("StatusCode."), str(error.message())
    raise AssertionError("it was not refused")


@contextmanager
def connections(url: str, n: int = 12) -> Iterator[list[triton.InferenceServerClient]]:
    """Clients on connections of their own: with several workers, enough to meet all of them."""
    clients = []
    try:
        for number in range(n):
            # Equal channels share a connection.
            options = [("grpc.use_local_subchannel_pool", 1), ("test.number", number)]
            clients.append(triton.InferenceServerClient(url, channel_args=options))
        yield clients
    finally:
        for client in clients:
            client.close()
