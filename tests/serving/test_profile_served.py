"""A version is served whatever its profile is; one that is not for it is said, and not used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.backends.base import Signature
from gateway.monitoring.profile import now_utc
from gateway.monitoring.profilebuild import build
from gateway.monitoring.readers import open_reader
from gateway.monitoring.subject import opened
from gateway.serving.monitors import Watch
from tests.support import onnxmodels
from tests.support.gatewayprocess import GatewayProcess


def profiled(root: Path, model: str, content: bytes, settings: str = "backend: onnx") -> Path:
    folder = onnxmodels.store(root, model, 1, content, settings)
    with (root / "x.npz").open("wb") as file:
        np.savez(file, x=np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32))
    with opened(root, model, 1) as it:
        built = build(open_reader(root / "x.npz"), it.subject, it.monitoring, it.run, now_utc())
        (folder / "profile.json").write_bytes(built.profile.to_json())
    (root / "x.npz").unlink()
    return folder


def signature_of(root: Path, model: str) -> Signature:
    with opened(root, model, 1) as it:
        return it.subject.signature


def test_a_profile_counts_for_the_files_it_was_built_for_alone(tmp_path: Path) -> None:
    folder = profiled(tmp_path, "m", onnxmodels.linear())
    signature = signature_of(tmp_path, "m")
    watch = Watch.of(folder, signature, "m", "1")
    assert (watch.has_profile, watch.fault) == (True, "")
    onnxmodels.store(tmp_path, "m", 1, onnxmodels.linear().replace(b"graph", b"grapf"))
    watch = Watch.of(folder, signature, "m", "1")
    assert not watch.has_profile
    assert "it was built for other files of version 1; build it again: gateway profile build --model m" in watch.fault


@pytest.mark.parametrize("settings", ["", "monitoring: {enabled: false}"])
def test_a_profile_that_is_not_used_is_said_once_unless_nobody_wants_it(tmp_path: Path, settings: str) -> None:
    root = tmp_path / "models"
    profiled(root, "m", onnxmodels.linear())
    onnxmodels.store(root, "m", 1, onnxmodels.linear(4, 2), settings or "backend: onnx")
    with GatewayProcess(root, tmp_path / "gateway") as gateway:
        said = gateway.events("profile cannot be used, the version serves without drift monitoring")
        assert gateway.events("gateway ready")
    assert len(said) == (0 if settings else 1)
