"""What `gateway shadow` makes of the documents that workers write."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner

from gateway.cli import app
from tests.cli.test_client import answering

SIDES = {"stage": 4, "primary_version": "1", "primary_arm": "stable", "version": "2"}
LABEL = {"pairs": 1000, "exact": 990, "within": 990, "rows": 1000, "same_first": 0}
SCORES = {"pairs": 1000, "exact": 0, "within": 975, "rows": 2000, "same_first": 1980}
COUNTS = {
    "both_answered": 1000,
    "agreed": 970,
    "disagreed": 30,
    "exact": 0,
    "shadow_failed": {"INTERNAL": 3},
    "outputs": {"label": LABEL, "scores": SCORES},
}


def tensor(name: str, values: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [1, len(values)], "values": values, "is_cut": False}


def sample(name: str, relative_difference: Any, at: float, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "at": at,
        "relative_difference": relative_difference,
        "is_broken": False,
        "text": "",
        "output": "scores",
        "inputs": [tensor("x", [1.0, 2.0])],
        "primary": [tensor("scores", [0.25])],
        "shadow": [tensor("scores", [0.5])],
        **more,
    }


def run(answer: Any, *words: str) -> str:
    body = json.dumps(answer).encode()
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as url:
        result = CliRunner().invoke(app, ["shadow", *words, "--server", url])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_agreement_is_told_by_output_and_over_all_of_them() -> None:
    pairs = [{"version": "2", "key": "4/1/stable", "counts": {**SIDES, "counts": COUNTS}}]
    lines = [line.split() for line in run({"model": "fraud", "pairs": pairs}, "show", "fraud").splitlines()]
    head = ["2", "1", "stable", "4"]
    assert [*head, "label", "1000", "99.00", "%", "99.00", "%", "0.00", "%", "INTERNAL:", "3"] in lines
    assert [*head, "scores", "1000", "97.50", "%", "0.00", "%", "99.00", "%", "INTERNAL:", "3"] in lines
    assert [*head, "all", "1000", "97.00", "%", "0.00", "%", "INTERNAL:", "3"] in lines


def test_a_pair_in_which_nothing_could_be_compared_has_a_line() -> None:
    counts = {"agreed": 0, "disagreed": 0, "exact": 0, "shadow_failed": {"UNAVAILABLE": 7}, "outputs": {}}
    pairs = [
        {"version": "2", "key": "4/", "counts": {**SIDES, "primary_version": "", "primary_arm": "", "counts": counts}}
    ]
    assert "UNAVAILABLE: 7" in run({"model": "fraud", "pairs": pairs}, "show", "fraud")


def test_the_worst_of_all_workers_come_first_with_inputs_and_both_outputs() -> None:
    one = {**SIDES, "worst": [sample("mild", 0.1, 3.0), sample("wild", 7.5, 1.0)], "recent": [sample("mild", 0.1, 3.0)]}
    other = {**SIDES, "worst": [sample("nan", "NaN", 2.0), sample("shape", None, 4.0, is_broken=True)], "recent": []}
    found = [{"version": "2", "key": "4/1/stable", "at": 9.0, "sample": each} for each in (one, other)]
    answer = {"model": "fraud", "disagreements": found}
    text = run(answer, "disagreements", "fraud")
    names = [line.split()[1] for line in text.splitlines() if line.startswith("request ")]
    assert names == ["nan", "shape", "wild", "mild"]
    assert "version 1 and its shadow 2 differ in scores, relative difference 7.5" in text
    assert (
        "  inputs   x FP32 [1, 2]: 1, 2\n  primary  scores FP32 [1, 1]: 0.25\n  shadow   scores FP32 [1, 1]: 0.5\n"
        in text
    )
    assert run(answer, "disagreements", "fraud", "--limit", "1").count("request ") == 1
    assert "request mild" in run(answer, "disagreements", "fraud", "--recent")


def test_where_nothing_was_compared_the_way_to_a_shadow_is_told() -> None:
    assert "gateway route set fraud --shadow VERSION" in run({"model": "fraud", "pairs": []}, "show", "fraud")
    assert "gateway shadow show fraud" in run({"model": "fraud", "disagreements": []}, "disagreements", "fraud")
