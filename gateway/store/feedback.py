"""What callers reported of answers: facts, each kept once, their sums, and the key that tokens are signed with."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gateway.errors import ConfigError
from gateway.feedback.report import Fact
from gateway.feedback.tally import Key, Tallies, Tally
from gateway.store import schema
from gateway.store.part import Part

KEY_FILE = "feedback.key"
KEY_BYTES = 16
_ADVISORY_LOCK = 0x6761_7465_6662
_FACTS = schema.feedback.c
_TALLIES = schema.feedback_tallies.c
_NAMES = tuple(Fact.__dataclass_fields__)

FactKey = tuple[bytes, int, str, str]
SumKey = tuple[str, str, str, str]
"""Model, version, kind, name."""


class FactSeen(NamedTuple):
    """What a rollout reads of a Fact."""

    id: bytes
    kind: str
    name: str
    arm: str
    stage: int
    unit: bytes | None
    predicted: str | None
    label: str | None
    value: float | None
    groups: str


class Feedback(Part):
    def feedback_key(self) -> bytes:
        """The same for all who share the store: a file beside an SQLite database that its owner alone may read, made by
        the first who asks; else a row. ConfigError when the file cannot be used.
        """
        if self._database.file:
            return _key_file(self._database.file.parent / KEY_FILE)
        table = schema.feedback_keys
        with self._write() as connection:
            fresh = self._insert(table).values(id=1, key=secrets.token_hex(KEY_BYTES)).on_conflict_do_nothing()
            connection.execute(fresh)
            return bytes.fromhex(connection.execute(sa.select(table.c.key)).scalar_one())

    def put_feedback(
        self, facts: Sequence[Fact], count: Callable[[Collection[FactKey]], Tallies]
    ) -> frozenset[FactKey]:
        """Keep those that are not there yet; the keys of those that were new. `count(new)` says what they add to the
        sums, in the same transaction. No two of `facts` have the same key.
        """
        with self._write() as connection:
            if not self._database.is_sqlite:  # or a lower seq could appear behind a reader's back
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            new: frozenset[FactKey] = frozenset()
            if facts:
                key = (_FACTS.id, _FACTS.row, _FACTS.kind, _FACTS.name)
                names = [column.name for column in key]
                statement = self._insert(schema.feedback).on_conflict_do_nothing(index_elements=names).returning(*key)
                rows = [{name: getattr(fact, name) for name in _NAMES} for fact in facts]
                new = frozenset((bytes(r[0]), r[1], r[2], r[3]) for r in connection.execute(statement, rows))
            if tallies := count(new):
                connection.execute(self._added(), [_row(*each) for each in sorted(tallies.items(), key=_by_key)])
        return new

    def feedback(
        self, model: str, stages: Collection[int], after: int = 0, limit: int = 20_000
    ) -> list[tuple[int, FactSeen]]:
        """Facts about the first row of answers to those generations of its route, with their seq, in its order."""
        statement = (
            sa.select(_FACTS.seq, *(_FACTS[name] for name in FactSeen._fields))
            .where(_FACTS.model == model, _FACTS.stage.in_(sorted(stages)), _FACTS.seq > after, _FACTS.row == 0)
            .order_by(_FACTS.seq)
            .limit(limit)
        )
        with self._read() as connection:
            return [(row[0], FactSeen(*row[1:])) for row in connection.execute(statement)]

    def last_feedback(self) -> int:
        """The highest seq; 0: there is none."""
        with self._read() as connection:
            return connection.execute(sa.select(sa.func.max(_FACTS.seq))).scalar_one() or 0

    def feedback_sums(self, model: str | None = None, since_hour: int | None = None) -> dict[SumKey, Tally]:
        """Over the hours, from `since_hour` on; with a model, also what came without a right token (model "")."""
        keys = (_TALLIES.model, _TALLIES.version, _TALLIES.kind, _TALLIES.name)
        sums = (sa.func.sum(_TALLIES[name]) for name in Tally.__dataclass_fields__)
        statement = sa.select(*keys, *sums).group_by(*keys)
        if model is not None:
            statement = statement.where(_TALLIES.model.in_((model, "")))
        if since_hour is not None:
            statement = statement.where(_TALLIES.hour >= since_hour)
        with self._read() as connection:
            found = connection.execute(statement)
            return {(r[0], r[1], r[2], r[3]): Tally(int(r[4]), int(r[5]), float(r[6]), float(r[7])) for r in found}

    def prune_feedback(self, before: float, tallies_before_hour: int) -> int:
        """Facts that came before, and the sums of hours before; how many facts."""
        with self._write() as connection:
            connection.execute(sa.delete(schema.feedback_tallies).where(_TALLIES.hour < tallies_before_hour))
            return connection.execute(sa.delete(schema.feedback).where(_FACTS.at < before)).rowcount

    def _insert(self, table: sa.Table) -> Any:
        return (sqlite if self._database.is_sqlite else postgresql).insert(table)

    def _added(self) -> Any:
        statement = self._insert(schema.feedback_tallies)
        sums = {name: _TALLIES[name] + statement.excluded[name] for name in Tally.__dataclass_fields__}
        keys = [column.name for column in schema.feedback_tallies.primary_key]
        return statement.on_conflict_do_update(index_elements=keys, set_=sums)


def _row(key: Key, tally: Tally) -> Mapping[str, Any]:
    names = (column.name for column in schema.feedback_tallies.primary_key)
    return {**dict(zip(names, key, strict=True)), **{n: getattr(tally, n) for n in Tally.__dataclass_fields__}}


def _by_key(entry: tuple[Key, Tally]) -> Key:
    return entry[0]


def _key_file(path: Path) -> bytes:
    try:
        text = path.read_text("ascii")
    except FileNotFoundError:
        text = _made(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; feedback is signed with it") from None
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path}: got {len(text.strip())} characters, expected {2 * KEY_BYTES} hexadecimal digits")
    return key


def _made(path: Path) -> str:
    """By whoever is first: nobody sees half of it."""
    own = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(own, path)
        except FileExistsError:
            pass
        finally:
            own.unlink()
        return path.read_text("ascii")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error}; feedback is signed with it") from None
