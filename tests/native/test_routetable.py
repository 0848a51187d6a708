"""Model and version to lane: a table that finds what is in it, and says why it does not find the rest."""

import gc
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.native.lane import Lane
from gateway.native.refusal import Refusal
from gateway.native.routetable import RouteTable
from gateway.native.signature import Signature
from gateway.native.timers import Timers
from tests.support.lanes import NOT_FOUND, UNAVAILABLE, refused

SIGNATURE = Signature("m", "1", [("x", "FP32", (-1,))], [("y", "FP32", (-1,))], True)


def lane():
    return Lane(SIGNATURE, None, None, None, Timers(), [], max_batch_size=1)


LANES = [lane() for _ in range(4)]
NAMES = st.text(st.sampled_from("abé1\0日"), max_size=4)
TARGETS = st.one_of(st.sampled_from(LANES), st.sampled_from(["LOADING", ""]))


@given(
    st.dictionaries(NAMES, st.dictionaries(NAMES, TARGETS, max_size=8), max_size=12), st.lists(st.tuples(NAMES, NAMES))
)
def test_a_lookup_is_that_of_a_dictionary(models, asked):
    table = RouteTable(models)
    for model, version in [*asked, *((name, number) for name in models for number in models[name])]:
        target = models.get(model, {}).get(version)
        if isinstance(target, Lane):
            assert table.lookup(model, version) is target
        else:
            refusal = refused(table.lookup, model, version)
            assert refusal.code == (NOT_FOUND if target is None else UNAVAILABLE)


def test_a_table_of_thousands_finds_each_and_nothing_else():
    models = {f"model-{i}": {str(version): lane() for version in range(3)} for i in range(1_000)}
    table = RouteTable(models)
    for model, versions in models.items():
        for version, target in versions.items():
            assert table.lookup(model, version) is target
        assert refused(table.lookup, model, "3").code == NOT_FOUND


def test_model_and_version_do_not_run_together():
    one, other = LANES[:2]
    table = RouteTable({"ab": {"c": one}, "a": {"bc": other}})
    assert table.lookup("ab", "c") is one
    assert table.lookup("a", "bc") is other
    assert refused(table.lookup, "abc", "").code == NOT_FOUND


def test_without_a_version_the_default_is_meant():
    table = RouteTable({"m": {"": LANES[0], "1": LANES[1]}})
    assert table.lookup("m") is LANES[0]


TABLE = {
    "a": {"": "no version is ready", "1": "LOADING"},
    "m": {"": LANES[0], "10": LANES[0], "9": LANES[1], "beta": LANES[2]},
}


@pytest.mark.parametrize(
    ("model", "version", "code", "text"),
    [
        ("a", "", UNAVAILABLE, "model 'a' does not serve: no version is ready"),
        ("a", "1", UNAVAILABLE, "model 'a' version '1' does not serve: LOADING"),
        ("b", "", NOT_FOUND, "Request for unknown model: 'b' is not found, expected one of a, m"),
        ("", "", NOT_FOUND, "model_name is empty, expected one of a, m"),
        ("m", "8", NOT_FOUND, "model_version of model 'm': got '8', expected one of 9, 10, beta"),
    ],
)
def test_what_is_not_found_is_explained(model, version, code, text):
    refusal = refused(RouteTable(TABLE).lookup, model, version)
    assert (refusal.code, str(refusal)) == (code, text)


def test_an_empty_table_says_so():
    assert (
        str(refused(RouteTable({}).lookup, "m")) == "Request for unknown model: 'm' is not found, expected one of none"
    )


def test_an_unknown_name_among_many_does_not_list_them_all():
    table = RouteTable({f"model-{i:03}": {"": LANES[0]} for i in range(100)})
    assert str(refused(table.lookup, "x")).count("model-") == 20


@pytest.mark.parametrize("target", [None, 5, b"LOADING"])
def test_a_route_to_anything_else_is_refused(target):
    with pytest.raises(TypeError, match="a Lane or to a reason"):
        RouteTable({"m": {"": target}})


def test_a_table_holds_its_lanes_and_lets_them_go():
    held = lane()
    before = sys.getrefcount(held)
    table = RouteTable({"m": {"": held, "1": held}})
    assert sys.getrefcount(held) == before + 2
    assert table.lookup("m") is held
    del table
    gc.collect()
    assert sys.getrefcount(held) == before


def test_a_refusal_carries_code_and_text():
    refusal = Refusal(5, "not here")
    assert (refusal.code, refusal.text, str(refusal), refusal.args) == (5, "not here", "not here", (5, "not here"))
