"""Rollouts: attempts, what was decided of them, and what that did. One decision is one transaction with all its
effects, the route included, and it is refused to whoever does not lead any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from gateway.errors import NotFound
from gateway.store import schema
from gateway.store.part import Change, Part
from gateway.store.rolloutrecords import (
    Blocked,
    DecisionRecord,
    Fenced,
    Good,
    NewRollout,
    RolloutConflict,
    RolloutRecord,
    RolloutStep,
    Sample,
    StageRecord,
    Touch,
)
from gateway.store.routes import insert_route, newest_route
from gateway.store.versions import drop_wanted, is_wanted, want_version

LEASE = "control"
"""Whose term a leader's writes are checked against."""

_R = schema.rollouts.c
_D = schema.rollout_decisions.c
_S = schema.rollout_samples.c


class Rollouts(Part):
    # --- beginning

    def start_rollout(self, new: NewRollout, actor: str, reason: str) -> RolloutRecord:
        """RolloutConflict: another one is live, or the candidate's files were taken back once."""
        with self._change() as change:
            connection = change.connection
            if found := _blocked(connection, new.model, new.candidate_digest):
                if not new.override:
                    raise RolloutConflict(
                        f"model {new.model!r} version {new.candidate}: these files were taken back by rollout"
                        f" {found.rollout} ({found.reason}); override with a reason to try them again"
                    )
                change.audit(actor, "rollout.override", f"{new.model}/{new.candidate}", reason, asdict(found), None)
            highest = connection.execute(sa.select(sa.func.max(_R.number))).scalar_one_or_none() or 0
            record_number = highest + 1
            rollout_id = f"{new.model}-{record_number}"
            waits_for = ""
            for other in _live(connection, new.model):
                if other.waits_for:
                    raise RolloutConflict(
                        f"model {new.model!r}: rollout {other.id} waits already for {other.waits_for} to get out of"
                        " the way; abort it first"
                    )
                if other.stage != "promoted" and not new.supersede:
                    raise RolloutConflict(
                        f"model {new.model!r}: rollout {other.id} is live ({other.stage}); abort it, or have this one"
                        " take its place (supersede: true; --supersede of the command)"
                    )
                _order(change, other, {**other.orders, "superseded_by": rollout_id}, actor, "rollout.supersede", reason)
                waits_for = other.id
            at = change.audit(
                actor,
                "rollout.start",
                f"{new.model}/{new.candidate}",
                reason,
                None,
                {"rollout": rollout_id, "stable": new.stable, "plan": new.plan, "waits_for": waits_for},
            )
            revision = int(connection.execute(sa.select(schema.counters.c.revision)).scalar_one()) + 1
            record = RolloutRecord(
                rollout_id, record_number, new.model, new.stable, new.stable_digest, new.candidate,
                new.candidate_digest, new.plan, new.cursor, str(new.cursor["stage"]), True, {}, (), None, new.base,
                new.loads, {}, 0, revision, waits_for, 0, at, actor, reason, None, "",
            )  # fmt: skip
            connection.execute(sa.insert(schema.rollouts).values(**_values(record)))
            for version in new.loads:
                want_version(change, new.model, version, actor, f"rollout {rollout_id}")
            change.is_seen = True
        return record

    # --- what operators want

    def order_rollout(
        self,
        rollout_id: str,
        change_orders: Callable[[RolloutRecord], dict[str, Any]],
        actor: str,
        action: str,
        reason: str,
    ) -> RolloutRecord:
        """`change_orders` has the rollout as it is now and gives its new orders; what it raises changes nothing."""
        with self._change() as change:
            record = _one(change.connection, rollout_id)
            return _order(change, record, change_orders(record), actor, action, reason)

    # --- what the leader does

    def apply_rollout(self, step: RolloutStep, term: int) -> RolloutRecord:
        """All of it or nothing. Fenced; RolloutConflict when the rollout or the route is not as it was read."""
        with self._change() as change:
            connection = change.connection
            _fence(connection, term)
            record = _one(connection, step.id)
            if record.seq != step.seq:
                raise RolloutConflict(
                    f"rollout {step.id}: {record.seq} decisions are kept, {step.seq} were when it was read; look again"
                )
            cursor, seq = step.decision["cursor"], record.seq + 1
            stages, generation = list(record.stages), None
            if step.route is not None or step.adopts:
                current = newest_route(connection, record.model)
                if (current.generation if current else 0) != step.route_generation:
                    raise RolloutConflict(f"rollout {step.id}: the route has changed since it was read; look again")
                if step.route is not None:
                    why = f"rollout {record.id}: {step.headline}"[:1000]
                    generation = insert_route(
                        change, current, record.model, step.route, step.actor, why, automatic=False
                    ).generation
                else:
                    assert current is not None
                    generation = current.generation
                stages.append(
                    StageRecord(generation, cursor["epoch"], cursor["units"], cursor["shadow_units"], step.at)
                )
            subject = f"{record.model}/{record.candidate}"
            after = {
                "rollout": record.id,
                "seq": seq,
                "generation": generation,
                "snapshot": step.snapshot_digest,
                "decision": step.decision,
            }
            action = f"rollout.{step.decision['event'] or 'hold'}"
            at = change.audit(step.actor, action, subject, step.headline, record.cursor, after)
            connection.execute(
                sa.insert(schema.rollout_decisions).values(
                    rollout=record.id, seq=seq, at=at, event=step.decision["event"] or "", stage=cursor["stage"],
                    epoch=cursor["epoch"], generation=generation, headline=step.headline,
                    digest=step.snapshot_digest, term=term, snapshot=step.snapshot, decision=step.decision,
                )
            )  # fmt: skip
            orders = {**record.orders, "retry": False} if step.clears_retry else record.orders
            values: dict[str, Any] = {
                "cursor": cursor,
                "stage": cursor["stage"],
                "stages": [asdict(stage) for stage in stages],
                "seq": seq,
                "term": term,
                "status": step.status,
                "orders": orders,
                "is_live": step.is_live,
                "outcome": step.outcome or record.outcome,
                "finished_at": record.finished_at if step.is_live else at,
            }
            if step.baseline is not None:
                values["baseline"] = step.baseline
            if step.base is not None:
                values["base"] = step.base
            connection.execute(sa.update(schema.rollouts).where(_R.id == record.id).values(**values))
            self._effects(change, record, step)
            return _one(connection, step.id)

    def _effects(self, change: Change, record: RolloutRecord, step: RolloutStep) -> None:
        connection, why = change.connection, f"rollout {record.id}"
        for version in sorted(step.want):
            if not is_wanted(connection, record.model, version):
                want_version(change, record.model, version, step.actor, why)
                change.is_seen = True
        others = [each for each in _live(connection, record.model) if each.id != record.id]
        needed = {version for each in others for version in (each.stable, each.candidate)}
        for version in sorted(step.unwant - needed):
            if is_wanted(connection, record.model, version):
                drop_wanted(change, record.model, version, step.actor, why)
                change.is_seen = True
        if step.route is not None:
            change.is_seen = True
        if step.blocks:
            values = asdict(
                Blocked(record.model, record.candidate_digest, record.candidate, record.id, step.blocks, step.at)
            )
            where = (schema.blocked.c.model == record.model, schema.blocked.c.digest == record.candidate_digest)
            connection.execute(sa.delete(schema.blocked).where(*where))
            connection.execute(sa.insert(schema.blocked).values(**values))
            change.audit(step.actor, "rollout.block", f"{record.model}/{record.candidate}", step.blocks, None, values)
        if step.good is not None:
            before = _good(connection, record.model)
            connection.execute(sa.delete(schema.last_good).where(schema.last_good.c.model == record.model))
            connection.execute(sa.insert(schema.last_good).values(**asdict(step.good)))
            subject = f"{step.good.model}/{step.good.version}"
            change.audit(step.actor, "rollout.last_good", subject, why, before and asdict(before), asdict(step.good))
        for delivery in step.deliveries:
            connection.execute(sa.insert(schema.deliveries).values(**asdict(delivery)))

    def touch_rollouts(self, touches: Sequence[Touch], samples: Sequence[Sample], term: int) -> None:
        """Looks that changed nothing, many in one transaction. What has changed since is left alone. Fenced."""
        if not touches and not samples:
            return
        with self._write() as connection:
            _fence(connection, term)
            for touch in touches:
                where = (_R.id == touch.id, _R.seq == touch.seq)
                values = {"cursor": touch.cursor, "status": touch.status, "term": term}
                connection.execute(sa.update(schema.rollouts).where(*where).values(**values))
            for each in samples:
                where = (_S.rollout == each.rollout, _S.at == each.at)
                connection.execute(sa.delete(schema.rollout_samples).where(*where))
                connection.execute(sa.insert(schema.rollout_samples).values(**asdict(each)))

    def next_rollout(self, rollout_id: str, cursor: dict[str, Any], base: dict[str, Any], term: int) -> RolloutRecord:
        """It waits for nobody any more: its clock starts now."""
        with self._change() as change:
            _fence(change.connection, term)
            record = _one(change.connection, rollout_id)
            values = {"waits_for": "", "cursor": cursor, "base": base, "term": term}
            change.connection.execute(sa.update(schema.rollouts).where(_R.id == rollout_id).values(**values))
            subject = f"{record.model}/{record.candidate}"
            change.audit("gateway", "rollout.begin", subject, f"{record.waits_for} is out of its way", None, None)
            return _one(change.connection, rollout_id)

    def prune_rollouts(self, before: float) -> int:
        """Of rollouts that were over before: points of their timelines, and decisions that only held them. What moved
        them stays.
        """
        old = sa.select(_R.id).where(_R.finished_at < before)
        with self._write() as connection:
            gone = connection.execute(sa.delete(schema.rollout_samples).where(_S.rollout.in_(old))).rowcount
            held = sa.delete(schema.rollout_decisions).where(_D.event == "", _D.rollout.in_(old))
            return gone + connection.execute(held).rowcount

    # --- reading

    def rollout(self, rollout_id: str) -> RolloutRecord:
        """By its id, or the newest of a model by the model's name. NotFound."""
        with self._read() as connection:
            return _one(connection, rollout_id)

    def rollouts(self, model: str | None = None, *, live: bool = False, limit: int = 1000) -> list[RolloutRecord]:
        """Newest first."""
        statement = sa.select(schema.rollouts).order_by(_R.number.desc()).limit(limit)
        if model is not None:
            statement = statement.where(_R.model == model)
        if live:
            statement = statement.where(_R.is_live)
        with self._read() as connection:
            return [_record(row) for row in connection.execute(statement).mappings()]

    def rollout_decisions(
        self, rollout_id: str, after_seq: int = 0, limit: int = 1000, *, newest_first: bool = False
    ) -> list[DecisionRecord]:
        order = _D.seq.desc() if newest_first else _D.seq
        statement = sa.select(schema.rollout_decisions).where(_D.rollout == rollout_id, _D.seq > after_seq)
        with self._read() as connection:
            rows = connection.execute(statement.order_by(order).limit(limit)).mappings()
            return [DecisionRecord(**row) for row in rows]

    def rollout_outcomes(self) -> dict[tuple[str, str], int]:
        """How many ended how, by model and outcome."""
        statement = sa.select(_R.model, _R.outcome, sa.func.count()).where(_R.finished_at.is_not(None))
        with self._read() as connection:
            rows = connection.execute(statement.group_by(_R.model, _R.outcome))
            return {(model, outcome): int(n) for model, outcome, n in rows}

    def rollout_samples(self, rollout_id: str, after: float = 0.0) -> list[tuple[float, dict[str, Any]]]:
        statement = sa.select(_S.at, _S.body).where(_S.rollout == rollout_id, _S.at > after).order_by(_S.at)
        with self._read() as connection:
            return [(float(row.at), row.body) for row in connection.execute(statement)]

    def blocked(self, model: str | None = None) -> list[Blocked]:
        statement = sa.select(schema.blocked).order_by(schema.blocked.c.at.desc())
        if model is not None:
            statement = statement.where(schema.blocked.c.model == model)
        with self._read() as connection:
            return [Blocked(**row) for row in connection.execute(statement).mappings()]

    def last_good(self, model: str) -> Good | None:
        with self._read() as connection:
            return _good(connection, model)


