"""Results as files, with the stamp of the machine and the code they belong to, and the search for the last one."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.figure import Figure

FOLDER = Path(__file__).parent / "results"
_SAME = ("cpu", "cores", "mode", "subject")  # else two results say nothing about each other
_REPOSITORY = Path(__file__).parent.parent


def stamp(mode: str, subject: str) -> dict[str, Any]:
    """Where, when and of what (`gateway` or somebody's `target`): what a figure depends on and can be asked."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "mode": mode,
        "subject": subject,
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "commit": _git("rev-parse", "--short", "HEAD") or "nocommit",
        "dirty": bool(_git("status", "--porcelain", "--", ":!bench/results", ":!bench/peers/results")),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "onnxruntime": _version("onnxruntime") or _version("onnxruntime-gpu"),
        "numpy": _version("numpy"),
        "uvloop": _version("uvloop"),
        "h2load": _h2load_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """As JSON, in a folder that need not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def dated(stamped: dict[str, Any], folder: Path = FOLDER) -> Path:
    """<utc-date>-<commit>[-quick].json"""
    date = re.sub(r"[-:]", "", stamped["date"])
    suffix = "" if stamped["mode"] == "full" else f"-{stamped['mode']}"
    return folder / f"{date}-{stamped['commit']}{suffix}.json"


def save(stamped: dict[str, Any], figures: list[Figure], problems: dict[str, str], folder: Path = FOLDER) -> Path:
    """Returns its path."""
    path = dated(stamped, folder)
    write(path, document(stamped, figures, problems))
    return path


def document(stamped: dict[str, Any], figures: list[Figure], problems: dict[str, str]) -> dict[str, Any]:
    """The whole result as plain data."""
    return {"stamp": stamped, "figures": [figure.as_dict() for figure in figures], "not_measured": problems}


def last_records(stamped: dict[str, Any], folder: Path = FOLDER) -> dict[tuple[str, str], dict[str, Any]]:
    """For every figure its newest record, with its stamp, of the same processor, cores, mode and subject."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text())
            theirs = result["stamp"]
            if any(theirs[key] != stamped[key] for key in _SAME):
                continue
            for record in result["figures"]:
                found[record["bench"], record["name"]] = record | {"stamp": theirs}
        except (ValueError, KeyError, TypeError):
            print(f"bench: {path} is not a result of this benchmark; ignored", file=sys.stderr)
    return found


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(_REPOSITORY), *arguments], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _h2load_version() -> str | None:
    try:
        return subprocess.run(["h2load", "--version"], capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
