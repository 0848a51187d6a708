"""What a load request may say beside the model's name: another configuration, and files to load instead of the
repository's.

It is written into a folder of its own before any worker acts on it, because all workers must load the same, and so must
one that is started later:

    config.json         Triton's ModelConfig as JSON, as the caller wrote it
    files/<V>/<NAME>    when there are files: then these versions are the model, and the repository's are left out
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.errors import InvalidArgument, LoadError
from gateway.registry.repository import MODEL_FILE, ModelFolder, find, scan_model
from gateway.serving.held import Fingerprint, fingerprint
from gateway.serving.modelconfig import ConfigOverride
from gateway.serving.wording import quoted

CONFIG = "config"
FILE_PREFIX = "file:"

_CONFIG_FILE = "config.json"
_FILES = "files"
_FILE_KEY = re.compile(r"file:(?P<version>[1-9][0-9]{0,17})/(?P<name>[^/\0]+)", re.ASCII)

MAX_NAME_BYTES = 255
"""Of a file's name: no file system takes more."""

Parameters = Mapping[str, str | bytes | int | bool]
"""As a request has them; what came as base64 is bytes by now."""


@dataclass(frozen=True, slots=True)
class Override:
    """Checked as far as it can be without the model."""

    config: str
    files: Mapping[tuple[str, str], bytes]
    """Content by version and name."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model as it is to be served."""

    folder: ModelFolder
    fingerprints: Mapping[int, Fingerprint]
    """By version, of the moment when it was looked at."""
    override: ConfigOverride | None = None


def read(model: str, parameters: Parameters) -> Override | None:
    """From the parameters of a load request; None: there are none. InvalidArgument names the parameter."""
    config: str | None = None
    files: dict[tuple[str, str], bytes] = {}
    for key, value in parameters.items():
        if key == CONFIG:
            if not isinstance(value, str):
                raise InvalidArgument(f"parameter 'config': got {_kind(value)}, expected a ModelConfig as JSON text")
            ConfigOverride(model, value)  # for its refusals
            config = value
        elif key.startswith(FILE_PREFIX):
            match = _FILE_KEY.fullmatch(key)
            if not match or match["name"] in (".", "..") or len(match["name"].encode()) > MAX_NAME_BYTES:
                raise InvalidArgument(
                    f"parameter {quoted(key)}: expected file:<version>/<name>, such as {FILE_PREFIX}1/{MODEL_FILE}"
                )
            if not isinstance(value, bytes):
                raise InvalidArgument(f"parameter {quoted(key)}: got {_kind(value)}, expected the file's bytes")
            files[match["version"], match["name"]] = value
        else:
            raise InvalidArgument(
                f"parameter {quoted(key)} is unknown, expected config or {FILE_PREFIX}<version>/<name>"
            )
    if files and config is None:
        raise InvalidArgument("parameter 'config' is missing: files are loaded with it only; {} changes nothing")
    return None if config is None else Override(config, files)


def store(override: Override, scratch: Path | None) -> Path:
    """Write it into a new folder below `scratch` (None: the system's), private to this user; the folder."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    (folder / _CONFIG_FILE).write_text(override.config, encoding="utf-8")
    for (version, name), content in override.files.items():
        path = folder / _FILES / version / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def folder(models: Path, model: str, wish: Path | None) -> Wanted:
    """The model in the repository `models`, or as the folder `wish` of an override has it. NotFound, InvalidArgument;
    LoadError when the override is gone.
    """
    if wish is None:
        return _looked_at(find(models, model))
    try:
        config = ConfigOverride(model, (wish / _CONFIG_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadError(f"the override of model {quoted(model)} is gone ({error.strerror}); load it again") from None
    files = wish / _FILES  # versions only, so with them the configuration is the override alone
    found = replace(scan_model(files), name=model) if files.is_dir() else find(models, model)
    if found.config is not None:
        found = replace(found, config=config.apply(found.config))
    return _looked_at(found, config)


def _looked_at(found: ModelFolder, config: ConfigOverride | None = None) -> Wanted:
    return Wanted(found, {version.number: fingerprint(version.path) for version in found.versions}, config)


def _kind(value: object) -> str:
    return {str: "text", bytes: "bytes", bool: "true or false", int: "a number"}.get(type(value), type(value).__name__)