def _fence(connection: sa.Connection, term: int) -> None:
    """Nobody else has been given the lease since; while this transaction lasts nobody is."""
    statement = sa.select(schema.leases.c.term).where(schema.leases.c.name == LEASE).with_for_update(read=True)
    newest = connection.execute(statement).scalar_one_or_none()
    if newest != term:
        raise Fenced(f"term {term}: a control process with term {newest} leads by now, nothing was written")


def _order(
    change: Change, record: RolloutRecord, orders: dict[str, Any], actor: str, action: str, reason: str
) -> RolloutRecord:
    if orders != record.orders:
        change.connection.execute(sa.update(schema.rollouts).where(_R.id == record.id).values(orders=orders))
        subject = f"{record.model}/{record.candidate}"
        before = {"rollout": record.id, "orders": record.orders}
        change.audit(actor, action, subject, reason, before, {"rollout": record.id, "orders": orders})
        change.is_seen = True
    return _one(change.connection, record.id)


def _one(connection: sa.Connection, name: str) -> RolloutRecord:
    statement = sa.select(schema.rollouts).where(_R.id == name)
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        newest = sa.select(schema.rollouts).where(_R.model == name).order_by(_R.number.desc()).limit(1)
        row = connection.execute(newest).mappings().one_or_none()
    if row is None:
        some = connection.execute(sa.select(_R.id).order_by(_R.number.desc()).limit(5)).scalars().all()
        raise NotFound(f"rollout {name!r}: there is none, nor one of a model of that name; newest: {_listed(some)}")
    return _record(row)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none yet"


def _live(connection: sa.Connection, model: str) -> list[RolloutRecord]:
    statement = sa.select(schema.rollouts).where(_R.model == model, _R.is_live).order_by(_R.number)
    return [_record(row) for row in connection.execute(statement).mappings()]


def _record(row: Any) -> RolloutRecord:
    values = dict(row)
    values["stages"] = tuple(StageRecord(**each) for each in values["stages"])
    values["loads"] = tuple(values["loads"])
    return RolloutRecord(**values)


def _values(record: RolloutRecord) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in RolloutRecord.__dataclass_fields__}
    values["stages"] = [asdict(stage) for stage in record.stages]
    values["loads"] = list(record.loads)
    return values


def _blocked(connection: sa.Connection, model: str, digest: str) -> Blocked | None:
    where = (schema.blocked.c.model == model, schema.blocked.c.digest == digest)
    row = connection.execute(sa.select(schema.blocked).where(*where)).mappings().one_or_none()
    return Blocked(**row) if row else None


def _good(connection: sa.Connection, model: str) -> Good | None:
    statement = sa.select(schema.last_good).where(schema.last_good.c.model == model)
    row = connection.execute(statement).mappings().one_or_none()
    return Good(**row) if row else None
