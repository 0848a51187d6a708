"""POSIX shared memory under names that nobody guesses, and what a killed worker left of it.

Its owner holds a lock on the file as long as it lives, in whatever container: who gets that lock has found a leftover.
A process id alone could be another's by now, or one of another namespace. The memory is there before it is used: a page
that the machine does not have would otherwise end the process by SIGBUS when it is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
import weakref
from pathlib import Path

SHM = Path("/dev/shm")
PREFIX = "gateway-triton-"


class Segment:
    """`name` for who opens it, without the slash. Its memory lives as long as somebody looks into it."""

    __slots__ = ("__weakref__", "_unlink", "memory", "name", "size")

    def __init__(self, size: int) -> None:
        """OSError: there is not so much."""
        self.size = size
        self.name, fd = _created()
        self._unlink = weakref.finalize(self, _unlink, SHM / self.name, fd)
        try:
            os.posix_fallocate(fd, 0, size)
            self.memory = mmap.mmap(fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except BaseException:
            self.unlink()
            raise

    def unlink(self) -> None:
        """Nobody can open it any more; who has it keeps it."""
        self._unlink()


def new_name() -> str:
    return f"{PREFIX}{os.getpid()}-{secrets.token_hex(16)}"


def is_left(name: str) -> bool:
    """Its owner is gone, or has let go of it. False: it lives, or nobody can tell."""
    try:
        fd = os.open(SHM / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def sweep() -> list[str]:
    """Unlinks what killed workers left here; their names."""
    swept = []
    with contextlib.suppress(OSError):
        for path in SHM.glob(f"{PREFIX}*"):
            if is_left(path.name):
                with contextlib.suppress(OSError):
                    path.unlink()
                    swept.append(path.name)
    return swept


def _created() -> tuple[str, int]:
    """A locked file. Who sweeps may have been quicker than the lock: then another."""
    while True:
        name = new_name()
        fd = os.open(SHM / name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return name, fd
        except BlockingIOError:
            (SHM / name).unlink(missing_ok=True)
        os.close(fd)


def _unlink(path: Path, fd: int) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(fd)
