"""One database behind an SQLAlchemy engine: how it is opened, what a transaction is, and what its errors mean here.

Whatever the driver raises becomes StoreUnavailable, within a second or two: a worker must go on serving, not hang.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from gateway.errors import ConfigError, InvalidArgument
from gateway.store import schema
from gateway.store.records import StoreUnavailable

CHANNEL = "gateway_change"
"""NOTIFY of each change that workers must see."""
LOCK_PATIENCE_MS = 1500
"""For somebody else's transaction, which takes milliseconds when all is well."""
STATEMENT_PATIENCE_MS = 2000
ANSWER_PATIENCE_S = 2.5
"""Longer than the server's own limits above: only a server that hangs, or a network that swallows, gets here."""
CONNECT_PATIENCE_S = 2
POLL_S = 0.02
"""How often a waiting worker asks an SQLite file whether it changed: a read of one page in memory."""

CHECK_FILE_S = 0.2
"""How often it looks whether the file is still the same one."""

READ, WRITE, DURABLE, LOOSE = "read", "write", "durable", "loose"
_MODE = "gateway_mode"


@dataclass(slots=True)
class _Watch:
    """A connection kept for waiting, and what it last saw: as long as its token is the same, so is the revision."""

    connection: sa.Connection
    driver: Any
    inode: int
    token: int = -1
    revision: int = -1


