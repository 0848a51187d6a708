"""The catalog: which moves are legal, what resolves to what, and when the server is ready."""

from __future__ import annotations

import itertools

import pytest

from gateway.backends.base import Signature, TensorSpec
from gateway.errors import NotFound, Unavailable
from gateway.serving.catalog import Catalog, IllegalMove, ServedVersion, State

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "INT64", (-1,)),), batched=True)
LEGAL = {
    (State.LOADING, State.READY),
    (State.LOADING, State.UNAVAILABLE),
    (State.READY, State.READY),  # loaded anew
    (State.READY, State.UNLOADING),
    (State.UNLOADING, State.UNAVAILABLE),
    (State.UNAVAILABLE, State.LOADING),
    (State.READY, State.UNAVAILABLE),  # its servers are gone
    (State.UNAVAILABLE, State.READY),  # and back
    (State.UNAVAILABLE, State.UNLOADING),
}
PATH_TO = {
    State.LOADING: [],
    State.READY: [State.READY],
    State.UNLOADING: [State.READY, State.UNLOADING],
    State.UNAVAILABLE: [State.UNAVAILABLE],
}


def put(catalog: Catalog, model: str, version: str, state: State, reason: str = "") -> ServedVersion:
    entry = catalog.add(model, version)
    for step in PATH_TO[state]:
        catalog.move(entry, step, reason if step is state else "", SIGNATURE if step is State.READY else None, "p")
    return entry


@pytest.mark.parametrize(("source", "target"), list(itertools.product(State, State)))
def test_exactly_the_moves_of_the_table_are_legal_and_others_name_both_states(source: State, target: State) -> None:
    catalog = Catalog()
    entry = put(catalog, "m", "1", source)
    if (source, target) in LEGAL:
        catalog.move(entry, target)
        assert entry.state is target
    else:
        with pytest.raises(IllegalMove, match=rf"'m' version 1: {source.value} -> {target.value}"):
            catalog.move(entry, target)
        assert entry.state is source


def test_a_hindered_version_keeps_what_is_known_of_it_and_comes_back() -> None:
    catalog = Catalog()
    entry = put(catalog, "m", "1", State.READY)
    catalog.hinder(entry, "no server")
    with pytest.raises(Unavailable, match="UNAVAILABLE: no server"):
        catalog.resolve("m", "1")
    assert entry.signature == SIGNATURE
    catalog.hinder(entry, "another server")
    assert entry.reason == "another server"
    catalog.hinder(entry, "")
    assert catalog.resolve("m", "1") is entry
    assert not entry.reason


def test_what_is_being_unloaded_cannot_be_hindered() -> None:
    catalog = Catalog()
    entry = put(catalog, "m", "1", State.UNLOADING)
    catalog.hinder(entry, "no server")
    assert entry.state is State.UNLOADING


def test_an_empty_version_is_the_highest_ready_one_by_number_not_by_text() -> None:
    catalog = Catalog()
    for version in ("9", "10"):
        put(catalog, "m", version, State.READY)
    put(catalog, "m", "11", State.UNAVAILABLE, "broken")
    assert catalog.resolve("m").version == "10"
    assert catalog.resolve("m", "9").version == "9"
    assert [entry.version for entry in catalog.versions("m")] == ["9", "10", "11"]


def test_an_unknown_model_is_answered_with_the_models_that_exist() -> None:
    catalog = Catalog()
    put(catalog, "fraud", "1", State.READY)
    put(catalog, "churn", "1", State.READY)
    with pytest.raises(
        NotFound, match=r"^Request for unknown model: 'frod' is not found; models here: 'churn', 'fraud'$"
    ):
        catalog.resolve("frod")


def test_with_an_empty_catalog_the_text_says_none() -> None:
    with pytest.raises(NotFound, match=r"models here: none$"):
        Catalog().resolve("m")


def test_a_megabyte_name_is_not_echoed_whole() -> None:
    with pytest.raises(NotFound) as caught:
        Catalog().resolve("x" * 2**20)
    assert len(str(caught.value)) < 200


def test_many_models_are_counted_not_listed() -> None:
    catalog = Catalog()
    for number in range(30):
        put(catalog, f"m{number:02}", "1", State.READY)
    with pytest.raises(NotFound, match=r"'m19' and 10 more$"):
        catalog.resolve("x")


