"""The baseline of a demo version: what its training data look like, and what it answers to them."""

from __future__ import annotations

from pathlib import Path

from gateway.monitoring.profile import now_utc
from gateway.monitoring.profilebuild import build
from gateway.monitoring.readers import open_reader
from gateway.monitoring.subject import opened


def profile(models: Path, model: str, version: int) -> bytes:
    """profile.json, from reference.npz beside the model."""
    with opened(models, model, version) as it:
        reader = open_reader(it.folder / "reference.npz")
        return build(reader, it.subject, it.monitoring, it.run, now_utc()).profile.to_json()
