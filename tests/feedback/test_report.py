"""A report is taken apart into facts, or refused with the reason and what would have been right."""

from __future__ import annotations

import math

import pytest

from gateway.feedback import report
from gateway.feedback.report import GROUPS, LABEL, MAX_AGE_S, VALUE, Fact, Report, Result, Status
from tests.support.receipttwin import KEY, token

NOW = 1_800_000_000.0


def facts(given: Report) -> list[Fact]:
    found = report.read(given, KEY, NOW)
    assert isinstance(found, list), found
    return found


def refusal(given: Report, now_s: float = NOW) -> Result:
    found = report.read(given, KEY, now_s)
    assert isinstance(found, Result), found
    return found


def of(**fields: object) -> str:
    return token(at=NOW - 60.0, **fields)


def test_a_report_is_a_fact_for_its_label_for_each_value_and_for_its_groups() -> None:
    text = of(version="2", arm="candidate", stage=7, weight=500, unit=b"k" * 8, predictions=[(3, 0.75)])
    found = facts(Report(text, label=3, values={"converted": 1, "revenue": 9.5}, groups=("women", "young")))
    assert {(f.kind, f.name): (f.label, f.value) for f in found} == {
        (LABEL, ""): ("3", None),
        (VALUE, "converted"): (None, 1.0),
        (VALUE, "revenue"): (None, 9.5),
        (GROUPS, ""): (None, None),
    }
    for f in found:
        assert (f.model, f.version, f.answered, f.arm, f.stage, f.weight) == ("m", "2", "2", "candidate", 7, 500)
        assert (f.unit, f.predicted, f.score, f.groups) == (b"k" * 8, "3", 0.75, '["women", "young"]')
        assert (f.arrived_at, f.at, f.row) == (NOW - 60.0, NOW, 0)
    assert len({f.key for f in found}) == 4


@pytest.mark.parametrize(("label", "text"), [(True, "1"), (False, "0"), (3, "3"), (3.0, "3"), (2.5, "2.5"), ("a", "a")])
def test_a_label_is_compared_as_a_person_would_write_it(label: report.Label, text: str) -> None:
    assert facts(Report(of(), label=label))[0].label == text


def test_what_was_predicted_is_that_of_the_reported_row() -> None:
    text = of(n_rows=3, predictions=[(1, 0.5), None])
    assert [facts(Report(text, row, label=1))[0].predicted for row in range(3)] == ["1", None, None]


@pytest.mark.parametrize(
    ("given", "status", "text"),
    [
        (Report("", label=1), Status.MALFORMED, "expected the answer's parameter gateway_request"),
        (Report(of()[:-1] + "~", label=1), Status.MALFORMED, "expected the answer's parameter"),
        (Report(token(key=b"k" * 16), label=1), Status.UNKNOWN, "another gateway"),
        (Report(of()[:-4] + "AAAA", label=1), Status.FORGED, "does not carry the gateway's signature"),
        (Report(of()), Status.INVALID, "neither label, values nor groups"),
        (Report(of(), 1, label=1), Status.INVALID, "row: got 1, expected 0: the request had 1 row"),
        (Report(of(), label=math.nan), Status.INVALID, "label: got nan"),
        (Report(of(), label=""), Status.INVALID, "label: got 0 characters, expected 1 to 200"),
        (Report(of(), label="a\0"), Status.INVALID, "no text"),
        (Report(of(), values={"": 1.0}), Status.INVALID, "values: got 0 characters"),
        (Report(of(), values={"v": math.inf}), Status.INVALID, "values.v: got inf"),
        (Report(of(), values={str(i): 1.0 for i in range(33)}), Status.INVALID, "values: got 33, expected 32"),
        (Report(of(), groups=tuple("abcdefghijklmnopq")), Status.INVALID, "groups: got 17, expected 16"),
        (Report(of(), groups=("g" * 101,)), Status.INVALID, "groups: got 101 characters"),
    ],
)
def test_what_is_wrong_is_said(given: Report, status: Status, text: str) -> None:
    found = refusal(given)
    assert found.status is status
    assert text in found.error


def test_an_answer_too_old_to_be_remembered_is_late_and_one_a_second_younger_is_not() -> None:
    text = token(at=NOW - MAX_AGE_S)
    assert refusal(Report(text, label=1), NOW + 1.0).status is Status.LATE
    assert isinstance(report.read(Report(text, label=1), KEY, NOW - 1.0), list)
