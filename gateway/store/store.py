"""The store: all its nouns over one database, opened by a URL."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from gateway.errors import ConfigError
from gateway.store import schema
from gateway.store.alarms import Alarms
from gateway.store.anchor import Anchor
from gateway.store.auditlog import AuditLog
from gateway.store.chain import Head
from gateway.store.database import READ, Database
from gateway.store.feedback import Feedback
from gateway.store.migrate import alone, migrate
from gateway.store.rollouts import Rollouts
from gateway.store.routes import Routes
from gateway.store.versions import Versions
from gateway.store.workers import Workers

FILE_NAME = "gateway.db"


def url_of_folder(folder: Path) -> str:
    """The store of a --state folder."""
    return f"sqlite:///{folder.absolute() / FILE_NAME}"


class Store(Versions, Routes, Workers, AuditLog, Alarms, Rollouts, Feedback):
    """Any thread may call anything; each method is one transaction. Methods raise StoreUnavailable when the database
    does not answer, and work again when it does.
    """

    def __init__(self, database: Database, anchor: Anchor | None) -> None:
        """Not for callers: `open`."""
        self._database = database
        self._anchor = anchor
        self._key = anchor.key() if anchor else None

    @classmethod
    def open(cls, url: str, state: Path | None = None) -> Store:
        """Made and migrated as needed. `state` holds the audit log's head and key; for SQLite it is the file's own
        folder unless given, for PostgreSQL there is none unless given. ConfigError for a URL or folder that cannot
        work, StoreUnavailable for a database that does not answer.
        """
        database = Database(url)
        try:
            folder = state or (database.file.parent if database.file else None)
            anchor = Anchor(folder) if folder else None
            with alone(database):  # or another process could write before there is a key
                migrate(database)
                if anchor:
                    _begin(anchor, database)
            return cls(database, anchor)
        except OSError as error:
            database.dispose()
            raise ConfigError(f"--state {error.filename}: {str(error.strerror).lower()}") from None
        except BaseException:
            database.dispose()
            raise

    @property
    def name(self) -> str:
        """Where it is, for people: no password in it."""
        return self._database.name

    def close(self) -> None:
        self._database.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def revision(self) -> int:
        """Grows with every change that workers must see."""
        with self._read() as connection:
            return self._database.revision(connection)

    def wait_for_change(self, seen: int, timeout_s: float) -> int:
        """The revision, as soon as it is not `seen`, or `seen` after the timeout. It is less than `seen` when a backup
        was restored.
        """
        return self._database.wait(seen, timeout_s)


def _begin(anchor: Anchor, database: Database) -> None:
    with database.connect(READ) as connection:
        counters = connection.execute(sa.select(schema.counters)).one()
    anchor.create(Head(counters.audit_count, counters.audit_hash), is_shared=not database.is_sqlite)