class Database:
    """An engine, and its kind. Any thread; not across a fork."""

    def __init__(self, url: str) -> None:
        self.url = _parsed(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.file = Path(self.url.database or "") if self.is_sqlite else None
        self.name = str(self.file) if self.file else self.url.render_as_string(hide_password=True)
        """For people."""
        self._inode = 0
        self._watches: deque[_Watch] = deque()
        arguments: dict[str, Any]
        if self.is_sqlite:
            arguments = {"timeout": LOCK_PATIENCE_MS / 1000, "isolation_level": None}  # BEGIN is said below
        else:
            wishes = self.url.query.get("options", "")
            patience = f"-c statement_timeout={STATEMENT_PATIENCE_MS} -c lock_timeout={LOCK_PATIENCE_MS}"
            arguments = {
                "connect_timeout": CONNECT_PATIENCE_S,
                "tcp_user_timeout": CONNECT_PATIENCE_S * 1000,
                "options": f"{wishes if isinstance(wishes, str) else ' '.join(wishes)} {patience}".strip(),
                "application_name": "gateway",
            }
        self.engine = sa.create_engine(
            self.url, connect_args=arguments, pool_pre_ping=not self.is_sqlite, pool_timeout=CONNECT_PATIENCE_S
        )
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
        else:
            event.listen(self.engine, "do_connect", _connect_postgresql)
        event.listen(self.engine, "begin", self._begin)

    def remember_file(self) -> None:
        """The file as it is now is the store: another one in its place is noticed."""
        if self.file:
            self._inode = self.file.stat().st_ino

    @contextlib.contextmanager
    def connect(self, mode: str) -> Iterator[sa.Connection]:
        """One transaction; committed unless the block raises. READ sees one state; DURABLE is on disk when it
        returns; WRITE may be lost when the power fails; LOOSE is none: each statement alone.
        """
        with self._reported():
            self._check_file()
            with self.engine.connect() as connection:
                connection = self._in_mode(connection, mode)
                yield connection
                connection.commit()

    def lock_counters(self, connection: sa.Connection) -> sa.Row[Any]:
        """The one row of counters; until the end of the transaction nobody else changes anything audited."""
        return connection.execute(sa.select(schema.counters).with_for_update()).one()

    def now(self, connection: sa.Connection) -> float:
        """The store's own clock: on several machines there is only one of it."""
        if self.is_sqlite:
            return time.time()
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def revision(self, connection: sa.Connection) -> int:
        return int(connection.execute(sa.select(schema.counters.c.revision)).scalar_one())

    def wait(self, seen: int, timeout_s: float) -> int:
        """The revision as soon as it is another one than `seen`; `seen` after the timeout."""
        deadline_s = time.monotonic() + timeout_s
        with self._reported():
            self._check_file()
            watch = self._watch()
            try:
                while True:
                    token = self._token(watch)  # before the revision: a change in between must not be missed
                    if token != watch.token:
                        watch.token, watch.revision = token, self.revision(watch.connection)
                    if watch.revision != seen or time.monotonic() >= deadline_s:
                        break
                    self._sleep(watch, deadline_s)
            except BaseException:
                watch.connection.invalidate()
                watch.connection.close()
                self._forget_watches()  # they are no better
                raise
            if watch.inode == self._inode:
                self._watches.append(watch)
            else:  # meanwhile another file took its place
                watch.connection.invalidate()
                watch.connection.close()
        return watch.revision

    def dispose(self) -> None:
        self._forget_watches()
        self.engine.dispose()

    def _forget_watches(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                connection = self._watches.pop().connection
                with contextlib.suppress(exc.SQLAlchemyError):
                    connection.invalidate()
                    connection.close()

    def _in_mode(self, connection: sa.Connection, mode: str) -> sa.Connection:
        options: dict[str, Any] = {_MODE: mode}
        if not self.is_sqlite:
            options["isolation_level"] = {READ: "REPEATABLE READ", LOOSE: "AUTOCOMMIT"}.get(mode, "READ COMMITTED")
        return connection.execution_options(**options)

    def _begin(self, connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get(_MODE, DURABLE)
        if not self.is_sqlite:
            if mode == WRITE:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        elif mode == READ:
            connection.exec_driver_sql("BEGIN")
        elif mode != LOOSE:
            connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if mode == DURABLE else 'NORMAL'}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # a lock taken later may fail without waiting

    def _watch(self) -> _Watch:
        """One that waits no more, or a new one."""
        with contextlib.suppress(IndexError):
            return self._watches.pop()
        connection = self._in_mode(self.engine.connect(), LOOSE)
        if not self.is_sqlite:
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
        return _Watch(connection, connection.connection.driver_connection, self._inode)

    def _token(self, watch: _Watch) -> int:
        """Another one when something may have been committed."""
        if not self.is_sqlite:
            return watch.token + 1
        return int(watch.driver.execute("PRAGMA data_version").fetchone()[0])  # past SQLAlchemy: fifty times a second

    def _sleep(self, watch: _Watch, deadline_s: float) -> None:
        """Until something was committed, or the deadline."""
        if not self.is_sqlite:
            for _ in watch.driver.notifies(timeout=max(0.0, deadline_s - time.monotonic()), stop_after=1):
                pass
            return
        check_s = time.monotonic() + CHECK_FILE_S
        while (left_s := deadline_s - (now_s := time.monotonic())) > 0:
            time.sleep(min(POLL_S, left_s))
            if now_s > check_s:
                self._check_file()
                check_s = now_s + CHECK_FILE_S
            if self._token(watch) != watch.token:
                return

    def _check_file(self) -> None:
        """SQLite would go on, unseen by anybody, in a file that was deleted or moved away."""
        if not self.file or not self._inode:
            return
        try:
            inode = os.stat(self.name).st_ino
        except OSError as error:
            raise StoreUnavailable(f"store {self.name}: {str(error.strerror).lower()}; put the file back") from None
        if inode != self._inode:
            self.dispose()
            self._inode = inode

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except exc.DataError as error:
            raise InvalidArgument(f"store {self.name}: cannot hold this: {_text(error)}") from None
        except exc.IntegrityError:
            raise  # our mistake: no caller can do anything about it
        except (exc.DBAPIError, exc.TimeoutError, exc.NoResultFound) as error:
            raise StoreUnavailable(f"store {self.name}: {_text(error)}") from error
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("psycopg", "sqlite3"):  # raised past SQLAlchemy: a wait
                raise
            raise StoreUnavailable(f"store {self.name}: {_text(error)}") from error


def _parsed(url: str) -> sa.URL:
    """ConfigError unless it is a kind of database we know."""
    expected = "expected sqlite:////folder/gateway.db or postgresql://user@host/database"
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError:
        raise ConfigError(f"--store: got {url!r}, {expected}") from None
    kind = parsed.get_backend_name()
    if kind in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise ConfigError(f"--store: got {parsed.render_as_string(hide_password=True)!r}, {expected}")
    if not parsed.database or parsed.database == ":memory:":
        raise ConfigError(f"--store: got {url!r}, a database in memory, which no other process sees; {expected}")
    return parsed.set(drivername="sqlite", database=os.path.abspath(parsed.database))


def _connect_postgresql(_: Any, __: Any, arguments: list[Any], wishes: dict[str, Any]) -> Any:
    from gateway.store.bounded import BoundedConnection

    return BoundedConnection.connect(*arguments, **wishes)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _text(error: BaseException) -> str:
    """The driver's own words on one line, without the statement and its parameters."""
    origin = getattr(error, "orig", None) or error
    return " ".join(str(origin).split()) or type(origin).__name__
