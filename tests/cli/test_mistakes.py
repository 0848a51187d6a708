"""What people get wrong before anybody is asked: the text names the field, what came and what was expected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from gateway.cli import app, rolloutview, show
from gateway.cli.client import ServerRefused
from gateway.config.deployment import Deployment
from gateway.control.problems import request_faults
from gateway.errors import InvalidArgument
from gateway.feedback import form
from gateway.registry.repository import scan_model
from gateway.rollout.plan import PlanError, parse


def told(*words: str, code: int = 2) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.output, result.exception)
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\x80\x00\xff", "is no text in UTF-8, expected a JSON object on each line"),
        (b"", "is empty, expected a JSON object on each line"),
        (b"\n \n", "is empty, expected a JSON object on each line"),
        (b"[1, 2]\n", "line 1: got [1, 2], expected a JSON object"),
        (b'{"request": "x"}\n{\n', "line 2: Expecting property name"),
    ],
)
def test_a_file_of_reports_that_is_none_is_told(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "reports.jsonl"
    file.write_bytes(content)
    assert text in told("feedback", "report", "--file", str(file), "--server", "http://127.0.0.1:1")


def test_a_rollout_that_nobody_could_look_at_is_not_started() -> None:
    """Were it started first, nobody at port 1 would be the error."""
    assert told("rollout", "start", "fraud", "2", "--watch", "--server", "http://127.0.0.1:1") == (
        "error: rollout start --watch: draws on a terminal, and this is none; take --json for lines\n"
    )


def test_bench_says_before_the_load_that_the_result_cannot_be_kept(tmp_path: Path) -> None:
    file = tmp_path / "no" / "base.json"
    assert told("bench", "127.0.0.1:1", "--save", str(file)) == (
        f"error: --save {file}: there is no folder {file.parent}\n"
    )


def test_a_state_folder_that_may_not_be_looked_at_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is for a user who may not enter the folder above; root may enter all."""
    closed = tmp_path / "closed"
    closed.mkdir()

    def refuse(path: Path, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != closed)
    monkeypatch.setattr("gateway.config.deployment._models_faults", lambda _: [])
    with pytest.raises(Exception, match=r"--state .*closed/state: permission denied in .*closed; name a folder"):
        Deployment(models=tmp_path, state=closed / "state").check()


def test_folders_that_are_no_versions_are_told(tmp_path: Path) -> None:
    model = tmp_path / "fraud"
    (model / "1").mkdir(parents=True)
    (model / "v2").mkdir()
    (model / "model.onnx").touch()
    assert scan_model(model).left_out == (
        f"{model / 'model.onnx'} is ignored: move it to {model / '1' / 'model.onnx'}; "
        f"{model / 'v2'} is ignored: a version's folder is a positive whole number such as 1"
    )
    (model / "1").rmdir()
    assert scan_model(model).left_out.startswith(f"{model} has no version, expected {model / '1' / 'model.onnx'}; ")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"reports": [{"request": "x", "labl": 1}]}', "reports[0].labl: unknown field"),
        (b'{"reports": [7]}', "reports[0]: got 7, expected an object"),
        (b'{"label": 1}', "request: missing, expected a value"),
        (b'{"request": "x", "row": -1}', "row: got -1, expected 0 or more"),
        (b"{", "body: is no JSON: "),
    ],
)
def test_a_report_that_is_none_is_refused_with_the_field(body: bytes, text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        form.parse(body)
    assert text in str(refused.value)


def test_a_fault_of_the_whole_begins_with_what_it_is_about_and_not_with_a_colon() -> None:
    body = {"error": "x", "faults": [{"field": "", "message": "steps: got weights that do not rise"}]}
    assert str(ServerRefused(422, body)) == "steps: got weights that do not rise"


def test_a_guardrail_of_no_kind_is_told_which_there_are() -> None:
    with pytest.raises(PlanError) as refused:
        parse({"model": "m", "candidate": 2, "strategy": "canary", "guardrails": {"x": {"kind": "foo"}}})
    assert str(refused.value).startswith('guardrails.x: kind: got "foo", expected one of errors, broken, latency, ')


def test_the_control_plane_says_what_came_and_what_was_expected() -> None:
    errors = [
        {"type": "greater_than_equal", "loc": ("query", "limit"), "input": "0", "msg": "", "ctx": {"ge": 1}},
        {"type": "literal_error", "loc": ("query", "state", 0), "input": "x", "msg": "", "ctx": {"expected": "'a'"}},
        {"type": "missing", "loc": ("body", "one", "request"), "input": {}, "msg": "Field required"},
        {"type": "extra_forbidden", "loc": ("body", "many", "reports", 0, "labl"), "input": 1, "msg": ""},
    ]
    assert request_faults(errors, {"reports": [{"labl": 1}]}) == [
        ("query.limit", 'got "0", expected 1 or more'),
        ("query.state[0]", 'got "x", expected a'),
        ("request", "missing, expected a value"),
        ("reports[0].labl", "unknown field"),
    ]


def test_a_reader_of_a_table_who_has_enough_is_no_error() -> None:
    """`| head -1`, also where the table is longer than the pipe."""
    with pytest.raises(BrokenPipeError):
        show.console().on_broken_pipe()


def test_a_narrow_terminal_has_the_sentences_below_the_table() -> None:
    row = {"name": "errors", "action": "rollback", "outcome": "ok", "log_e": 1.0, "log_threshold": 4.0, "n": 7}
    row |= {"promote_log_e": 1.0, "promote_log_threshold": 4.0, "required": True, "sentence": "as often as stable"}
    found = {"id": "m-1", "model": "m", "stable": "1", "candidate": "2", "stage": "step", "step": 1, "n_steps": 2}
    found |= {"mode": "act", "weight_percent": 5, "shadow_percent": 0, "waits_for": "", "harmed_requests": 0}
    found["status"] = {"guardrails": [row]}

    def lines(width: int) -> list[str]:
        console = Console(width=width)
        with console.capture() as capture:
            console.print(rolloutview.picture(found, width=width))
        return capture.get().splitlines()

    assert "  errors: as often as stable" in [line.rstrip() for line in lines(80)]
    assert max(map(len, lines(80))) <= 80
    assert not any(line.startswith("  errors:") for line in lines(rolloutview.WIDE))
