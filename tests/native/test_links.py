"""Which answers a shadow's belong to: pairs of tokens, an even sample, whatever became of the shadow."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.native import receipt
from gateway.native.links import Links
from gateway.native.receipt import Receipts, Signer
from tests.support.lanes import Model
from tests.support.receipttwin import KEY
from tests.support.shadows import ShadowHarness


def linked(plane: ShadowHarness, room: int = 100) -> Links:
    """All lanes with receipts, and the mirror with links."""
    signer = Signer(KEY)
    for lane in plane.lanes.values():
        lane.stamp = Receipts(signer, lane.signature, score_output="y")
    links = plane.plane.mirror.links = Links(room)
    return links


def halved(inputs: list[np.ndarray]) -> list[np.ndarray]:
    return [inputs[0] * 0.5]


@pytest.mark.parametrize("first", ["primary", "shadow"])
def test_a_pair_is_linked_with_what_either_predicted(first: str) -> None:
    with ShadowHarness(Model(), halved) as plane:
        links = linked(plane)
        call = plane.send(0.4)
        plane.turn()
        getattr(plane, first)()
        getattr(plane, "shadow" if first == "primary" else "primary")()
        ((primary, shadow, version),) = links.take()
        assert primary.decode() == call.response.parameters[receipt.PARAMETER].string_param
        assert shadow is not None
        said, told = receipt.read(KEY, primary), receipt.read(KEY, shadow)
        assert (said[4], said[5], said[10]) == ("1", "stable", [(1, pytest.approx(0.8))])
        assert (version, told[4], told[5], told[10]) == ("2", "2", "shadow", [(0, pytest.approx(0.8))])
        assert links.take() == []
        assert plane.counts["both_answered"] == 1


def test_a_shadow_that_fails_is_linked_with_nothing() -> None:
    with ShadowHarness(Model(), Model(poison={7.0})) as plane:
        links = linked(plane)
        plane.send(7.0)
        plane.turn()
        plane.primary()
        plane.shadow()
        assert [(shadow, version) for _, shadow, version in links.take()] == [(None, "2")]
        plane.expect_faults(RuntimeError)


def test_a_primary_without_a_token_is_not_linked() -> None:
    with ShadowHarness() as plane:
        links = plane.plane.mirror.links = Links(3)
        plane.send(1.0)
        plane.turn()
        plane.primary()
        plane.shadow()
        assert links.take() == []


def test_the_sample_is_even_and_no_larger_than_its_room() -> None:
    counts = np.zeros(40)
    with ShadowHarness(max_rows=4096, max_concurrency=4096) as plane:
        links = linked(plane, room=10)
        for _ in range(60):
            calls = [plane.send(0.1) for _ in range(40)]
            plane.turn()
            while plane.batches:
                plane.finish_all()
                plane.turn()
            order = {c.response.parameters[receipt.PARAMETER].string_param: i for i, c in enumerate(calls)}
            kept = [order[primary.decode()] for primary, _, _ in links.take()]
            assert len(kept) == 10
            counts[kept] += 1
    assert counts.sum() == 600
    assert counts.max() <= 33  # 15 expected, deviation 3.4
    assert counts.min() >= 1
