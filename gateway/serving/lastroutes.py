"""The routes in force, in a file beside the worker: what a worker starts with, before or without the store.

All workers of one gateway share the file and write the same into it. It is replaced as a whole, so that a reader finds
the old one or the new one; a file that cannot be read is as good as none, and the log says so.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.observability import logs

FILE = "last-routes.json"


class KeptRoute(BaseModel):
    """One generation of a model's route, as the store has it."""

    model_config = ConfigDict(frozen=True)

    generation: int
    document: dict[str, Any]
    automatic: bool = False


class LastRoutes(BaseModel):
    """What a worker knew last."""

    model_config = ConfigDict(frozen=True)

    revision: int = 0
    routes: dict[str, KeptRoute] = {}
    wanted: frozenset[tuple[str, str]] = frozenset()
    """Versions (model, number) that were to be loaded beside what lies in the repository."""
    unwanted: frozenset[tuple[str, str]] = frozenset()
    """Versions that lie in the repository, or did, and are not to be loaded: retired, or unloaded after their last
    route was gone.
    """


def read(folder: Path | None) -> LastRoutes:
    """Empty when there is none."""
    if folder is None:
        return LastRoutes()
    path = folder / FILE
    try:
        return LastRoutes.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return LastRoutes()
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
        logs.get().error("the last routes cannot be read", path=str(path), error=reason)
        return LastRoutes()


def write(folder: Path | None, last: LastRoutes) -> None:
    """OSError when it cannot be written; then the file is as it was."""
    if folder is None:
        return
    path = folder / FILE
    content = orjson.dumps(
        {
            **last.model_dump(mode="json", exclude={"wanted", "unwanted"}),
            "wanted": sorted(last.wanted),
            "unwanted": sorted(last.unwanted),
        },
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
    )
    with contextlib.suppress(OSError):
        if path.read_bytes() == content:  # another worker was quicker
            return
    fresh = path.with_name(f"{FILE}.{os.getpid()}.fresh")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def are_current(last: LastRoutes, url: str) -> bool:
    """Whether an SQLite store has nothing newer, asked without what the store is made of: that takes a quarter of a
    second to import, and a start need not wait for it.
    """
    path = Path(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:") or not last.revision or not path.is_file():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)) as store:
            ((revision,),) = store.execute("SELECT revision FROM counters").fetchall()
    except (sqlite3.Error, ValueError):
        return False
    return bool(revision == last.revision)
