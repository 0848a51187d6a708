"""What lies in a model repository: DIR/<model>/<version>/model.onnx, as Triton's, and an optional model.yaml.

Scanning opens no model. One model's fault is that model's reason, never the repository's: the others serve.
What is left out is told in notes, because a folder that is silently ignored costs an operator an hour.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from gateway.config.files import shown
from gateway.config.model import FILE_NAME, ModelConfig, load_model_config
from gateway.errors import ConfigError, NotFound

MODEL_FILE = "model.onnx"

# Fits int64; no leading zeros, or "1" and "01" would be one version.
_VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VersionFolder:
    """One version's folder; whether a model file lies in it is found at load."""

    number: int
    path: Path


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model. `error` makes all its versions UNAVAILABLE, and then `config` is None."""

    name: str
    path: Path
    config: ModelConfig | None
    error: str | None
    versions: tuple[VersionFolder, ...]
    notes: tuple[str, ...] = ()

    @property
    def left_out(self) -> str:
        """What lies in it and is served under no version, in words; empty when nothing does."""
        return self.error or "" if not self.versions else "; ".join(self.notes)


def scan(root: Path, *, may_be_empty: bool = False) -> list[ModelFolder]:
    """Models by name, versions by number. ConfigError when `root` is missing, unreadable or, unless it may, holds no
    model folder.
    """
    layout = f"expected {root}/<model>/<version>/{MODEL_FILE}"
    if not root.exists():
        raise ConfigError(f"models directory {root} does not exist; {layout}")
    if not root.is_dir():
        raise ConfigError(f"models directory {root} is a file; {layout}")
    folders, notes = [], []
    for path in _entries(root):
        if not path.name.isprintable():
            notes.append(f"{path.name!r} is ignored: a model's name is printable text")
        elif path.is_dir():
            folders.append(scan_model(path))
        else:
            notes.append(f"{path.name} is ignored: not a folder")
    for note in notes:
        _log.warning("%s: %s; %s", root, note, layout)
    if not folders and not may_be_empty:
        raise ConfigError(f"models directory {root} has no model in it; {layout}")
    return folders


def find(root: Path, name: str) -> ModelFolder:
    """One model as it lies in `root` now. NotFound: no folder of that name, or a name that can be no model's."""
    path = root / name
    # A name comes from a caller: it must not lead out of the repository.
    if not name.isprintable() or "/" in name or name.startswith(".") or not name or not _is_folder(path):
        raise NotFound(f"model {shown(name)}: no such folder in the model repository {root}")
    return scan_model(path)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name longer than a file's may be
        return False


def scan_model(path: Path) -> ModelFolder:
    """The folder of one model; its name is the folder's."""
    versions: list[VersionFolder] = []
    notes: list[str] = []
    config, error = None, None
    try:
        for entry in _entries(path):
            if _VERSION.fullmatch(entry.name) and entry.is_dir():
                versions.append(VersionFolder(int(entry.name), entry))
            elif entry.is_dir() or (entry.is_symlink() and entry.name != FILE_NAME):
                notes.append(f"{entry} is ignored: a version's folder is a positive whole number such as 1")
            elif entry.suffix == ".onnx":
                notes.append(f"{entry} is ignored: move it to {path / '1' / MODEL_FILE}")
        config = load_model_config(path)
    except ConfigError as fault:
        error = "; ".join(str(fault).splitlines())
    if error is None and not versions:
        config, error = None, "; ".join((f"{path} has no version, expected {path / '1' / MODEL_FILE}", *notes))
    versions.sort(key=lambda version: version.number)
    return ModelFolder(path.name, path, config, error, tuple(versions), tuple(notes))


def _entries(folder: Path) -> list[Path]:
    """Sorted, without hidden ones (.git, .ipynb_checkpoints)."""
    try:
        return sorted(folder / entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read: {error.strerror}") from None
