"""Alarms, and the deliveries that tell of them: both are written in one transaction, so no change goes untold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import sqlalchemy as sa

from gateway.store import schema
from gateway.store.part import Part
from gateway.store.records import AlarmRecord, Delivery

WAITING, DELIVERED, DEAD = "waiting", "delivered", "dead"

_ALARMS = schema.alarms.c
_DELIVERIES = schema.deliveries.c


class Alarms(Part):
    def put_alarm(
        self,
        alarm: AlarmRecord,
        expected_state: str | None,
        action: str,
        actor: str,
        reason: str,
        deliveries: Iterable[Delivery] = (),
    ) -> bool:
        """False, and nothing happens, when the alarm is in another state than expected (None: not there yet): somebody
        was quicker.
        """
        with self._change() as change:
            connection = change.connection
            known = connection.execute(sa.select(schema.alarms).where(_ALARMS.id == alarm.id)).one_or_none()
            if (known.state if known else None) != expected_state:
                return False
            if known:
                values = {name: value for name, value in asdict(alarm).items() if name != "id"}
                connection.execute(sa.update(schema.alarms).where(_ALARMS.id == alarm.id).values(**values))
            else:
                connection.execute(sa.insert(schema.alarms).values(**asdict(alarm)))
            for delivery in deliveries:
                connection.execute(sa.insert(schema.deliveries).values(**asdict(delivery)))
            subject = f"{alarm.model}/{alarm.version}"
            change.audit(actor, action, subject, reason, known.document if known else None, alarm.document)
        return True

    def alarm(self, alarm_id: str) -> AlarmRecord | None:
        with self._read() as connection:
            row = connection.execute(sa.select(schema.alarms).where(_ALARMS.id == alarm_id)).mappings().one_or_none()
            return AlarmRecord(**row) if row else None

    def alarms(
        self,
        model: str | None = None,
        version: str | None = None,
        states: Iterable[str] | None = None,
        updated_since: float | None = None,
        limit: int = 1000,
    ) -> list[AlarmRecord]:
        """Newest first."""
        statement = sa.select(schema.alarms)
        if model is not None:
            statement = statement.where(_ALARMS.model == model)
        if version is not None:
            statement = statement.where(_ALARMS.version == version)
        if states is not None:
            statement = statement.where(_ALARMS.state.in_(list(states)))
        if updated_since is not None:
            statement = statement.where(_ALARMS.updated_at >= updated_since)
        statement = statement.order_by(_ALARMS.opened_at.desc(), _ALARMS.id).limit(limit)
        with self._read() as connection:
            return [AlarmRecord(**row) for row in connection.execute(statement).mappings()]

    def due_deliveries(self, now: float, limit: int = 100) -> list[Delivery]:
        """Waiting ones whose time has come, longest due first."""
        where = (_DELIVERIES.state == WAITING, _DELIVERIES.next_at <= now)
        return self._deliveries(sa.select(schema.deliveries).where(*where).order_by(_DELIVERIES.next_at).limit(limit))

    def deliveries(self, state: str | None = None, limit: int = 100) -> list[Delivery]:
        """Newest first."""
        statement = sa.select(schema.deliveries)
        if state is not None:
            statement = statement.where(_DELIVERIES.state == state)
        return self._deliveries(statement.order_by(_DELIVERIES.created_at.desc(), _DELIVERIES.event).limit(limit))

    def note_delivery(self, delivery: Delivery) -> None:
        """What became of an attempt."""
        where = (_DELIVERIES.event == delivery.event, _DELIVERIES.endpoint == delivery.endpoint)
        values = {name: getattr(delivery, name) for name in ("state", "attempts", "next_at", "error")}
        with self._write() as connection:
            connection.execute(sa.update(schema.deliveries).where(*where).values(**values))

    def prune_deliveries(self, before: float) -> int:
        """Delivered ones created before, and dead ones; how many."""
        statement = sa.delete(schema.deliveries).where(
            _DELIVERIES.created_at < before, _DELIVERIES.state.in_((DELIVERED, DEAD))
        )
        with self._write() as connection:
            return connection.execute(statement).rowcount

    def _deliveries(self, statement: sa.Select[tuple[object, ...]]) -> list[Delivery]:
        with self._read() as connection:
            return [Delivery(**row) for row in connection.execute(statement).mappings()]
