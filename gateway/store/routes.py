"""Routes by generation. A document is kept as it was given: what it means, gateway.routing knows."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from gateway.errors import NotFound
from gateway.store import schema
from gateway.store.part import Change, Part
from gateway.store.records import Conflict, RouteRecord, checked
from gateway.store.rolloutrecords import RolloutConflict

_TABLE = schema.routes.c
_ROLLOUTS = schema.rollouts.c


class Routes(Part):
    def routes(self) -> dict[str, RouteRecord]:
        """What is in force, by model."""
        newest = (
            sa.select(_TABLE.model, sa.func.max(_TABLE.generation).label("generation"))
            .group_by(_TABLE.model)
            .subquery()
        )
        matches = sa.and_(_TABLE.model == newest.c.model, _TABLE.generation == newest.c.generation)
        with self._read() as connection:
            rows = connection.execute(sa.select(schema.routes).join(newest, matches).order_by(_TABLE.model)).mappings()
            return {row["model"]: RouteRecord(**row) for row in rows}

    def put_route(
        self,
        model: str,
        document: dict[str, Any],
        expected_generation: int | None,
        actor: str,
        reason: str,
        automatic: bool = False,
        supersede: bool = False,
    ) -> RouteRecord:
        """The next generation. `expected_generation` is the one that the caller saw (0: that there is none); another
        one in force is a Conflict. None: whatever there is. RolloutConflict while a rollout has the route in hand,
        unless this is to `supersede` it.
        """
        checked("model", model)
        with self._change() as change:
            current = newest_route(change.connection, model)
            generation = current.generation if current else 0
            if not supersede:
                _refuse_under_rollout(change.connection, model)
            if expected_generation is not None and expected_generation != generation:
                raise Conflict(_conflict(model, expected_generation, current), current)
            record = insert_route(change, current, model, document, actor, reason, automatic=automatic)
            if not automatic and supersede:
                _supersede(change, model, f"the route of generation {record.generation} by {actor}", actor, reason)
        return record

    def route_history(self, model: str, limit: int = 50) -> list[RouteRecord]:
        """Newest first; empty when the model never had one."""
        with self._read() as connection:
            return _history(connection, model, limit)

    def route_at(self, model: str, generation: int) -> RouteRecord:
        """NotFound."""
        statement = sa.select(schema.routes).where(_TABLE.model == model, _TABLE.generation == generation)
        with self._read() as connection:
            row = connection.execute(statement).mappings().one_or_none()
            if row is not None:
                return RouteRecord(**row)
            newest = newest_route(connection, model)
        has = f"it has 1 to {newest.generation}" if newest else "it never had a route"
        raise NotFound(f"route of model {model!r}: no generation {generation}; {has}")


def _history(connection: sa.Connection, model: str, limit: int) -> list[RouteRecord]:
    statement = sa.select(schema.routes).where(_TABLE.model == model).order_by(_TABLE.generation.desc()).limit(limit)
    return [RouteRecord(**row) for row in connection.execute(statement).mappings()]


def newest_route(connection: sa.Connection, model: str) -> RouteRecord | None:
    """In force."""
    return next(iter(_history(connection, model, 1)), None)


def insert_route(
    change: Change,
    current: RouteRecord | None,
    model: str,
    document: dict[str, Any],
    actor: str,
    reason: str,
    *,
    automatic: bool,
) -> RouteRecord:
    """The generation after `current`, inside a change."""
    generation = current.generation + 1 if current else 1
    before = None
    if current:
        before = {"generation": current.generation, "automatic": current.automatic, "route": current.document}
    after = {"generation": generation, "automatic": automatic, "route": document}
    at = change.audit(actor, "route.put", model, reason, before, after)
    record = RouteRecord(model, generation, document, automatic, actor, reason, at)
    values = {name: getattr(record, name) for name in RouteRecord.__dataclass_fields__}
    change.connection.execute(sa.insert(schema.routes).values(**values))
    change.is_seen = True
    return record


def _in_hand(connection: sa.Connection, model: str) -> list[Any]:
    """Rollouts that publish this model's route: not those that only watch, or are promoted."""
    found = sa.select(_ROLLOUTS.id, _ROLLOUTS.candidate, _ROLLOUTS.stage, _ROLLOUTS.orders, _ROLLOUTS.plan)
    rows = connection.execute(found.where(_ROLLOUTS.model == model, _ROLLOUTS.is_live)).all()
    return [row for row in rows if row.stage != "promoted" and row.plan.get("mode") != "observe"]


def _refuse_under_rollout(connection: sa.Connection, model: str) -> None:
    for row in _in_hand(connection, model):
        raise RolloutConflict(
            f"route of model {model!r}: rollout {row.id} has it in hand ({row.stage}); abort that rollout first, or"
            " have this change end it (supersede: true; --supersede of the command)"
        )


def _supersede(change: Change, model: str, by: str, actor: str, reason: str) -> None:
    for row in _in_hand(change.connection, model):
        orders = {**row.orders, "superseded_by": by}
        before, after = ({"rollout": row.id, "orders": each} for each in (row.orders, orders))
        change.audit(actor, "rollout.supersede", f"{model}/{row.candidate}", reason, before, after)
        change.connection.execute(sa.update(schema.rollouts).where(_ROLLOUTS.id == row.id).values(orders=orders))


def _conflict(model: str, expected: int, current: RouteRecord | None) -> str:
    if current is None:
        return f"route of model {model!r}: generation {expected} was expected, but it has no route"
    return (
        f"route of model {model!r}: generation {expected} was expected, but {current.generation} is in force, by "
        f"{current.actor}{f' ({current.reason})' if current.reason else ''}; look at it, and change that one"
    )
