"""Accuracy, confusion, calibration and errors, against scikit-learn on the same answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from gateway.feedback import tally
from gateway.feedback.report import LABEL, VALUE, Fact, Status
from gateway.feedback.scores import MAX_CLASSES, OTHER, Scores, scores

HOUR = 500_000


def fact(kind: str, name: str = "", **fields: object) -> Fact:
    given = {
        "predicted": None, "score": None, "label": None, "value": None, "groups": "", "answered": "1", **fields,
    }  # fmt: skip
    where = (b"i" * 14, 0, kind, name, "m", "1")
    drawn = {"arm": "stable", "stage": 1, "weight": 10_000, "unit": None, "arrived_at": HOUR * 3600.0, "at": 0.0}
    return Fact(*where, **{**drawn, **given})  # type: ignore[arg-type]


def shown(tallies: tally.Tallies) -> Scores:
    return scores("m", {(key[0], key[1], key[3], key[4]): t for key, t in tallies.items()})


def test_classes_are_scored_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(1)
    predicted, labels, sure = rng.integers(0, 12, 500), rng.integers(0, 12, 500), rng.uniform(0, 1, 500)
    labels = np.where(rng.uniform(size=500) < sure, predicted, labels)
    found = shown(
        tally.of_facts(
            fact(LABEL, predicted=str(p), label=str(y), score=float(s))
            for p, y, s in zip(predicted, labels, sure, strict=True)
        )
    ).versions[0]
    assert found.accuracy is not None
    assert found.accuracy.share == np.mean(predicted == labels)
    assert found.accuracy.low < found.accuracy.share < found.accuracy.high
    assert found.confusion is not None
    assert found.confusion.classes == [str(i) for i in range(12)]
    assert found.confusion.counts == confusion_matrix(labels, predicted).T.tolist()
    assert found.calibration is not None
    place = np.minimum((sure * tally.BINS).astype(int), tally.BINS - 1)
    gaps = [abs((sure - (predicted == labels))[place == b].sum()) for b in range(tally.BINS)]
    assert found.calibration.error == pytest.approx(sum(gaps) / 500)
    assert sum(b.n for b in found.calibration.bins) == 500


def test_numbers_are_scored_by_their_errors() -> None:
    pairs = [(1.0, "2"), (5.0, "4.5"), (3.0, "3")]
    found = shown(tally.of_facts(fact(LABEL, score=p, label=y) for p, y in pairs)).versions[0].regression
    assert found is not None
    assert (found.n, found.mean_absolute_error) == (3, 0.5)
    assert found.root_mean_square_error == pytest.approx(math.sqrt(1.25 / 3))
    assert not tally.of_facts([fact(LABEL, score=1.0, label="cat"), fact(LABEL, label="cat")])


def test_values_are_summed_by_name_and_by_the_version_that_answered() -> None:
    given = [fact(VALUE, "sold", value=v, answered=a) for v, a in ((1.0, "2"), (3.0, "2"), (7.0, "10"))]
    found = shown(tally.of_facts(given)).versions
    assert [v.version for v in found] == ["2", "10"]
    sold = found[0].values["sold"]
    assert (sold.n, sold.mean, sold.deviation, sold.total) == (2, 2.0, 1.0, 4.0)


def test_a_table_of_many_classes_keeps_the_frequent_ones() -> None:
    labels = [str(i) for i in range(200) for _ in range(1 + (i < 10))]
    found = shown(tally.of_facts(fact(LABEL, predicted=y, label=y) for y in labels)).versions[0].confusion
    assert found is not None
    assert len(found.classes) == MAX_CLASSES + 1
    assert found.classes[-1] == OTHER
    assert set(map(str, range(10))) <= set(found.classes)
    assert sum(map(sum, found.counts)) == len(labels)


def test_refusals_are_of_no_model_and_the_rest_of_its_version() -> None:
    tallies: tally.Tallies = {}
    for model, version, status in (
        ("", "", Status.FORGED),
        ("", "", Status.FORGED),
        ("m", "1", Status.ACCEPTED),
        ("m", "1", Status.DUPLICATE),
    ):
        tally.count_outcome(tallies, model, version, status, 0.0)
    found = shown(tallies)
    assert found.refused == {"forged": 2}
    assert [(v.version, v.accepted, v.duplicate, v.accuracy) for v in found.versions] == [("1", 1, 1, None)]
