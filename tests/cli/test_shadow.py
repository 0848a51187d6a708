"""What `gateway shadow` makes of the documents that workers write."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner

from gateway.cli import app
from tests.cli.test_client import answering

SIDES = {"stage": 4, "primary_version": "1", "primary_arm": "stable", "version": "2"}
COUNTS = {"shadow_failed": {"INTERNAL": 3}, "outputs": {"label": {"pairs": 1000}, "scores": {"pairs": 1000}}}
RATES = {
    "compared": 1000,
    "agreement": 0.97,
    "exact": 0.0,
    "outputs": {
        "label": {
            "exact": 0.99,
            "within_tolerance": 0.99,
            "same_first": None,
            "median_relative_difference": 0.0,
            "p99_relative_difference": "Infinity",
        },
        "scores": {
            "exact": 0.0,
            "within_tolerance": 0.975,
            "same_first": 0.99,
            "median_relative_difference": 1e-6,
            "p99_relative_difference": 0.01,
        },
    },
}
PAIR = {"version": "2", "key": "4/1/stable", "counts": {**SIDES, "counts": COUNTS}, "rates": RATES}
DROPPED = {"budget": 5, "queue_full": 0}
REQUESTS = {"version": "2", "stage": "4", "counts": {"drawn": 1008, "shadowed": 1003, "dropped": DROPPED}}


def tensor(name: str, values: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [1, len(values)], "values": values, "is_cut": False}


def sample(name: str, severity: Any, at: float, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "at": at,
        "severity": severity,
        "absolute_difference": severity,
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


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_agreement_is_told_by_output_and_over_all_of_them() -> None:
    lines = squeezed(run({"model": "fraud", "pairs": [PAIR], "requests": [REQUESTS]}, "show", "fraud"))
    assert "2 4 1008 1003 budget: 5" in lines
    assert "2 1 stable 4 label 1000 99.00 % 99.00 % 0 Infinity INTERNAL: 3" in lines
    assert "2 1 stable 4 scores 1000 97.50 % 0.00 % 99.00 % 1e-06 1e-02 INTERNAL: 3" in lines
    assert "2 1 stable 4 all 1000 97.00 % 0.00 % INTERNAL: 3" in lines


def test_earlier_stages_are_left_out_unless_asked_for() -> None:
    sides = {**SIDES, "stage": 3}
    old = {**PAIR, "key": "3/1/stable", "counts": {**sides, "counts": COUNTS}}
    answer = {"model": "fraud", "pairs": [old, PAIR], "requests": [{**REQUESTS, "stage": "3"}, REQUESTS]}
    text = run(answer, "show", "fraud")
    assert text.count("scores") == 1
    assert "earlier stages: --all" in text
    text = run(answer, "show", "fraud", "--all")
    assert text.count("scores") == 2
    assert "--all" not in text


def test_a_shadow_in_which_nothing_could_be_compared_has_a_line() -> None:
    counts = {"shadow_failed": {"UNAVAILABLE": 7}, "outputs": {}}
    rates = {"compared": 0, "agreement": None, "exact": None, "outputs": {}}
    sides = {**SIDES, "primary_version": "", "primary_arm": ""}
    pair = {**PAIR, "counts": {**sides, "counts": counts}, "rates": rates}
    text = run({"model": "fraud", "pairs": [pair], "requests": []}, "show", "fraud")
    assert "2 (another stage) 4 all 0 UNAVAILABLE: 7" in squeezed(text)


def test_the_worst_of_all_workers_come_first_with_inputs_and_both_outputs() -> None:
    one = {**SIDES, "worst": [sample("mild", 0.1, 3.0), sample("wild", 7.5, 1.0)], "recent": [sample("mild", 0.1, 3.0)]}
    other = {
        **SIDES,
        "worst": [sample("nan", "Infinity", 2.0), sample("shape", None, 4.0, is_broken=True)],
        "recent": [],
    }
    found = [{"version": "2", "key": "4/1/stable", "at": 9.0, "sample": each} for each in (one, other)]
    answer = {"model": "fraud", "disagreements": found}
    text = run(answer, "disagreements", "fraud")
    names = [line.split()[1] for line in text.splitlines() if line.startswith("request ")]
    assert names == ["nan", "shape", "wild", "mild"]
    assert "version 1 and its shadow 2 differ in scores by 7.5" in text
    assert (
        "  inputs   x FP32 [1, 2]: 1, 2\n  primary  scores FP32 [1, 1]: 0.25\n  shadow   scores FP32 [1, 1]: 0.5\n"
        in text
    )
    assert run(answer, "disagreements", "fraud", "--limit", "1").count("request ") == 1
    assert "request mild" in run(answer, "disagreements", "fraud", "--recent")


def test_where_nothing_was_compared_the_way_to_a_shadow_is_told() -> None:
    assert "gateway route set fraud --shadow VERSION" in run(
        {"model": "fraud", "pairs": [], "requests": []}, "show", "fraud"
    )
    assert "gateway shadow show fraud" in run({"model": "fraud", "disagreements": []}, "disagreements", "fraud")
