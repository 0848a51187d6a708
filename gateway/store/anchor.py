"""What is kept beside the store, where who can write the database may not reach: the key, and the last head.

The head is one line, COUNT:HASH, replaced after each entry was committed. It only moves forward, and only from a head
that the table still holds: once somebody has tampered, it stays where it is, and `verify` goes on saying so.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import ConfigError, InvalidArgument
from gateway.observability import logs
from gateway.store.chain import Head

HEAD_FILE = "audit-head"
KEY_FILE = "audit.key"
_LOCK_FILE = "audit-head.lock"
_KEY_BYTES = 32


class Anchor:
    """The two files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / HEAD_FILE
        self._key_path = folder / KEY_FILE

    def create(self, head: Head, *, is_shared: bool) -> None:
        """What is there already stays. `head` is the table's now. A key only beside a store with one home and no
        entry yet: where several machines write, the same one must be put beside each.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if not is_shared and not head.count and not self._key_path.exists():
                _write(self._key_path, secrets.token_hex(_KEY_BYTES) + "\n", 0o600)
            if (is_shared or not head.count) and not self.path.exists():
                _write(self.path, f"{head}\n", 0o644)

    def key(self) -> bytes | None:
        """None when there is none. ConfigError when there is one that cannot be used."""
        try:
            text = self._key_path.read_text("ascii").strip()
            if self._key_path.stat().st_mode & 0o077:
                cure = f"chmod 600 {self._key_path}"
                logs.get().warning("audit key is open to others", file=str(self._key_path), cure=cure)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._key_path}: cannot be read: {error}; the audit log is signed with it") from None
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise ConfigError(
                f"{self._key_path}: got {len(text)} characters, expected {2 * _KEY_BYTES} hexadecimal digits"
            )
        return key

    def read(self) -> Head | None:
        """None: there is no such file. InvalidArgument: there is one, and it holds no head."""
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{self.path}: cannot be read: {error}") from None
        try:
            return Head.parse(text)
        except InvalidArgument as error:
            raise InvalidArgument(f"{self.path}: {error}") from None

    def advance(self, to: Head, holds: Callable[[Head], bool]) -> str | None:
        """Note `to`. `holds` says whether the table has that head in its chain. Why it was not noted, or None."""
        try:
            with self._locked():
                noted = self.read()
                if noted is None:
                    return f"{self.path} is missing: put it back from a backup, or write {to} into it"
                if noted.count >= to.count:
                    return None  # somebody who committed later was quicker
                if not holds(noted):
                    return f"{self.path} knows of {noted}, which the table does not hold: see `gateway audit verify`"
                _write(self.path, f"{to}\n", 0o644)
        except InvalidArgument as error:
            return str(error)
        except OSError as error:
            return f"{self.path}: cannot be written: {error.strerror}"
        return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _write(path: Path, text: str, mode: int) -> None:
    """All or nothing, also when the power fails."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.fresh")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            if os.write(descriptor, text.encode()) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
