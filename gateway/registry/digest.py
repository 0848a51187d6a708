"""What a version is, as one number: the SHA-256 of its folder's files, names and contents.

It is the digest of what `sha256sum` prints of them, sorted by name, so that anybody can check it without the gateway.
For a folder with nothing but the model in it:

    find . -type f | sed 's|^./||' | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 sha256sum | sha256sum

Of a version that other servers run it is the digest of its triton.yaml, or, without a file, of its name there: what
they have under that name, nobody can vouch for.

Left out is what says something about the model and is no part of it: see ABOUT.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from gateway.config.model import load_model_config
from gateway.errors import ConfigError, LoadError

ABOUT = frozenset({"version.yaml", "golden.npz", "profile.json"})
"""A card is corrected, examples and a baseline are added later: the same model with more known of it."""
_CHUNK_BYTES = 1 << 20
_ATTEMPTS = 3
"""A file that is still being copied changes under the reader: it is read again, then refused."""


def digest_folder(folder: Path) -> str:
    """ "sha256:<hex>" of a version's folder. LoadError when something in it cannot be read or is no file.

    Hidden files are left out, links are followed. It reads every byte: in a thread, please, for large models.
    """
    lines = []
    for name in _names(folder):
        lines.append(f"{_digest_file(folder / name)}  {name}\n")
    if not lines and (name := _elsewhere(folder)):
        lines = [name]
    if not lines:
        raise LoadError(f"{folder}: has no file of a model in it")
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _elsewhere(folder: Path) -> str:
    """What other servers call a version that has no file of its own because they run it; "" when nobody does."""
    try:
        config = load_model_config(folder.parent)
    except ConfigError:
        return ""
    if config.backend != "triton":
        return ""
    version = folder.name if config.triton.version is None else config.triton.version
    return f"triton {config.triton.model or folder.parent.name} {version}\n"


def _names(folder: Path) -> list[str]:
    """Relative, with /, sorted by their bytes."""
    names = []
    visited: set[tuple[int, int]] = set()
    try:
        for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in visited:
                raise LoadError(f"{parent}: is a link to a folder that contains it")
            visited.add((status.st_dev, status.st_ino))
            folders[:] = [name for name in folders if not name.startswith(".")]
            is_top = Path(parent) == folder
            for name in files:
                if name.startswith(".") or (is_top and name in ABOUT):
                    continue
                relative = os.path.relpath(os.path.join(parent, name), folder)
                if not relative.isprintable():
                    raise LoadError(f"{folder}: {relative!r}: the name of a file must be printable text")
                names.append(relative)
    except OSError as error:
        raise LoadError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return sorted(names, key=os.fsencode)


def _digest_file(path: Path) -> str:
    for _ in range(_ATTEMPTS):
        try:
            if not path.is_file():
                raise LoadError(f"{path}: is no file, or a link to nowhere")
            with path.open("rb", buffering=0) as file:
                before = _state(os.fstat(file.fileno()))
                total = hashlib.sha256()
                while chunk := file.read(_CHUNK_BYTES):
                    total.update(chunk)
                if _state(os.fstat(file.fileno())) == before == _state(path.stat()):
                    return total.hexdigest()
        except OSError as error:
            raise LoadError(f"{path}: cannot be read: {error.strerror}") from None
    raise LoadError(f"{path}: changed while it was read; put it there under another name and move it, when it is whole")


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _raise(error: OSError) -> None:
    raise error
