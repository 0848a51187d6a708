"""Which backend runs a version: the one of model.yaml, or Triton where the version's own folder says so.

Neither is imported before a version needs it: ONNX Runtime and gRPC are tens of megabytes each.
"""

from __future__ import annotations

from pathlib import Path

from gateway.backends.base import Backend
from gateway.config import triton as triton_file
from gateway.config.model import ModelConfig
from gateway.errors import LoadError


def runs_on_triton(path: Path, config: ModelConfig) -> bool:
    """The version in folder `path`."""
    return config.backend == "triton" or (path / triton_file.FILE_NAME).is_file()


def load(path: Path, config: ModelConfig, threads: int, *, model: str, version: str) -> Backend:
    """Open it; it still has to warm up. LoadError: one line that names the file or setting and the cure."""
    if runs_on_triton(path, config):
        from gateway.backends.triton import backend as triton

        return triton.load(path, config, model=model, version=version)
    if config.batching.by == "remote":
        raise LoadError(
            f"{path}: batching is remote, and it runs in this process; expected {path / triton_file.FILE_NAME}, or "
            "backend: triton in model.yaml"
        )
    from gateway.backends import onnx

    return onnx.load(path, config, threads, model=model, version=version)
