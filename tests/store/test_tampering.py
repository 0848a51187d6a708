"""Whatever somebody does to the audit log past the gateway, `verify` finds it.

Hypothesis plays the one who can write the database: it edits, deletes, cuts, swaps, inserts, renumbers, makes the
hashes anew (without the key, which it has not), and puts the store's own counter right.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.store import Store, VersionRecord, schema, url_of_folder
from gateway.store.chain import Head, Row, canonical, digest
from gateway.store.database import DURABLE, Database
from tests.store.conftest import Open

N = 7
COLUMNS = ("at_us", "actor", "action", "subject", "reason", "before", "after", "hash")


def fill(store: Store) -> None:
    """N entries of several kinds."""
    store.register_version(VersionRecord("fraud", "1", "sha256:aa", "/models/fraud/1"), "gateway")
    store.put_route("fraud", {"versions": {"1": 100}}, 0, "gateway", "first", automatic=True)
    store.register_version(VersionRecord("fraud", "2", "sha256:bb", "/models/fraud/2"), "anna")
    store.want("fraud", "2", "anna")
    store.put_route("fraud", {"versions": {"1": 95, "2": 5}}, 1, "anna", "5 %")
    store.put_route("fraud", {"versions": {"2": 100}}, 2, "anna", "it is better")
    store.audit("bert", "alarm.closed", "fraud", "seen", None, {"alarm": 1})


class Intruder:
    """Reads and writes the tables past the store."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self.rows, self.counters = self.read()

    def read(self) -> tuple[list[Row], Head]:
        with self._database.connect(DURABLE) as connection:
            rows = connection.execute(sa.select(schema.audit).order_by(schema.audit.c.seq)).mappings()
            counters = connection.execute(sa.select(schema.counters)).one()
            return [Row(**row) for row in rows], Head(counters.audit_count, counters.audit_hash)

    def write(self, rows: list[Row], counters: Head) -> None:
        with self._database.connect(DURABLE) as connection:
            connection.execute(sa.delete(schema.audit))
            if rows:
                connection.execute(sa.insert(schema.audit), [asdict(row) for row in rows])
            values = {"audit_count": counters.count, "audit_hash": counters.hash}
            connection.execute(sa.update(schema.counters).values(**values))

    def execute(self, statement: Any) -> None:
        with self._database.connect(DURABLE) as connection:
            connection.execute(statement)

    def undo(self) -> None:
        self.write(self.rows, self.counters)

    def close(self) -> None:
        self._database.dispose()


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
positions = st.integers(0, N - 1)


@st.composite
def tamperings(draw: st.DrawFn, rows: list[Row], counters: Head) -> tuple[list[Row], Head]:
    """The tables after one to three deeds."""
    rows = list(rows)
    for _ in range(draw(st.integers(1, 3))):
        deed = draw(st.sampled_from(["edit", "delete", "cut", "swap", "copy", "renumber", "rehash", "clear"]))
        at = min(draw(positions), max(len(rows) - 1, 0))
        if deed == "clear":
            rows = []
        elif not rows:
            continue
        elif deed == "edit":
            column = draw(st.sampled_from(COLUMNS))
            value = draw(st.integers(0, 2**62)) if column == "at_us" else draw(texts)
            rows[at] = replace(rows[at], **{column: value})
        elif deed == "delete":
            del rows[at]
        elif deed == "cut":
            del rows[at:]
        elif deed == "swap":
            other = min(draw(positions), len(rows) - 1)
            rows[at], rows[other] = replace(rows[other], seq=rows[at].seq), replace(rows[at], seq=rows[other].seq)
        elif deed == "copy":
            later = [replace(row, seq=row.seq + 1) for row in rows[at:]]
            rows = [*rows[:at], rows[at], *later]
        elif deed == "renumber":
            rows = [replace(row, seq=number) for number, row in enumerate(rows, 1)]
        elif deed == "rehash":
            rows = forged(rows, at)
    if draw(st.booleans()):
        counters = Head(len(rows), rows[-1].hash if rows else "")
    return rows, counters


def forged(rows: list[Row], first: int, key: bytes | None = None) -> list[Row]:
    """Hashes made anew from `first` on."""
    chain = list(rows[:first])
    for row in rows[first:]:
        chain.append(replace(row, hash=digest(row, chain[-1].hash if chain else "", key)))
    return chain


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_done_to_the_log_is_found(prepared: tuple[Store, Intruder], data: st.DataObject) -> None:
    store, intruder = prepared
    rows, counters = data.draw(tamperings(intruder.rows, intruder.counters))
    assume((rows, counters) != (intruder.rows, intruder.counters))
    try:
        intruder.write(rows, counters)
        verdict = store.verify_audit()
    finally:
        intruder.undo()
    assert not verdict.ok
    assert verdict.fault


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_is_still_found_after_the_gateway_went_on_writing(tmp_path_factory, data: st.DataObject) -> None:
    url = url_of_folder(tmp_path_factory.mktemp("state"))
    with Store.open(url) as store:
        fill(store)
        intruder = Intruder(url)
        rows, counters = data.draw(tamperings(intruder.rows, intruder.counters))
        assume((rows, counters) != (intruder.rows, intruder.counters))
        intruder.write(rows, counters)
        intruder.close()
        store.audit("anna", "alarm.closed", "fraud", "")
        store.audit("anna", "alarm.closed", "fraud", "")
        assert not store.verify_audit().ok


