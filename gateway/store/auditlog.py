"""The audit log: adding to it, reading it, and finding out whether somebody wrote over it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from gateway.errors import InvalidArgument
from gateway.store import schema
from gateway.store.chain import AuditVerdict, Head, Row, Verifier
from gateway.store.part import Part, parsed
from gateway.store.records import AuditEntry

_TABLE = schema.audit.c
_CHUNK = 1000
"""Rows read at once: the log may be larger than memory should be."""


class AuditLog(Part):
    def audit(self, actor: str, action: str, subject: str, reason: str, before: Any = None, after: Any = None) -> None:
        """An entry of its own. Changes of versions and routes write theirs themselves."""
        with self._change() as change:
            change.audit(actor, action, subject, reason, before, after)

    def audit_log(
        self, limit: int = 50, before_seq: int | None = None, model: str | None = None, action: str | None = None
    ) -> list[AuditEntry]:
        """Newest first. `action` may be a family: "route" is route.put and its kind."""
        statement = sa.select(schema.audit).order_by(_TABLE.seq.desc()).limit(limit)
        if before_seq is not None:
            statement = statement.where(_TABLE.seq < before_seq)
        if model is not None:
            statement = statement.where(_is_or_starts_with(_TABLE.subject, model, "/"))
        if action is not None:
            statement = statement.where(_is_or_starts_with(_TABLE.action, action, "."))
        with self._read() as connection:
            return [_entry(row) for row in connection.execute(statement)]

    def verify_audit(self, head: str | None = None) -> AuditVerdict:
        """Every entry against the chain, the store's own counter, the head noted beside the store, and `head`
        (COUNT:HASH), one noted elsewhere.
        """
        noted: dict[str, Head] = {}
        if head is not None:
            noted["the head that was given"] = Head.parse(head)
        fault = None
        if self._anchor:
            # Read first: entries that come while we read make the table longer than this head, never shorter.
            try:
                anchored = self._anchor.read()
                if anchored is None:
                    fault = f"{self._anchor.path} is missing: a tail that was cut off could not be found"
                else:
                    noted[str(self._anchor.path)] = anchored
            except InvalidArgument as error:
                fault = str(error)
        verifier = Verifier(self._key, noted)
        with self._read() as connection:
            counters = connection.execute(sa.select(schema.counters)).one()
            statement = sa.select(schema.audit).order_by(_TABLE.seq).execution_options(yield_per=_CHUNK)
            for rows in connection.execute(statement).partitions():
                verifier.add(Row(**row._mapping) for row in rows)
        verdict = verifier.verdict(Head(counters.audit_count, counters.audit_hash))
        if verdict.ok and fault:
            return AuditVerdict(False, verdict.n, fault, verdict.head)
        return verdict


def _is_or_starts_with(column: Any, text: str, separator: str) -> Any:
    prefix = text + separator
    return sa.or_(column == text, sa.func.substr(column, 1, len(prefix)) == prefix)


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(
        row.seq,
        row.at_us / 1e6,
        row.actor,
        row.action,
        row.subject,
        row.reason,
        parsed(row.before),
        parsed(row.after),
        row.hash,
    )
