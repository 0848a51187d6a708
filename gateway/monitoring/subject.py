"""The version that a profile is built for, out of the model repository: its signature, its digest and how to ask it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.config.monitoring import Monitoring
from gateway.errors import ConfigError
from gateway.monitoring.answers import Run
from gateway.monitoring.profilebuild import Subject
from gateway.registry import repository
from gateway.registry.digest import digest_folder


@dataclass(frozen=True, slots=True)
class Opened:
    subject: Subject
    folder: Path
    monitoring: Monitoring
    run: Run


@contextmanager
def opened(models: Path, model: str, version: int | None) -> Iterator[Opened]:
    """The version, the highest for None. NotFound, ConfigError or LoadError name what is missing or wrong."""
    from gateway.backends.choice import load

    found = repository.find(models, model)
    if found.config is None:
        raise ConfigError(found.error or f"{found.path}: cannot be read")
    if not found.versions:
        raise ConfigError(f"{found.path}: has no version")
    folders = {each.number: each.path for each in found.versions}
    number = max(folders) if version is None else version
    if number not in folders:
        raise ConfigError(f"--version: {model} has no version {number}; there is {', '.join(map(str, folders))}")
    backend = load(folders[number], found.config, 0, model=model, version=str(number))
    try:
        subject = Subject(model, str(number), digest_folder(folders[number]), backend.signature)
        yield Opened(subject, folders[number], found.config.monitoring, backend.run)
    finally:
        backend.close()
