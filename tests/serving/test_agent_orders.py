"""What a worker loads and unloads when the store's orders change, and what it remembers in its file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving import lastroutes
from gateway.serving.lastroutes import KeptRoute, LastRoutes
from gateway.serving.orders import Changes, Key, Orders, changes, remembered

ONE, TWO = ("m", "1"), ("m", "2")


def orders(wanted: set[Key] = frozenset(), retired: set[Key] = frozenset()) -> Orders:  # type: ignore[assignment]
    return Orders(1, {}, frozenset(wanted), frozenset(retired))


def test_what_becomes_wanted_is_loaded_once() -> None:
    assert changes(orders({ONE}), LastRoutes(), set()) == Changes(load=frozenset({ONE}))
    known = remembered(orders({ONE}), LastRoutes())
    assert changes(orders({ONE}), known, set()) == Changes()  # it failed, or a client has unloaded it: not our doing


def test_what_is_wanted_no_longer_is_unloaded() -> None:
    known = remembered(orders({ONE}), LastRoutes())
    assert changes(orders(), known, {ONE, TWO}) == Changes(unload=frozenset({ONE}))
    assert remembered(orders(), known).unwanted == {ONE}


def test_what_nobody_asked_for_or_against_is_left_alone() -> None:
    assert changes(orders(), LastRoutes(), {ONE}) == Changes()


def test_what_is_wanted_again_is_loaded_again() -> None:
    known = remembered(orders(), remembered(orders({ONE}), LastRoutes()))
    assert changes(orders({ONE}), known, set()) == Changes(load=frozenset({ONE}))
    assert remembered(orders({ONE}), known).unwanted == frozenset()


def test_a_retired_version_is_unloaded_however_it_came() -> None:
    assert changes(orders(retired={ONE}), LastRoutes(), {ONE}) == Changes(unload=frozenset({ONE}))
    assert changes(orders({ONE}, {ONE}), LastRoutes(), set()) == Changes()
    assert remembered(orders(retired={ONE}), LastRoutes()).unwanted == {ONE}


keys = st.frozensets(st.tuples(st.sampled_from("ab"), st.sampled_from("123")))


@given(steps=st.lists(st.tuples(keys, keys)), ready=keys)
def test_after_any_orders_what_serves_is_what_was_left_alone_or_is_wanted(
    steps: list[tuple[frozenset[Key], frozenset[Key]]], ready: frozenset[Key]
) -> None:
    known, serving, ever_wanted = LastRoutes(), set(ready), set()
    for wanted, retired in steps:
        given_now = orders(set(wanted), set(retired))
        todo = changes(given_now, known, serving)
        assert not todo.load & todo.unload
        serving = (serving | todo.load) - todo.unload
        known = remembered(given_now, known)
        ever_wanted |= wanted | retired
        assert wanted - retired <= serving
        assert not serving & retired
        assert serving - wanted <= ready - retired
        assert known.unwanted == ever_wanted - (wanted - retired)
        assert LastRoutes.model_validate_json(known.model_dump_json()) == known


def test_the_file_gives_back_what_was_written_and_is_replaced_as_a_whole(tmp_path: Path) -> None:
    route = KeptRoute(generation=3, document={"versions": {"1": 100}}, automatic=True)
    last = LastRoutes(revision=7, routes={"m": route}, wanted=frozenset({ONE}), unwanted=frozenset({TWO}))
    lastroutes.write(tmp_path, last)
    assert lastroutes.read(tmp_path) == last
    assert [file.name for file in tmp_path.iterdir()] == [lastroutes.FILE]
    assert lastroutes.read(tmp_path / "nowhere") == lastroutes.read(None) == LastRoutes()


@pytest.mark.parametrize("content", ["", "{", '{"revision": "many"}', "\0" * 99])
def test_a_file_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / lastroutes.FILE).write_text(content)
    assert lastroutes.read(tmp_path) == LastRoutes()


def test_the_last_routes_are_current_only_while_the_store_has_the_same_revision(tmp_path: Path) -> None:
    from gateway.store import Store

    url = f"sqlite:///{tmp_path}/gateway.db"
    assert not lastroutes.are_current(LastRoutes(revision=1), url)
    with Store.open(url) as store:
        store.put_route("m", {"versions": {"1": 100}}, None, "ada", "")
        last = LastRoutes(revision=store.revision())
        assert lastroutes.are_current(last, url)
        store.put_route("m", {"versions": {"1": 100}}, None, "ada", "")
        assert not lastroutes.are_current(last, url)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE counters (count)")
    assert not lastroutes.are_current(last, f"sqlite:///{tmp_path}/other.db")
    assert not lastroutes.are_current(last, "postgresql://nobody@nowhere/none")
