"""The audit log: adding to it, reading it, and finding out whether somebody wrote over it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from gateway.errors import InvalidArgument
from gateway.store import schema
from gateway.store.chain import AuditVerdict, Head, Row, Verifier
from gateway.store.ledger import Ledger
from gateway.store.part import Part, parsed
from gateway.store.records import AuditEntry

_TABLE = schema.audit.c
_COLUMNS = [_TABLE[field] for field in Row.__dataclass_fields__]
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
        fault = self._read_anchor(noted)  # first: entries that come while we read make the table longer, never shorter
        verifier, ledger = Verifier(self._key, noted), Ledger()
        with self._read() as connection:
            counters = connection.execute(sa.select(schema.counters)).one_or_none()
            statement = sa.select(*_COLUMNS).order_by(_TABLE.seq).execution_options(yield_per=_CHUNK)
            with connection.execute(statement) as rows:
                for each in rows:
                    row = Row(*each)
                    if verifier.add(row):
                        ledger.add(row)
            counted = Head(counters.audit_count, counters.audit_hash) if counters else None
            verdict = verifier.verdict(counted)
            if verdict.ok:
                fault = fault or ledger.fault(connection)
        return replace(verdict, ok=False, fault=fault) if verdict.ok and fault else verdict

    def _read_anchor(self, noted: dict[str, Head]) -> str | None:
        """Into `noted`, or why it cannot be."""
        if self._anchor is None:
            return None
        try:
            head = self._anchor.read()
        except InvalidArgument as error:
            return str(error)
        if head is None:
            return f"{self._anchor.path}: is missing; without it nobody knows of a tail that was cut off"
        noted[str(self._anchor.path)] = head
        return None


def _is_or_starts_with(column: Any, text: str, separator: str) -> Any:
    prefix = text + separator
    return sa.or_(column == text, sa.func.substr(column, 1, len(prefix)) == prefix)


def _entry(row: Any) -> AuditEntry:
    at = row.at_us / 1e6 if isinstance(row.at_us, int) else 0.0  # SQLite holds anything that somebody puts there
    return AuditEntry(
        row.seq,
        at,
        row.actor,
        row.action,
        row.subject,
        row.reason,
        parsed(row.before),
        parsed(row.after),
        row.hash,
    )
