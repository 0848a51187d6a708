"""Brings a database to the schema this code knows. Alembic is imported only when there is something to do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from gateway.errors import ConfigError
from gateway.store import schema
from gateway.store.database import DURABLE, READ, Database

_PATIENCE_S = 15.0
"""Several processes start together: one migrates, the others wait for it."""
_MIGRATION_PATIENCE_S = 600.0
_ADVISORY_LOCK = 0x6761_7465
_PATH = Path(__file__).parent / "migrations"


def migrate(database: Database) -> None:
    """Inside `alone`. ConfigError when a newer gateway has been here."""
    present = _present(database)
    if present != schema.HEAD:
        with database.connect(DURABLE) as connection:
            if not database.is_sqlite:
                connection.connection.driver_connection.patience_s = _MIGRATION_PATIENCE_S  # type: ignore[union-attr]
                connection.exec_driver_sql("SET LOCAL lock_timeout = '15s'")
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
                present = _version(connection)
            if present != schema.HEAD:
                _upgrade(connection, database.name, present)
        database.engine.dispose()  # no connection has that much patience from here on
    database.remember_file()


def _present(database: Database) -> str | None:
    with database.connect(READ) as connection:
        return _version(connection)


def _version(connection: sa.Connection) -> str | None:
    """The migration it stands at; None: it is empty."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _upgrade(connection: sa.Connection, name: str, present: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_PATH).replace("%", "%%"))
    config.attributes["connection"] = connection
    if present is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(present)
        except CommandError:
            raise ConfigError(
                f"store {name}: its schema is {present}, made by a newer gateway; this one knows {schema.HEAD}: "
                "run the newer one, or restore the backup from before it"
            ) from None
    command.upgrade(config, schema.HEAD)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--state {folder}: cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"--state {folder}: permission denied; make it writable for this user")


@contextlib.contextmanager
def alone(database: Database) -> Iterator[None]:
    """SQLite's own locks do not wait while a file is being made and turned to WAL."""
    if database.file is None:
        yield
        return
    _make_folder(database.file.parent)
    deadline_s = time.monotonic() + _PATIENCE_S
    descriptor = os.open(
        database.file.with_name(database.file.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
    )
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise ConfigError(f"store {database.name}: another process has been opening it for 15 s") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
