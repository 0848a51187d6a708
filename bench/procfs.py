"""What Linux knows about the processes that are measured: who listens, memory, processor time."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LISTEN = "0A"


def listeners(port: int) -> list[int]:
    """Pids of the processes that listen on TCP `port`; empty when it is another machine's, or this is not Linux."""
    sockets = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (PROC / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{columns[9]}]")
    return sorted(int(folder.name) for folder in PROC.glob("[0-9]*") if sockets and _holds(folder, sockets))


def _holds(folder: Path, sockets: set[str]) -> bool:
    try:
        return any(os.readlink(fd) in sockets for fd in (folder / "fd").iterdir())
    except OSError:  # gone meanwhile, or another user's
        return False


def tree(root: int) -> list[int]:
    """A process and all that descend from it, as they live now."""
    children: dict[int, list[int]] = {}
    for file in PROC.glob("[0-9]*/stat"):
        try:
            parent = int(file.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # gone meanwhile
            continue
        children.setdefault(parent, []).append(int(file.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def rss_bytes(pids: list[int]) -> int:
    """Resident memory of all of them together."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # gone meanwhile
            pages += int((PROC / str(pid) / "statm").read_text().split()[1])
    return pages * _PAGE_BYTES


def pss_bytes(pids: list[int]) -> int:
    """Resident memory, a page that several share counted in parts."""
    total = 0
    for pid in pids:
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:  # gone meanwhile
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def reset_peak_rss(pids: list[int]) -> None:
    """From now on, peak_rss_bytes tells the peak since now."""
    for pid in pids:
        (PROC / str(pid) / "clear_refs").write_text("5")


def peak_rss_bytes(pids: list[int]) -> int:
    """Sum of each process's highest resident memory since reset_peak_rss."""
    total = 0
    for pid in pids:
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1]) * 1024
    return total


def cpu_s(pids: list[int]) -> float:
    """Processor time that their living threads have used so far, user and system."""
    total_ns = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # gone meanwhile
            for thread in (PROC / str(pid) / "task").iterdir():  # stat would count in ticks of 10 ms
                total_ns += int((thread / "schedstat").read_text().split()[0])
    return total_ns / 1e9
