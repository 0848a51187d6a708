"""What each noun of the store is built on: reading, writing, and a change, which is audited and seen by the workers."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from gateway.observability import logs
from gateway.store import schema
from gateway.store.anchor import Anchor
from gateway.store.chain import Head, Row, canonical, digest
from gateway.store.database import CHANNEL, DURABLE, READ, WRITE, Database
from gateway.store.records import MAX_REASON, checked


class Change:
    """One audited transaction. Everything in it is made, or nothing."""

    def __init__(self, connection: sa.Connection, head: Head, key: bytes | None) -> None:
        self.connection = connection
        self.head = head
        self.rows: list[Row] = []
        self.is_seen = False
        """Whether workers must look."""
        self._key = key

    def audit(self, actor: str, action: str, subject: str, reason: str, before: Any, after: Any) -> float:
        """Add an entry; its time."""
        at_us = time.time_ns() // 1000
        # The table may hold more than was counted, if somebody tampered; even then an operator must be able to act.
        highest = self.connection.execute(sa.select(sa.func.max(schema.audit.c.seq))).scalar_one()
        row = Row(
            seq=max(self.head.count, highest if isinstance(highest, int) else 0) + 1,
            at_us=at_us,
            actor=checked("actor", actor),
            action=checked("action", action),
            subject=checked("subject", subject, may_be_empty=True),
            reason=checked("reason", reason, MAX_REASON, may_be_empty=True),
            before=canonical(before),
            after=canonical(after),
        )
        values = {name: getattr(row, name) for name in Row.__dataclass_fields__}
        values["hash"] = digest(row, self.head.hash, self._key)
        self.connection.execute(sa.insert(schema.audit).values(**values))
        self.head = Head(row.seq, values["hash"])
        self.rows.append(row)
        return at_us / 1e6


class Part:
    """The base of Store's parts."""

    _database: Database
    _anchor: Anchor | None
    _key: bytes | None

    def _read(self) -> contextlib.AbstractContextManager[sa.Connection]:
        return self._database.connect(READ)

    def _write(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """For what is reported again in a moment: not worth waiting for the disk."""
        return self._database.connect(WRITE)

    @contextlib.contextmanager
    def _change(self) -> Iterator[Change]:
        with self._database.connect(DURABLE) as connection:
            counters = self._database.lock_counters(connection)
            change = Change(connection, Head(counters.audit_count, counters.audit_hash), self._key)
            noted = change.head
            yield change
            revision = counters.revision + change.is_seen
            connection.execute(
                sa.update(schema.counters).values(
                    revision=revision, audit_count=change.head.count, audit_hash=change.head.hash
                )
            )
            if change.is_seen and not self._database.is_sqlite:
                connection.execute(sa.select(sa.func.pg_notify(CHANNEL, str(revision))))
        if change.rows:
            self._note(noted, change)

    def _note(self, before: Head, change: Change) -> None:
        """After the commit: the change is made, whatever happens here."""
        for row in change.rows:
            fields = {"actor": row.actor, "subject": row.subject, "reason": row.reason, "head": str(change.head)}
            logs.get().info(f"audit: {row.action}", **fields)
        if self._anchor and (fault := self._anchor.advance(change.head, lambda noted: self._holds(noted, before))):
            logs.get().error("audit head not noted", error=fault)

    def _holds(self, noted: Head, last: Head) -> bool:
        """Whether `noted` is in the chain; `last` is what the newest change was built on."""
        if noted == last or not noted.count:
            return True
        with self._read() as connection:
            statement = sa.select(schema.audit.c.hash).where(schema.audit.c.seq == noted.count)
            return connection.execute(statement).scalar_one_or_none() == noted.hash


def parsed(text: str) -> Any:
    """A document of the audit log; as it stands when somebody wrote over it."""
    try:
        return json.loads(text)
    except ValueError:
        return text