@pytest.fixture
def prepared(url: str, open_store: Open):
    store = open_store()
    fill(store)
    intruder = Intruder(url)
    assert store.verify_audit().ok
    yield store, intruder
    intruder.close()


def cut(rows: list[Row], n: int) -> tuple[list[Row], Head]:
    """The cleanest cut: the counter is put right, too."""
    kept = rows[:-n]
    return kept, Head(len(kept), kept[-1].hash if kept else "")


@pytest.mark.parametrize("n", [1, 3, N])
def test_a_tail_cut_off_cleanly_is_found_by_the_noted_head(prepared: tuple[Store, Intruder], n: int) -> None:
    store, intruder = prepared
    intruder.write(*cut(intruder.rows, n))
    fault = str(store.verify_audit().fault)
    assert fault.startswith(f"the tail is cut off: {N - n} entries, but ")
    assert fault.endswith(f"audit-head knows of {N}")


def test_a_tail_cut_off_cleanly_is_found_by_a_head_noted_elsewhere(postgres) -> None:
    url = postgres.new_database()
    with Store.open(url) as store:
        fill(store)
        head = store.verify_audit().head
        intruder = Intruder(url)
        intruder.write(*cut(intruder.rows, 1))  # an entry beside which no table has anything
        intruder.close()
        assert store.verify_audit().ok  # without a folder nobody else knows
        assert not store.verify_audit(head=head).ok


def test_a_whole_chain_made_anew_without_the_key_is_found(tmp_path: Path) -> None:
    with Store.open(url_of_folder(tmp_path)) as store:
        fill(store)
        intruder = Intruder(url_of_folder(tmp_path))
        rows = forged([replace(intruder.rows[0], actor="somebody else"), *intruder.rows[1:]], 0)
        intruder.write(rows, Head(N, rows[-1].hash))
        (tmp_path / "audit-head").write_text(f"{N}:{rows[-1].hash}")  # even with the noted head in reach
        intruder.close()
        assert store.verify_audit().fault == f"entry {N}: written without the key, though there is one"


def test_a_whole_chain_made_anew_with_a_stolen_key_is_found_by_the_noted_head(tmp_path: Path) -> None:
    with Store.open(url_of_folder(tmp_path)) as store:
        fill(store)
        intruder = Intruder(url_of_folder(tmp_path))
        key = bytes.fromhex((tmp_path / "audit.key").read_text())
        rows = forged([replace(intruder.rows[0], actor="somebody else"), *intruder.rows[1:]], 0, key)
        intruder.write(rows, Head(N, rows[-1].hash))
        intruder.close()
        assert "rewritten" in str(store.verify_audit().fault)


@pytest.mark.parametrize(
    ("deed", "fault"),
    [
        (
            sa.update(schema.routes).where(schema.routes.c.generation == 3).values(document={"versions": {"1": 100}}),
            "route of 'fraud', generation 3: is not what entry 6 says",
        ),
        (
            sa.update(schema.routes).where(schema.routes.c.generation == 2).values(actor="carl"),
            "route of 'fraud', generation 2: is not what entry 5 says",
        ),
        (
            sa.delete(schema.routes).where(schema.routes.c.generation == 3),
            "route of 'fraud', generation 3: has an entry, but is not in the store",
        ),
        (
            sa.insert(schema.routes).values(
                model="fraud", generation=4, document={}, automatic=False, actor="anna", reason="", at=0.0
            ),
            "route of 'fraud', generation 4: is in the store, but in no entry",
        ),
        (
            sa.update(schema.versions).where(schema.versions.c.version == "1").values(digest="sha256:cc"),
            "version fraud/1: its digest is not what entry 1 says",
        ),
        (
            sa.insert(schema.versions).values(
                model="fraud",
                version="3",
                digest="",
                path="",
                lineage={},
                card={},
                is_retired=False,
                registered_at=0.0,
                registered_by="",
            ),
            "version fraud/3: is in the store, but in no entry",
        ),
    ],
)
def test_a_route_or_version_changed_past_the_gateway_is_found(
    prepared: tuple[Store, Intruder], deed: Any, fault: str
) -> None:
    store, intruder = prepared
    intruder.execute(deed)
    assert store.verify_audit().fault == fault


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("value", [b"\xff", 1.5, "x"])
def test_what_sqlite_lets_stand_in_a_column_is_found_and_the_log_can_be_read(
    tmp_path: Path, column: str, value: object
) -> None:
    with Store.open(url_of_folder(tmp_path)) as store:
        fill(store)
        intruder = Intruder(url_of_folder(tmp_path))
        intruder.execute(sa.text(f'UPDATE audit SET "{column}" = :value WHERE seq = 3').bindparams(value=value))
        intruder.close()
        assert str(store.verify_audit().fault).startswith("entry 3: ")
        assert len(store.audit_log()) == N


def test_a_count_that_is_gone_is_found(prepared: tuple[Store, Intruder]) -> None:
    store, intruder = prepared
    intruder.execute(sa.delete(schema.counters))
    assert store.verify_audit().fault == "the store's own count of the entries is missing"


def test_equal_documents_have_one_spelling() -> None:
    assert canonical({"b": 1, "a": [1.0, None, "é"]}) == canonical({"a": [1.0, None, "é"], "b": 1})
    assert canonical({"b": 1, "a": "é"}) == '{"a":"\\u00e9","b":1}'
