"""A PostgreSQL of the tests' own, in a temporary folder and behind a socket file: no port, no network, no service."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import psycopg

from tests.support.conditions import eventually

START_S = 30.0
_USER = "postgres"
"""Of the database. As root, the server runs as `nobody`, whom every machine has."""


class Postgres:
    """Running when the constructor returns. As root it runs as another user, because it refuses root."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))  # not pytest's: the path of a socket holds 107 bytes
        self._data = self.folder / "data"
        self._log = self.folder / "log"
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        initdb = ["initdb", "-D", str(self._data), "-U", _USER, "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]
        done = self._run(*initdb)
        assert done.returncode == 0, done.stderr.decode()
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}@/postgres?host={self.folder}"

    def new_database(self) -> str:
        """URL of an empty one; in truth a schema, which is quicker by far."""
        name = f"test{next(self._numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.url}&options=-csearch_path%3D{name}"

    def start(self) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "60",
            "autovacuum": "off",
        }
        command = [_found("postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_somebody(), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        eventually(self._answers, "PostgreSQL answers", START_S)

    def kill(self) -> None:
        """SIGKILL, as the machine does it when memory runs out; its children end themselves."""
        assert self._process is not None
        children = self._children()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "its children are gone")

    def freeze(self) -> None:
        """It keeps its connections and answers none, like a machine that hangs."""
        assert self._process is not None
        for pid in (self._process.pid, *self._children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        for pid in (self._process.pid, *self._children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.send_signal(signal.SIGQUIT)  # no last checkpoint: nobody reads it again
            self._process.wait(START_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _children(self) -> list[int]:
        assert self._process is not None
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*_as_somebody(), _found(program), *arguments], capture_output=True, cwd=self.folder, timeout=START_S
        )


def _as_somebody() -> list[str]:
    """It ends with us, also when we are killed."""
    command = ["setpriv", "--pdeathsig=QUIT"]
    if os.getuid() == 0:
        user = pwd.getpwnam("nobody")
        command += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return command


def _found(program: str) -> str:
    """Debian keeps it out of PATH, one folder for each version."""
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True)
    found = shutil.which(program) or next(map(str, candidates), None)
    assert found, f"{program} is not installed: tools/setup-system test"
    return found
