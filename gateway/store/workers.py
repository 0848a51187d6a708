"""Who is alive and what they have in force; what they counted; and who of the control processes leads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gateway.store import schema
from gateway.store.database import DURABLE
from gateway.store.part import Part
from gateway.store.records import Report, WorkerRecord

_WORKERS = schema.workers.c
_REPORTS = schema.reports.c
_LEASES = schema.leases.c


class Workers(Part):
    def report_worker(self, record: WorkerRecord) -> None:
        """What `incarnation` says now replaces what it said before."""
        values = {name: getattr(record, name) for name in WorkerRecord.__dataclass_fields__}
        with self._write() as connection:
            connection.execute(self._upsert(schema.workers), values)

    def workers(self, seen_within_s: float | None = None) -> list[WorkerRecord]:
        """By host and index; of those with the same, the newest last."""
        statement = sa.select(schema.workers).order_by(_WORKERS.host, _WORKERS.index, _WORKERS.started_at)
        with self._read() as connection:
            if seen_within_s is not None:
                statement = statement.where(_WORKERS.seen_at >= self._database.now(connection) - seen_within_s)
            return [WorkerRecord(**row) for row in connection.execute(statement).mappings()]

    def forget_workers(self, before: float) -> int:
        """Those last seen before; how many."""
        with self._write() as connection:
            return connection.execute(sa.delete(schema.workers).where(_WORKERS.seen_at < before)).rowcount

    def put_reports(self, incarnation: str, reports: Iterable[Report]) -> None:
        """Cumulative: a report replaces the one of the same (incarnation, kind, model, version, key)."""
        rows = [
            {name: getattr(report, name) for name in Report.__dataclass_fields__} | {"incarnation": incarnation}
            for report in reports
        ]
        if rows:
            with self._write() as connection:
                connection.execute(self._upsert(schema.reports), rows)

    def reports(
        self, kind: str, model: str | None = None, version: str | None = None, since: float | None = None
    ) -> list[Report]:
        """Of all incarnations, also those that are gone: counters of a dead worker still count."""
        statement = sa.select(schema.reports).where(_REPORTS.kind == kind)
        if model is not None:
            statement = statement.where(_REPORTS.model == model)
        if version is not None:
            statement = statement.where(_REPORTS.version == version)
        if since is not None:
            statement = statement.where(_REPORTS.at >= since)
        statement = statement.order_by(_REPORTS.model, _REPORTS.version, _REPORTS.key, _REPORTS.incarnation)
        with self._read() as connection:
            return [Report(**row) for row in connection.execute(statement).mappings()]

    def prune_reports(self, kind: str, before: float) -> int:
        """Those last written before; how many."""
        statement = sa.delete(schema.reports).where(_REPORTS.kind == kind, _REPORTS.at < before)
        with self._write() as connection:
            return connection.execute(statement).rowcount

    def lease(self, name: str, holder: str, ttl_s: float, now: float | None = None) -> int | None:
        """The fencing term when `holder` has it now, for `ttl_s`; None when somebody else has it. A renewal keeps the
        term; one that came too late gets a new one, as does everybody else: a term never comes twice.
        """
        if (term := self._renewed(name, holder, ttl_s, now)) is not None:
            return term
        with self._database.connect(DURABLE) as connection:  # a term that was lost with the power would come twice
            self._database.lock_counters(connection)  # or two who find no row would both insert one
            now = self._database.now(connection) if now is None else now
            row = connection.execute(sa.select(schema.leases).where(_LEASES.name == name)).one_or_none()
            if row is None:
                values = {"name": name, "holder": holder, "term": 1, "expires_at": now + ttl_s}
                connection.execute(sa.insert(schema.leases).values(**values))
                return 1
            is_live = row.expires_at > now
            if is_live and row.holder != holder:
                return None
            term = int(row.term) if is_live else int(row.term) + 1
            statement = sa.update(schema.leases).where(_LEASES.name == name)
            connection.execute(statement.values(holder=holder, term=term, expires_at=now + ttl_s))
            return term

    def release(self, name: str, holder: str) -> None:
        """Nothing happens unless `holder` has it."""
        with self._database.connect(DURABLE) as connection:
            statement = sa.update(schema.leases).where(_LEASES.name == name, _LEASES.holder == holder)
            connection.execute(statement.values(expires_at=0.0))

    def _renewed(self, name: str, holder: str, ttl_s: float, now: float | None) -> int | None:
        """The term, when `holder` has the lease still: the usual case, every few seconds."""
        with self._write() as connection:
            now = self._database.now(connection) if now is None else now
            is_held = (_LEASES.name == name, _LEASES.holder == holder, _LEASES.expires_at > now)
            statement = sa.update(schema.leases).where(*is_held).values(expires_at=now + ttl_s).returning(_LEASES.term)
            return connection.execute(statement).scalar_one_or_none()

    def _upsert(self, table: sa.Table) -> Any:
        dialect = sqlite if self._database.is_sqlite else postgresql
        statement = dialect.insert(table)
        keys = [column.name for column in table.primary_key]
        rest = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
        return statement.on_conflict_do_update(index_elements=keys, set_=rest)
