"""Versions by model and number: what was registered under it, and whether workers are to load it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from gateway.errors import LoadError, NotFound
from gateway.store import schema
from gateway.store.part import Change, Part
from gateway.store.records import DigestMismatch, VersionRecord, checked

_TABLE = schema.versions.c


class Versions(Part):
    def register_version(self, record: VersionRecord, actor: str, reason: str = "") -> VersionRecord:
        """The record as it is now in the store. A number that is known keeps its digest: other files under it are a
        DigestMismatch. Path, signature, lineage and card may change; a signature of None leaves the one that is known.
        """
        known = self._version(record.model, record.version)
        if known is not None and _merged(known, record) == known:
            return known  # most of the time, and then nobody need be locked out
        with self._change() as change:
            known = self._version(record.model, record.version, change.connection)
            if known is None:
                return self._register(change, record, actor, reason)
            merged = _merged(known, record)
            values = {name: getattr(merged, name) for name in ("path", "signature", "lineage", "card")}
            change.connection.execute(sa.update(schema.versions).where(*_is(record)).values(**values))
            before = {"lineage": known.lineage, "card": known.card}
            after = {"lineage": merged.lineage, "card": merged.card}
            if before != after:
                change.audit(actor, "version.describe", _subject(record), reason, before, after)
            change.is_seen = True
            return merged

    def versions(self, model: str | None = None) -> list[VersionRecord]:
        """By model, then by number."""
        with self._read() as connection:
            statement = sa.select(schema.versions)
            if model is not None:
                statement = statement.where(_TABLE.model == model)
            records = [VersionRecord(**row) for row in connection.execute(statement).mappings()]
        return sorted(records, key=lambda record: (record.model, *_order(record.version)))

    def retire_version(self, model: str, version: str, actor: str, reason: str = "") -> None:
        """It is loaded no more. NotFound; nothing happens when it is retired already."""
        self._set_retired(model, version, True, actor, reason)

    def unretire(self, model: str, version: str, actor: str, reason: str = "") -> None:
        self._set_retired(model, version, False, actor, reason)

    def want(self, model: str, version: str, actor: str, reason: str = "") -> None:
        """Every worker is to load it. NotFound; LoadError when it is retired."""
        with self._change() as change:
            want_version(change, model, version, actor, reason)

    def unwant(self, model: str, version: str, actor: str, reason: str = "") -> None:
        with self._change() as change:
            _known(change, model, version)
            drop_wanted(change, model, version, actor, reason)

    def wanted(self) -> set[tuple[str, str]]:
        """(model, version) of all that workers are to load."""
        with self._read() as connection:
            return _wanted(connection)

    def _register(self, change: Change, record: VersionRecord, actor: str, reason: str) -> VersionRecord:
        for name in ("model", "version", "digest"):
            checked(name, getattr(record, name))
        checked("path", record.path, 4096)
        after = {"digest": record.digest, "path": record.path, "lineage": record.lineage, "card": record.card}
        at = change.audit(actor, "version.register", _subject(record), reason, None, after)
        record = replace(record, is_retired=False, registered_at=at, registered_by=actor)
        change.connection.execute(sa.insert(schema.versions).values(**_values(record)))
        change.is_seen = True
        return record

    def _set_retired(self, model: str, version: str, is_retired: bool, actor: str, reason: str) -> None:
        with self._change() as change:
            record = _known(change, model, version)
            if record.is_retired == is_retired:
                return
            if is_retired:
                drop_wanted(change, model, version, actor, reason)
            change.connection.execute(sa.update(schema.versions).where(*_is(record)).values(is_retired=is_retired))
            action = "version.retire" if is_retired else "version.unretire"
            change.audit(actor, action, _subject(record), reason, None, None)
            change.is_seen = True

    def _version(self, model: str, version: str, connection: sa.Connection | None = None) -> VersionRecord | None:
        if connection is None:
            with self._read() as connection:
                return self._version(model, version, connection)
        return _find(connection, model, version)


def want_version(change: Change, model: str, version: str, actor: str, reason: str) -> None:
    """Inside a change: every worker is to load it. NotFound; LoadError when it is retired."""
    record = _known(change, model, version)
    if record.is_retired:
        raise LoadError(f"model {model!r} version {version}: is retired; take that back first")
    if not is_wanted(change.connection, model, version):
        change.connection.execute(sa.insert(schema.wanted).values(model=model, version=version))
        change.audit(actor, "version.want", _subject(record), reason, None, None)
        change.is_seen = True


def drop_wanted(change: Change, model: str, version: str, actor: str, reason: str) -> None:
    """Inside a change. Nothing happens when it was not wanted."""
    if not is_wanted(change.connection, model, version):
        return
    table = schema.wanted
    change.connection.execute(sa.delete(table).where(table.c.model == model, table.c.version == version))
    change.audit(actor, "version.unwant", f"{model}/{version}", reason, None, None)
    change.is_seen = True


def is_wanted(connection: sa.Connection, model: str, version: str) -> bool:
    return (model, version) in _wanted(connection)


def _known(change: Change, model: str, version: str) -> VersionRecord:
    record = _find(change.connection, model, version)
    if record is None:
        here = change.connection.execute(sa.select(_TABLE.version).where(_TABLE.model == model)).scalars().all()
        shown = f"versions here: {', '.join(sorted(here, key=_order))}" if here else "no such model is registered"
        raise NotFound(f"model {model!r} version {version}: is not registered; {shown}")
    return record


def _find(connection: sa.Connection, model: str, version: str) -> VersionRecord | None:
    statement = sa.select(schema.versions).where(_TABLE.model == model, _TABLE.version == version)
    row = connection.execute(statement).mappings().one_or_none()
    return None if row is None else VersionRecord(**row)


def _merged(known: VersionRecord, new: VersionRecord) -> VersionRecord:
    """What is known, with what may be told anew. DigestMismatch."""
    if known.digest != new.digest:
        raise DigestMismatch(
            f"model {new.model!r} version {new.version}: its files are {new.digest}, but it is registered as "
            f"{known.digest}; a version never changes: put the new files under a number of their own, and the old ones "
            "back"
        )
    signature = known.signature if new.signature is None else new.signature
    return replace(known, path=new.path, signature=signature, lineage=new.lineage, card=new.card)


def _wanted(connection: sa.Connection) -> set[tuple[str, str]]:
    return {(row.model, row.version) for row in connection.execute(sa.select(schema.wanted))}


def _is(record: VersionRecord) -> tuple[Any, Any]:
    return _TABLE.model == record.model, _TABLE.version == record.version


def _values(record: VersionRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in VersionRecord.__dataclass_fields__}


def _subject(record: VersionRecord) -> str:
    return f"{record.model}/{record.version}"


def _order(version: str) -> tuple[int, str]:
    return int(version) if version.isascii() and version.isdigit() else 0, version
