"""Versions: a number stands for the same files for ever, and workers are told which to load."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from gateway.errors import Code, LoadError, NotFound
from gateway.store import DigestMismatch, Store, VersionRecord
from tests.store.conftest import Open

FIRST = VersionRecord(
    model="fraud",
    version="1",
    digest="sha256:aa",
    path="/models/fraud/1",
    lineage={"parent": None, "data": "s3://ledger/2026-06"},
    card={"owner": "risk", "metrics": {"auc": 0.97}},
)


def test_what_is_registered_comes_back_with_who_and_when(store: Store) -> None:
    registered = store.register_version(FIRST, "anna")
    assert store.versions() == [registered]
    assert replace(registered, registered_at=0.0) == replace(FIRST, registered_by="anna")
    assert registered.registered_at > 1.7e9


def test_versions_are_sorted_by_model_and_number(store: Store) -> None:
    for model, version in [("iris", "2"), ("fraud", "10"), ("fraud", "9"), ("iris", "1")]:
        store.register_version(replace(FIRST, model=model, version=version), "anna")
    found = [(record.model, record.version) for record in store.versions()]
    assert found == [("fraud", "9"), ("fraud", "10"), ("iris", "1"), ("iris", "2")]
    assert [record.version for record in store.versions("iris")] == ["1", "2"]
    assert store.versions("nobody") == []


def test_registering_the_same_again_changes_nothing_and_says_nothing(store: Store) -> None:
    registered = store.register_version(FIRST, "anna")
    revision = store.revision()
    assert store.register_version(FIRST, "bert") == registered
    assert store.revision() == revision
    assert len(store.audit_log()) == 1


def test_a_changed_file_under_a_known_number_is_refused_by_digest(store: Store) -> None:
    registered = store.register_version(FIRST, "anna")
    with pytest.raises(DigestMismatch) as caught:
        store.register_version(replace(FIRST, digest="sha256:bb"), "bert")
    assert str(caught.value) == (
        "model 'fraud' version 1: its files are sha256:bb, but it is registered as sha256:aa; a version never changes: "
        "put the new files under a number of their own, and the old ones back"
    )
    assert caught.value.code is Code.ALREADY_EXISTS
    assert store.versions() == [registered]


def test_the_signature_is_learned_later_and_never_forgotten(store: Store) -> None:
    store.register_version(FIRST, "anna")
    signature = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}
    store.register_version(replace(FIRST, signature=signature), "gateway")
    store.register_version(FIRST, "gateway")
    assert store.versions()[0].signature == signature
    assert [entry.action for entry in store.audit_log()] == ["version.register"]


def test_a_new_card_is_kept_and_audited_with_the_old_one(store: Store) -> None:
    store.register_version(FIRST, "anna")
    store.register_version(replace(FIRST, card={"owner": "fraud"}), "bert", "moved")
    assert store.versions()[0].card == {"owner": "fraud"}
    entry = store.audit_log()[0]
    assert (entry.action, entry.actor, entry.subject, entry.reason) == ("version.describe", "bert", "fraud/1", "moved")
    assert entry.before == {"lineage": FIRST.lineage, "card": FIRST.card}
    assert entry.after == {"lineage": FIRST.lineage, "card": {"owner": "fraud"}}


def test_of_two_files_registered_at_once_under_one_number_one_wins(open_store: Open) -> None:
    stores = [open_store(), open_store()]

    def register(number: int) -> str:
        try:
            return stores[number % 2].register_version(replace(FIRST, digest=f"sha256:{number}"), "anna").digest
        except DigestMismatch:
            return ""

    with ThreadPoolExecutor(8) as pool:
        won = [digest for digest in pool.map(register, range(8)) if digest]
    assert [record.digest for record in stores[0].versions()] == won


def test_a_wanted_version_is_wanted_until_it_is_not(store: Store) -> None:
    store.register_version(FIRST, "anna")
    store.want("fraud", "1", "anna")
    store.want("fraud", "1", "anna")
    assert store.wanted() == {("fraud", "1")}
    store.unwant("fraud", "1", "anna")
    store.unwant("fraud", "1", "anna")
    assert store.wanted() == set()
    assert [entry.action for entry in store.audit_log()] == ["version.unwant", "version.want", "version.register"]


def test_a_retired_version_is_wanted_no_more_and_cannot_be_until_it_is_back(store: Store) -> None:
    store.register_version(FIRST, "anna")
    store.want("fraud", "1", "anna")
    store.retire_version("fraud", "1", "bert", "too old")
    assert store.versions()[0].is_retired
    assert store.wanted() == set()
    with pytest.raises(LoadError, match="model 'fraud' version 1: is retired"):
        store.want("fraud", "1", "anna")
    assert store.register_version(FIRST, "gateway").is_retired  # a scan of the folder does not bring it back
    store.unretire("fraud", "1", "anna", "needed again")
    store.want("fraud", "1", "anna")
    assert store.wanted() == {("fraud", "1")}
    entries = [(entry.action, entry.reason) for entry in store.audit_log(limit=4)]
    assert entries[1:] == [
        ("version.unretire", "needed again"),
        ("version.retire", "too old"),
        ("version.unwant", "too old"),
    ]


def test_what_is_not_registered_is_not_found_and_what_is_there_is_told(store: Store) -> None:
    for change in (store.want, store.unwant, store.retire_version, store.unretire):
        with pytest.raises(NotFound, match="version 7: is not registered; no such model is registered"):
            change("fraud", "7", "anna")
    for version in ("2", "10"):
        store.register_version(replace(FIRST, version=version), "anna")
    with pytest.raises(NotFound, match="model 'fraud' version 7: is not registered; versions here: 2, 10"):
        store.want("fraud", "7", "anna")
