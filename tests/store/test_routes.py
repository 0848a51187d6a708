"""Routes by generation: what is in force, who came too late, and what was before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.errors import InvalidArgument, NotFound
from gateway.store import Conflict, RouteRecord, Store
from tests.store.conftest import Open

ONE: dict[str, Any] = {"versions": {"1": 100}}
TWO: dict[str, Any] = {"versions": {"1": 95, "2": 5}, "sticky": {"header": "x-user"}}


def test_a_model_has_no_route_until_one_is_put(store: Store) -> None:
    assert store.routes() == {}
    assert store.route_history("fraud") == []


def test_the_newest_generation_is_in_force_and_the_others_are_history(store: Store) -> None:
    first = store.put_route("fraud", ONE, None, "gateway", "first route", automatic=True)
    second = store.put_route("fraud", TWO, 1, "anna", "5 % to the new one")
    assert (first.generation, second.generation) == (1, 2)
    assert store.routes() == {"fraud": second}
    assert store.route_history("fraud") == [second, first]
    assert store.route_history("fraud", limit=1) == [second]
    assert store.route_at("fraud", 1) == first
    assert (first.automatic, second.automatic, second.actor, second.reason) == (
        True,
        False,
        "anna",
        "5 % to the new one",
    )
    assert second.document == TWO


def test_each_model_counts_its_own_generations(store: Store) -> None:
    store.put_route("fraud", ONE, 0, "anna", "")
    store.put_route("fraud", TWO, 1, "anna", "")
    assert store.put_route("iris", ONE, 0, "anna", "").generation == 1
    assert {model: record.generation for model, record in store.routes().items()} == {"fraud": 2, "iris": 1}


def test_who_saw_an_older_generation_is_refused_and_told_what_is_in_force(store: Store) -> None:
    store.put_route("fraud", ONE, 0, "anna", "")
    in_force = store.put_route("fraud", TWO, 1, "bert", "canary")
    with pytest.raises(Conflict, match=r"generation 1 was expected, but 2 is in force, by bert \(canary\)") as caught:
        store.put_route("fraud", ONE, 1, "anna", "")
    assert caught.value.current == in_force
    assert store.routes() == {"fraud": in_force}


def test_who_expects_a_route_where_there_is_none_is_refused(store: Store) -> None:
    with pytest.raises(Conflict, match="generation 3 was expected, but it has no route") as caught:
        store.put_route("fraud", ONE, 3, "anna", "")
    assert caught.value.current is None


def test_of_many_who_change_the_same_generation_at_once_one_wins(open_store: Open) -> None:
    stores = [open_store() for _ in range(4)]
    stores[0].put_route("fraud", ONE, 0, "anna", "")

    def change(number: int) -> RouteRecord | Conflict:
        try:
            return stores[number % 4].put_route("fraud", TWO, 1, f"operator {number}", "")
        except Conflict as conflict:
            return conflict

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(change, range(16)))
    winners = [outcome for outcome in outcomes if isinstance(outcome, RouteRecord)]
    assert len(winners) == 1
    assert all(outcome.current == winners[0] for outcome in outcomes if isinstance(outcome, Conflict))
    assert stores[1].verify_audit().ok


def test_changes_from_many_threads_and_connections_are_one_after_the_other(open_store: Open) -> None:
    stores = [open_store() for _ in range(4)]

    def change(number: int) -> int:
        return stores[number % 4].put_route("fraud", ONE, None, "anna", "").generation

    with ThreadPoolExecutor(8) as pool:
        generations = list(pool.map(change, range(40)))
    assert sorted(generations) == list(range(1, 41))
    verdict = stores[0].verify_audit()
    assert (verdict.ok, verdict.n, verdict.fault) == (True, 40, None)


def test_a_generation_that_never_was_is_not_found_and_the_range_is_told(store: Store) -> None:
    with pytest.raises(NotFound, match="no generation 1; it never had a route"):
        store.route_at("fraud", 1)
    store.put_route("fraud", ONE, 0, "anna", "")
    with pytest.raises(NotFound, match="no generation 7; it has 1 to 1"):
        store.route_at("fraud", 7)


@pytest.mark.parametrize(
    ("document", "actor", "reason", "words"),
    [
        ({"percent": float("nan")}, "anna", "", "document: not JSON"),
        ({"sticky": object()}, "anna", "", "document: not JSON"),
        (ONE, "", "", "actor: is empty"),
        (ONE, "an\0na", "", "actor: .* holds a character that is no text"),
        (ONE, "anna", "\ud800", "reason: .* holds a character that is no text"),
        (ONE, "anna", "x" * 4001, "reason: 4001 characters; expected 4000 at most"),
    ],
)
def test_what_no_database_could_hold_is_refused_and_nothing_is_changed(
    store: Store, document: dict[str, Any], actor: str, reason: str, words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        store.put_route("fraud", document, None, actor, reason)
    assert store.routes() == {}
    assert store.audit_log() == []


def test_documents_and_texts_come_back_as_they_went_in(store: Store) -> None:
    document = {"rules": [{"match": {"header": "x", "exact": "Zürich \U0001f642 \0"}}], "n": 10**15, "share": 0.1}
    record = store.put_route("naïve/модель", document, None, "Åsa", 'weil\'s "so" ist;\n-- DROP')
    assert store.routes()["naïve/модель"] == record
    assert store.routes()["naïve/модель"].document == document