@pytest.mark.parametrize("version", ["3", "01", "-1", "1.0", "one"])
def test_an_unknown_version_is_answered_with_the_versions_that_exist(version: str) -> None:
    catalog = Catalog()
    put(catalog, "m", "1", State.READY)
    put(catalog, "m", "2", State.LOADING)
    with pytest.raises(NotFound) as caught:
        catalog.resolve("m", version)
    assert str(caught.value) == f"model 'm' has no version '{version}'; its versions: 1 (READY), 2 (LOADING)"


def test_a_version_that_is_not_ready_is_unavailable_with_its_reason() -> None:
    catalog = Catalog()
    put(catalog, "m", "1", State.UNAVAILABLE, "model.onnx is truncated")
    with pytest.raises(Unavailable, match=r"^model 'm' version 1 is UNAVAILABLE: model.onnx is truncated$"):
        catalog.resolve("m", "1")
    put(catalog, "m", "2", State.LOADING)
    with pytest.raises(
        Unavailable, match=r"no version ready: version 1 is UNAVAILABLE: model.*; version 2 is LOADING$"
    ):
        catalog.resolve("m")


@pytest.mark.parametrize("version", ["0", "01", "-1", "", "a", "²"])
def test_a_version_that_is_no_positive_number_cannot_be_added(version: str) -> None:
    with pytest.raises(ValueError, match="positive whole number"):
        Catalog().add("m", version)


def test_the_same_version_cannot_be_added_twice() -> None:
    catalog = Catalog()
    catalog.add("m", "1")
    with pytest.raises(ValueError, match="already in the catalog"):
        catalog.add("m", "1")


def test_signature_lives_from_ready_through_unloading() -> None:
    catalog = Catalog()
    entry = put(catalog, "m", "1", State.READY)
    catalog.move(entry, State.UNLOADING, "asked to")
    assert (entry.signature, entry.platform, entry.reason) == (SIGNATURE, "p", "asked to")
    catalog.move(entry, State.UNAVAILABLE, "unloaded")
    assert (entry.signature, entry.platform, entry.reason) == (None, "", "unloaded")


def test_the_server_is_ready_when_started_and_settled_with_one_version_ready() -> None:
    catalog = Catalog()
    good, bad = catalog.add("good", "1"), catalog.add("bad", "1")
    seen = [catalog.ready]
    catalog.move(good, State.READY)
    seen.append(catalog.ready)
    catalog.started = True
    seen.append(catalog.ready)  # bad is still LOADING
    catalog.move(bad, State.UNAVAILABLE, "corrupt")
    seen.append(catalog.ready)
    assert seen == [False, False, False, True]


def test_the_server_is_not_ready_when_every_version_failed() -> None:
    catalog = Catalog()
    put(catalog, "m", "1", State.UNAVAILABLE)
    catalog.started = True
    assert not catalog.ready
    assert catalog.live


def test_a_load_after_start_and_a_reload_do_not_make_the_server_unready() -> None:
    catalog = Catalog()
    put(catalog, "m", "1", State.READY)
    failed = put(catalog, "m", "2", State.UNAVAILABLE)
    catalog.started = True
    catalog.add("m", "3")
    catalog.move(failed, State.LOADING)
    assert catalog.ready


def test_a_draining_server_is_live_and_not_ready() -> None:
    catalog = Catalog()
    put(catalog, "m", "1", State.READY)
    catalog.started = True
    catalog.draining = True
    assert (catalog.live, catalog.ready) == (True, False)


def test_subscribers_are_called_after_each_change_until_they_leave() -> None:
    catalog = Catalog()
    seen: list[str] = []
    leave = catalog.subscribe(lambda: seen.append(",".join(e.state.value for e in catalog.versions("m"))))
    entry = catalog.add("m", "1")
    catalog.move(entry, State.READY)
    catalog.started = True
    catalog.draining = True
    leave()
    leave()
    catalog.move(entry, State.UNLOADING)
    assert seen == ["LOADING", "READY", "READY", "READY"]


def test_a_subscriber_that_another_one_ends_is_not_called_any_more() -> None:
    catalog = Catalog()
    seen: list[str] = []
    leaves = []
    catalog.subscribe(lambda: [leave() for leave in leaves] and None)
    leaves.append(catalog.subscribe(lambda: seen.append("second")))
    catalog.started = True
    assert seen == []
