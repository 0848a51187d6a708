"""`gateway drift` and /v1/drift against a control process of its own, over a store in which a column has drifted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store import Store, url_of_folder
from tests.support.conditions import eventually
from tests.support.controlclient import ControlClient
from tests.support.driftworld import DriftWorld
from tests.support.gatewayprocess import ROOT


class Control:
    """`gateway control` alone."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        command = [sys.executable, "-m", "gateway", "control", "--models", str(folder / "models"), "--state"]
        command += [str(folder / "state"), "--control-port", "0", "--log-format", "json"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        self.url = f"http://127.0.0.1:{eventually(self._port, 'the control plane is ready', 40)}"

    def _port(self) -> int:
        assert self.process.poll() is None, self.log.read_text()
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return next((line["port"] for line in lines if line["event"] == "control plane ready"), 0)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    folder = tmp_path_factory.mktemp("drift")
    with Store.open(url_of_folder(folder / "state")) as store:
        world = DriftWorld(folder, store, int(time.time()) - 900)
        world.feed(3)
        world.feed(4, shift=4.0)
    process = Control(folder)
    try:
        client = ControlClient(process.url)
        eventually(lambda: client.try_get("/v1/drift/fraud/1"), "the report", 60)
        yield process
    finally:
        process.stop()


def gateway(control: Control, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "drift", *arguments, "--server", control.url]
    environment = os.environ | {"GATEWAY_ACTOR": "ada"}
    return subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=ROOT, env=environment)


def test_show_has_the_drifted_column_first_with_baseline_beside_now(control: Control) -> None:
    done = gateway(control, "show", "fraud")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "fraud version 1: inputs drifted (x2; 1 of 4), outputs hold"
    assert "at most one false page in 30 days" in lines[1]
    assert lines[2].startswith("input alarm ")
    first = next(line for line in lines[3:] if line.startswith(" x"))
    assert first.split()[:2] == ["x2", "alarm"]
    assert "mean" in first
    assert "█" in first


def test_show_json_is_the_servers_answer(control: Control) -> None:
    done = gateway(control, "show", "fraud", "--version", "1", "--json")
    (found,) = json.loads(done.stdout)["versions"]
    assert found["report"]["columns"][0]["name"] == "x2"
    assert found["alarms"][0]["findings"][0]["column"] == "x2"
    served = ControlClient(control.url).get("/v1/drift/fraud/1")
    assert served["report"]["columns"][0]["name"] == "x2"


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_a_plot_is_written(control: Control, tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"drift{suffix}"
    done = gateway(control, "show", "fraud", "--plot", str(path))
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(start)


def test_a_plot_of_another_kind_is_refused_by_its_flag(control: Control, tmp_path: Path) -> None:
    done = gateway(control, "show", "fraud", "--plot", str(tmp_path / "drift.gif"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "got .gif, expected .png or .svg" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "nobody"), "model 'nobody': there is none"),
        (("show", "fraud", "--version", "9"), "model 'fraud' version 9: there is none; versions here: 1"),
        (("acknowledge", "beef"), "alarm 'beef': there is none"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(control: Control, arguments: tuple[str, ...], says: str) -> None:
    done = gateway(control, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_watch_wants_a_terminal_and_gives_lines_of_json_without_one(control: Control) -> None:
    assert gateway(control, "watch", "fraud").returncode == 2
    command = [sys.executable, "-m", "gateway", "drift", "watch", "fraud", "--json", "--every", "0.1"]
    process = subprocess.Popen([*command, "--server", control.url], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        for _ in range(2):
            assert json.loads(process.stdout.readline())["versions"][0]["report"]["model"] == "fraud"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def test_the_metrics_name_the_column_and_the_alarm(control: Control) -> None:
    text = ControlClient(control.url).get("/metrics")
    (score,) = (line for line in text.splitlines() if line.startswith('gateway_drift_score{column="x2"'))
    assert float(score.split()[-1]) > 10.0
    assert 'gateway_drift_alarm{model="fraud",side="input",version="1"} 1.0' in text


def test_an_operator_acknowledges_and_closes_once_each(control: Control) -> None:
    (alarm,) = json.loads(gateway(control, "alarms", "fraud", "--json").stdout)["alarms"]
    done = gateway(control, "acknowledge", alarm["id"], "--reason", "looking into it")
    assert done.stdout == f"alarm {alarm['id']} of fraud/1 is acknowledged: x2\n", done.stderr
    again = gateway(control, "acknowledge", alarm["id"])
    assert again.returncode == 1
    assert "is acknowledged, got acknowledged; expected closed" in again.stderr
    done = gateway(control, "close", alarm["id"], "--reason", "new customers")
    assert "is closed: x2" in done.stdout
    assert "tolerated from now on" in done.stdout
    assert gateway(control, "alarms", "fraud").stdout == "no open alarm; --closed shows those that are over\n"
    assert alarm["id"] in gateway(control, "alarms", "fraud", "--closed").stdout
    client = ControlClient(control.url)
    found = [entry for entry in client.get("/v1/audit?action=drift")["entries"] if entry["actor"] == "ada"]
    assert [entry["action"] for entry in found] == ["drift.closed", "drift.acknowledged"]
    assert found[0]["reason"] == "new customers"


def test_a_list_of_alarms_can_be_narrowed_and_a_wrong_state_is_refused(control: Control) -> None:
    client = ControlClient(control.url)
    assert client.get("/v1/alarms?model=other")["alarms"] == []
    status, body = client.ask("GET", "/v1/alarms?state=loud")
    assert status == 422
    assert body["faults"][0]["field"].endswith("state[0]") or "state" in body["faults"][0]["field"]
    (dead,) = client.get("/v1/deliveries?state=dead")["deliveries"]
    assert (dead["endpoint"], dead["error"]) == ("pager", "no webhook of that name is configured any more")
