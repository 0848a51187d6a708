"""A version folder appears whole or not at all, however the process that writes it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

FILES = ("model.onnx", "golden.npz", "reference.npz")
PROFILE = "profile.json"
"""Made from the others; where it alone is missing, they stay."""

Result = TypeVar("Result")


def is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def write_version(folder: Path, write: Callable[[Path], Result]) -> Result:
    """Let `write` fill a hidden folder beside `folder`, then put that in its place. Only under `locked`."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        result = write(partial)
        if folder.exists():  # incomplete, or we would not be here
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def write_file(path: Path, content: bytes) -> None:
    """The same for one small file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """One writer at a time: a second one waits, then finds the work done."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
