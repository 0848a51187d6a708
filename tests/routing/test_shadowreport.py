"""What is told of shadows, as documents: readable, JSON in every case, and adding up whatever the order."""

from __future__ import annotations

import itertools
import json
import struct
from typing import Any

import numpy as np
import orjson
import pytest

from gateway.routing.shadowreport import (
    disagreements_document,
    merged,
    pairs_document,
    quantile,
    rates,
    requests_document,
)
from tests.support.lanes import Model
from tests.support.shadows import ShadowHarness


def documents(shadow: Any, values: list[float], **wishes: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Requests, pairs and disagreements of a shadow that was asked these values."""
    with ShadowHarness(Model(), shadow, **wishes) as plane:
        for value in values:
            plane.send(value, request_id=f"{value:g}")
            plane.turn()
            plane.finish_all()
        found = (
            requests_document(plane.stats),
            pairs_document(plane.tally),
            disagreements_document(plane.tally, wall_offset_s=1_000.0),
        )
        plane.faults.clear()
    requests, pairs, disagreements = (json.loads(orjson.dumps(document)) for document in found)
    return requests, pairs, disagreements


def off_from(limit: float) -> Any:
    return lambda inputs: [np.where(inputs[0] < limit, inputs[0] * 2, inputs[0] * 2.2).astype(np.float32)]


def test_who_was_compared_with_whom_is_said() -> None:
    requests, pairs, disagreements = documents(off_from(3), [1, 2, 3, 4])
    sides = {"stage": 7, "primary_version": "1", "primary_arm": "stable", "version": "2"}
    assert requests == {"stage": 7, "drawn": 4, "shadowed": 4, "dropped": {}}
    assert sides.items() <= pairs.items()
    assert sides.items() <= disagreements.items()
    assert [sample["id"] for sample in disagreements["recent"]] == ["4", "3"], "the latest first"
    sample = disagreements["recent"][0]
    assert sample["at"] == pytest.approx(1_001.0)
    assert (sample["output"], sample["index"], sample["is_broken"]) == ("y", 0, False)
    assert sample["absolute_difference"] == pytest.approx(0.8)
    assert sample["relative_difference"] == pytest.approx(0.8 / 8.8)
    assert sample["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 1], "values": [4.0], "is_cut": False}]
    assert (sample["primary"][0]["values"], sample["shadow"][0]["values"]) == ([8.0], [pytest.approx(8.8)])
    assert (sample["primary_code"], sample["shadow_code"]) == ("OK", "OK")


def test_rates_are_what_people_ask_first() -> None:
    _, pairs, _ = documents(off_from(3), [1, 2, 3, 4])
    told = rates(pairs)
    assert (told["compared"], told["agreement"], told["exact"], told["shadow_failures"]) == (4, 0.5, 0.5, 0.0)
    assert told["outputs"]["y"]["within_tolerance"] == 0.5
    assert told["outputs"]["y"]["same_first"] is None, "one column has no largest"
    assert (told["outputs"]["y"]["median_relative_difference"], told["outputs"]["y"]["p99_relative_difference"]) == (
        0,
        0.1,
    )


def test_a_shadow_that_only_fails_has_rates_too() -> None:
    def broken(inputs: Any) -> Any:
        raise RuntimeError("broken")

    _, pairs, disagreements = documents(broken, [1, 2])
    assert rates(pairs)["agreement"] is None
    assert rates(pairs)["shadow_failures"] == 1.0
    assert {sample["text"] for sample in disagreements["recent"]} == {"model 'm' version '2' failed on this request"}


def test_documents_add_up_in_any_order() -> None:
    told = [documents(off_from(limit), [1, 2, 3, 4, float("nan")])[1] for limit in (0, 2, 9)]
    sums = [merged(order) for order in itertools.permutations(told)]
    assert all(total == sums[0] for total in sums)
    assert merged([merged(told[:2]), told[2]]) == sums[0]
    assert sums[0]["counts"]["both_answered"] == 15
    assert sums[0]["stage"] == 7
    assert sums[0]["counts"]["outputs"]["y"]["worst_relative"] == max(
        document["counts"]["outputs"]["y"]["worst_relative"] for document in told
    )


def test_numbers_that_json_has_no_word_for_are_text() -> None:
    def specials(inputs: Any) -> Any:
        return [np.full((len(inputs[0]), 1), np.inf, np.float32)]

    _, pairs, disagreements = documents(specials, [1.0, float("nan")])
    sample = disagreements["worst"][0]
    assert sample["is_broken"]
    assert sample["severity"] == "Infinity"
    assert sample["shadow"][0]["values"] == ["Infinity"]
    assert disagreements["recent"][0]["primary"][0]["values"] == ["NaN"]
    assert pairs["counts"]["outputs"]["y"]["broken"] == 2


@pytest.mark.parametrize(
    ("datatype", "array", "values"),
    [
        ("BYTES", np.array([["a\0b"], ["Füße"]], object), ["a\0b", "Füße"]),
        ("FP16", np.array([[1.5], [-2]], np.float16), [1.5, -2]),
        ("INT64", np.array([[2**62], [-1]], np.int64), [2**62, -1]),
        ("BOOL", np.array([[True], [False]]), [True, False]),
    ],
)
def test_tensors_of_every_kind_are_written_out(datatype: str, array: Any, values: list[Any]) -> None:
    x, y = ("x", datatype, (-1, 1)), ("y", datatype, (-1, 1))
    other = np.array([["b"], ["b"]], object) if datatype == "BYTES" else ~array if datatype == "BOOL" else array + 1
    with ShadowHarness(lambda given: [array], lambda given: [other], inputs=[x], outputs=[y]) as plane:
        plane.send(array)
        plane.turn()
        plane.finish_all()
        (sample,) = disagreements_document(plane.tally, 0.0)["recent"]
    assert sample["inputs"][0]["values"] == values
    assert sample["primary"][0]["values"] == values
    orjson.dumps(sample)


def test_bf16_is_written_as_the_numbers_it_stands_for() -> None:
    from gateway.routing.shadowreport import _values

    assert _values("BF16", struct.pack("<2H", 0x3F80, 0xC000)) == [1.0, -2.0]


def test_quantiles_are_bounds_of_buckets() -> None:
    counts = [0] * 18
    assert quantile(counts, 0.5) is None
    counts[0], counts[17] = 9, 1
    assert (quantile(counts, 0.5), quantile(counts, 0.99)) == (0.0, "Infinity")
