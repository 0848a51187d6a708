"""The migrations lead to the schema that the code uses, and to no other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from gateway.store import Store, migrate, schema
from gateway.store.database import DURABLE, Database


def test_the_newest_script_is_the_one_that_the_code_knows() -> None:
    assert ScriptDirectory(str(migrate._PATH)).get_heads() == [schema.HEAD]


def test_a_migrated_database_has_the_tables_and_columns_of_the_code(store: Store, url: str) -> None:
    database = Database(url)
    try:
        with database.connect(DURABLE) as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            assert compare_metadata(context, schema.metadata) == []
    finally:
        database.dispose()


def test_opening_again_changes_nothing_and_needs_no_alembic(store: Store, url: str) -> None:
    import subprocess
    import sys

    script = f"""
import sys
from gateway.store import Store
Store.open({url!r}).close()
assert not [name for name in sys.modules if name.startswith("alembic")], "slow start"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr


def test_a_store_in_another_state_of_the_schema_keeps_what_is_in_it(store: Store, url: str) -> None:
    store.put_route("fraud", {"versions": {"1": 100}}, None, "anna", "")
    database = Database(url)
    try:
        with migrate.alone(database):
            migrate.migrate(database)
        with database.connect(DURABLE) as connection:
            assert connection.execute(sa.select(schema.routes.c.model)).scalar_one() == "fraud"
    finally:
        database.dispose()
