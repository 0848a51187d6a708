"""The operator's commands against a gateway of their own: what they do, print, and answer to a script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.control import put, times
from tests.support.gatewayprocess import GatewayProcess

CARD = "lineage: {parent: '1', data: 's3://ledger'}\ncard: {owner: risk, metrics: {auc: 0.97}}\n"


@pytest.fixture(scope="module")
def gateway(serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    models = tmp_path_factory.mktemp("operator") / "models"
    for version in (1, 2):
        put(models, "fraud", version, times(version))
    put(models, "iris", 1, times(1))
    (models / "fraud" / "2" / "version.yaml").write_text(CARD)
    state = tmp_path_factory.mktemp("operator-state")
    process = serve_for_module(models, "--state", str(state), "--workers", "2")
    process.wait_routed("fraud", "iris")
    return process


@pytest.fixture
def run(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch):
    """run("route", "show") -> Result, as in a shell with $GATEWAY_SERVER."""
    monkeypatch.setenv("GATEWAY_SERVER", gateway.control_url)
    monkeypatch.setenv("GATEWAY_ACTOR", "ada")

    def run_one(*words: str, code: int = 0, **wishes: Any) -> Result:
        result = CliRunner().invoke(app, list(words), **wishes)
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return run_one


def told(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def at_first(gateway: GatewayProcess) -> int:
    """fraud: everything to version 1; the generation of that."""
    control = gateway.control()
    assert control.put_route("fraud", {"versions": {"1": 100}})[0] == 200
    eventually(lambda: not control.get("/v1/routes/fraud")["missing"], "both workers have it")
    return control.generation("fraud")


def test_models_are_listed_with_state_traffic_and_owner(run, at_first: int) -> None:
    eventually(lambda: told(run("model", "show", "fraud", "2", "--json"))["is_registered"], "it is registered")
    lines = run("model", "list").stdout.splitlines()
    (first,) = (line for line in lines if line.split()[:2] == ["fraud", "1"])
    (second,) = (line for line in lines if line.split()[:2] == ["fraud", "2"])
    assert "READY" in first
    assert "100 %" in first
    assert "risk" in second
    assert "%" not in second


def test_a_version_is_shown_with_its_digest_lineage_and_card(run, gateway: GatewayProcess) -> None:
    eventually(lambda: told(run("model", "show", "fraud", "2", "--json"))["is_registered"], "it is registered")
    text = run("model", "show", "fraud", "2").stdout
    assert "READY (READY in 2 workers)" in text
    assert "sha256:" in text
    assert "lineage.data          s3://ledger" in text
    assert 'card.metrics          {"auc": 0.97}' in text


def test_a_change_prints_the_difference_and_who_has_it(run, at_first: int) -> None:
    text = run("route", "set", "fraud", "1=95", "2=5", "--reason", "try it").stdout
    assert f"fraud: generation {at_first + 1} is in force" in text
    assert "  + versions.2: 5" in text
    assert "  ~ versions.1: 100 -> 95" in text
    assert "  live in 2 workers after 0." in text
    shown = run("route", "show", "fraud").stdout
    assert f"fraud generation {at_first + 1}, " in shown
    assert "by ada: try it" in shown
    assert "versions:\n  '1': 95\n  '2': 5\n" in shown


def test_what_is_not_named_stays(run, at_first: int) -> None:
    run("route", "set", "fraud", "--sticky", "header:x-user", "--fallback", "2", "--keep", "30min")
    run("route", "set", "fraud", "1=90", "2=10")
    document = told(run("route", "show", "fraud", "--json"))["route"]
    assert document["sticky"] == {"header": "x-user"}
    assert document["fallback"]["version"] == "2"
    assert document["keep"]


def test_a_shadow_is_set_and_shown_and_taken_away(run, at_first: int) -> None:
    assert "shadows" in run("route", "set", "fraud", "--shadow", "2=50").stdout
    (line,) = (line for line in run("model", "list").stdout.splitlines() if line.split()[:2] == ["fraud", "2"])
    assert "shadow" in line
    assert "shadow 2 (50 %)" in run("route", "show").stdout
    assert run("shadow", "show", "fraud").exit_code == 0
    run("route", "set", "fraud", "--shadow", "none")
    assert "shadow 2" not in run("route", "show").stdout


def test_a_dry_run_says_what_it_would_do_and_does_nothing(run, at_first: int) -> None:
    text = run("route", "set", "fraud", "2", "--dry-run").stdout
    assert f"this would be generation {at_first + 1}; nothing was changed" in text
    assert "+ versions.2: 100" in text
    assert told(run("route", "show", "fraud", "--json"))["generation"] == at_first


def test_a_wrong_route_is_refused_with_the_path_to_each_wrong_field(run, at_first: int, tmp_path: Path) -> None:
    file = tmp_path / "route.json"
    file.write_text(json.dumps({"versions": {"1": 90, "7": 5}, "sticky": {"hdr": "x"}}))
    result = run("route", "set", "fraud", "--file", str(file), code=1)
    assert result.stdout == ""
    assert "error: sticky.hdr: unknown field, expected header" in result.stderr
    result = run("route", "set", "fraud", "1=95", "7=5", code=1)
    assert result.stderr == "error: versions.7: no such version; versions here: 1, 2\n"
    result = run("route", "set", "fraud", "1=95", code=1)
    assert result.stderr == "error: versions: the weights add up to 95, expected 100\n"


def test_who_was_not_first_sees_what_the_other_did(run, at_first: int) -> None:
    run("route", "set", "fraud", "1=50", "2=50", "--as", "bert", "--reason", "half")
    result = run("route", "set", "fraud", "2", "--expect", str(at_first), code=1)
    assert f"from generation {at_first + 1} to what you asked for:" in result.stdout
    assert "versions.2: 50 -> 100" in result.stdout
    assert f"generation {at_first + 1} is in force, by bert (half)" in result.stderr


def test_an_undo_goes_back_and_can_be_undone(run, at_first: int) -> None:
    run("route", "set", "fraud", "2")
    text = run("route", "undo", "fraud", "--reason", "worse").stdout
    assert f"fraud: generation {at_first + 2} is in force" in text
    assert told(run("route", "show", "fraud", "--json"))["route"]["versions"] == {"1": 100}
    run("route", "undo", "fraud")
    assert told(run("route", "show", "fraud", "--json"))["route"]["versions"] == {"2": 100}
    run("route", "undo", "fraud", "--to", str(at_first))
    history = run("route", "history", "fraud", "--limit", "3").stdout
    assert f"back to generation {at_first}" in history
    assert "back to generation" in history


def test_two_generations_are_compared(run, at_first: int) -> None:
    run("route", "set", "fraud", "2", "--reason", "all")
    text = run("route", "diff", "fraud").stdout
    assert f"- fraud generation {at_first}, " in text
    assert f"+ fraud generation {at_first + 1}, " in text
    assert "  + versions.2: 100" in text
    assert "no difference" in run("route", "diff", "fraud", str(at_first), str(at_first)).stdout
    result = run("route", "diff", "fraud", "1", "999", code=1)
    assert "no generation 999; it has 1 to" in result.stderr


def test_a_route_is_edited_in_an_editor(run, at_first: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("VISUAL", r"""sed -i "s/'1': 100/'1': 60\n  '2': 40/" """)
    text = run("route", "edit", "fraud", "--reason", "by hand").stdout
    assert "versions.2: 40" in text
    assert told(run("route", "show", "fraud", "--json"))["reason"] == "by hand"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("VISUAL", "true")
    assert run("route", "edit", "fraud").stdout == "nothing changed\n"
    assert list(tmp_path.iterdir()) == []


def test_what_was_edited_and_refused_is_kept_to_be_mended(
    run, at_first: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("VISUAL", "sed -i s/100/90/")
    result = run("route", "edit", "fraud", code=1)
    (kept,) = tmp_path.iterdir()
    assert "error: versions: the weights add up to 90, expected 100" in result.stderr
    assert f"gateway route set fraud --file {kept}" in result.stderr
    kept.write_text(kept.read_text().replace("90", "100"))
    run("route", "set", "fraud", "--file", str(kept))
    kept.unlink()
    monkeypatch.setenv("VISUAL", r"sed -i 's/^versions:/versions: [/'")
    result = run("route", "edit", "fraud", code=2)
    assert ": line " in result.stderr
    assert "your text is kept" in result.stderr


@pytest.mark.parametrize(
    ("editor", "words"),
    [("false", "editor 'false' ended with 1: nothing was changed"), ("/none", "editor '/none': No such file")],
)
def test_an_editor_that_fails_changes_nothing(
    run, at_first: int, monkeypatch: pytest.MonkeyPatch, editor: str, words: str
) -> None:
    monkeypatch.setenv("VISUAL", editor)
    assert words in run("route", "edit", "fraud", code=1).stderr
    assert told(run("route", "show", "fraud", "--json"))["generation"] == at_first


def test_a_version_is_added_routed_and_retired(run, at_first: int, gateway: GatewayProcess) -> None:
    result = run("model", "add", "fraud", code=1)
    assert "no new version in the repository; there, and known: 1, 2" in result.stderr
    put(gateway.models, "fraud", 3, times(3))
    text = run("model", "add", "fraud", "--reason", "the third").stdout
    assert "fraud version 3 is loaded and warm in " in text
    assert "  sha256:" in text
    run("route", "set", "fraud", "3")
    result = run("model", "retire", "fraud", "3", code=1)
    assert "names it; take it out of the route first" in result.stderr
    run("route", "set", "fraud", "1")
    assert "fraud version 3 is retired; unloaded in " in run("model", "retire", "fraud", "3").stdout
    assert told(run("model", "show", "fraud", "3", "--json"))["is_retired"]
    result = run("route", "set", "fraud", "3", code=1)
    assert "retired" in result.stderr


def test_the_audit_log_says_who_what_and_why_and_is_verified(run, at_first: int) -> None:
    run("route", "set", "fraud", "2", "--as", "eve", "--reason", "because \x1b[31mred")
    line = run("audit", "log", "--limit", "1", "--model", "fraud").stdout.splitlines()[3]
    assert "eve" in line
    assert "route.put" in line
    assert "because" in line
    assert "\x1b" not in line
    assert "versions" in run("audit", "log", "--full", "--action", "route").stdout
    answer = run("audit", "verify").stdout
    assert answer.startswith("ok: ")
    head = answer.split("head ")[1].strip()
    assert run("audit", "verify", "--head", head).exit_code == 0
    wrong = run("audit", "verify", "--head", head[:-4] + "beef", code=1)
    assert "NOT ok: " in wrong.stdout
    assert not told(run("audit", "verify", "--head", head[:-4] + "beef", "--json", code=1))["ok"]
    assert "expected COUNT:HASH" in run("audit", "verify", "--head", "nonsense", code=1).stderr


def test_the_status_shows_workers_store_and_routes(run, at_first: int) -> None:
    text = run("status").stdout
    assert "all is well" in text
    assert text.count("READY") == 2
    assert "gateway.db: up, revision" in text
    assert "fraud" in text
    answer = told(run("status", "--json"))
    assert answer["ok"]
    assert {route["model"] for route in answer["routes"]} == {"fraud", "iris"}


def test_the_status_is_watched_in_lines(gateway: GatewayProcess) -> None:
    command = [sys.executable, "-m", "gateway", "status", "--watch", "--json", "--every", "0.1"]
    environment = os.environ | {"GATEWAY_SERVER": gateway.control_url}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.terminate()
    assert all(line["ok"] for line in lines)


def test_the_status_is_drawn_live_on_a_terminal(gateway: GatewayProcess) -> None:
    import pty

    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "gateway", "status", "--watch", "--every", "0.1"]
    environment = os.environ | {"GATEWAY_SERVER": gateway.control_url, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        seen = b""

        def drawn_twice() -> bool:
            nonlocal seen
            seen += os.read(leader, 65536)
            return seen.count(b"all is well") >= 2

        eventually(drawn_twice, "it is drawn again")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    os.close(leader)


def test_a_route_comes_from_standard_input(gateway: GatewayProcess, run, at_first: int) -> None:
    command = [sys.executable, "-m", "gateway", "route", "set", "fraud", "--file", "-", "--json"]
    environment = os.environ | {"GATEWAY_SERVER": gateway.control_url}
    rule = {"match": {"header": "x-tenant", "exact": "acme"}, "versions": {"2": 100}}
    text = json.dumps({"versions": {"1": 100}, "rules": [rule]})
    done = subprocess.run(command, input=text, capture_output=True, env=environment, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["generation"] == at_first + 1
    assert "1 rule" in run("route", "show").stdout


def test_a_worker_that_does_not_acknowledge_is_named_and_the_exit_code_tells(
    run, at_first: int, gateway: GatewayProcess
) -> None:
    eventually(lambda: told(run("status", "--json"))["ok"], "all is well")
    stopped = gateway.workers()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        result = run("route", "set", "fraud", "2", code=1)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert f"fraud: generation {at_first + 1} is in force" in result.stdout
    assert "  NOT live in " in result.stdout
    assert f"still at generation {at_first}" in result.stdout

    def all_have_it() -> bool:
        answer = told(run("route", "show", "fraud", "--json"))
        return len(answer["acknowledged"]) == 2 and not answer["missing"]

    eventually(all_have_it, "the worker that was stopped catches up")


def test_to_watch_needs_a_terminal(run) -> None:
    assert (
        "--watch: draws on a terminal, and this is none; take --watch --json" in run("status", "--watch", code=2).stderr
    )


@pytest.mark.parametrize(
    "words",
    [
        ["model", "list"],
        ["model", "show", "fraud"],
        ["route", "show"],
        ["route", "history", "fraud"],
        ["route", "diff", "fraud"],
        ["shadow", "show", "fraud"],
        ["shadow", "disagreements", "fraud"],
        ["audit", "log"],
        ["audit", "verify"],
        ["status"],
    ],
)
def test_every_reading_command_prints_json_for_programs(run, at_first: int, words: list[str]) -> None:
    assert isinstance(told(run(*words, "--json")), dict)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["route", "set", "fraud"], "nothing to change: give VERSION=PERCENT such as 1=95 2=5"),
        (["route", "set", "fraud", "1", "--file", "x.yaml"], "--file holds the whole route"),
        (["route", "set", "fraud", "--file", "/none.yaml"], "/none.yaml: no such file"),
        (["route", "set", "fraud", "1=x"], "VERSION=PERCENT: got '1=x'"),
    ],
)
def test_a_wrong_word_is_a_fault_of_usage(run, words: list[str], fault: str) -> None:
    assert fault in run(*words, code=2).stderr


def test_what_is_not_there_is_told_with_what_is(run) -> None:
    assert "models with one: fraud, iris" in run("route", "show", "nobody", code=1).stderr
    assert "models here: fraud, iris" in run("model", "show", "nobody", code=1).stderr
    assert "versions here: 1, 2" in run("model", "show", "fraud", "77", code=1).stderr
