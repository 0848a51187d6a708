"""Rollouts on a running gateway with requests on it: by the operator's commands, to the promotion and back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from gateway.cli import app
from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.control import put, times
from tests.support.controlclient import ControlClient
from tests.support.gatewayprocess import GatewayProcess
from tests.support.receiver import Receiver, receiving
from tests.support.traffic import Traffic

pytestmark = pytest.mark.timeout(240)  # rollouts go by evidence, and a busy machine gives it slowly

# The factor is the answer, so outputs differ on purpose; and how fast an echo is on a busy machine, nobody promises.
RAILS = {"outputs": "off", "latency": {"tolerated": 50, "margin": 90, "floor": "1min"}, "disagreement": {"limit": 0.99}}
PLAN = {
    "model": "m",
    "candidate": 2,
    "strategy": "canary",
    "steps": [{"weight": 20, "min_time": "1s"}, {"weight": 50, "min_time": "1s"}],
    "bake": {"time": "1s"},
    "guardrails": RAILS,
    "acceptance": {"latency": 100},
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture(scope="module")
def gateway(
    serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver
) -> Iterator[GatewayProcess]:
    models = tmp_path_factory.mktemp("rollouts") / "models"
    for version in (1, 2):
        put(models, "m", version, times(version))
    put(models, "m", 3, times(float("nan")))
    state = tmp_path_factory.mktemp("rollouts-state")
    config = {"webhooks": [{"name": "pager", "url": receiver.url}]}
    process = serve_for_module(models, "--state", str(state), "--workers", "2", config=config)
    control = process.wait_routed("m")
    assert control.put_route("m", {"versions": {"1": 100}})[0] == 200
    with Traffic(process.grpc_url, "m", 1) as traffic:
        yield process
    assert traffic.failed == {}


@pytest.fixture
def control(gateway: GatewayProcess) -> ControlClient:
    """With nothing under way, and version 1 in force."""
    client = gateway.control()
    for each in client.get("/v1/rollouts?live=true")["rollouts"]:
        client.ask("POST", f"/v1/rollouts/{each['id']}/abort", {"reason": "the next test begins"})
        ended(client, each["id"])
    assert client.put_route("m", {"versions": {"1": 100}})[0] == 200
    return client


@pytest.fixture
def run(gateway: GatewayProcess, control: ControlClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GATEWAY_SERVER", gateway.control_url)
    monkeypatch.setenv("GATEWAY_ACTOR", "ada")

    def run_one(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return run_one


def ended(control: ControlClient, name: str) -> dict[str, Any]:
    return eventually(
        lambda: (found := control.get(f"/v1/rollouts/{name}"))["finished_at"] and found, f"{name} is over", 100
    )


def reaches(control: ControlClient, name: str, *stages: str) -> dict[str, Any]:
    def probe() -> dict[str, Any] | None:
        time.sleep(0.05)  # who asks without a pause takes the processor from who decides
        found: dict[str, Any] = control.get(f"/v1/rollouts/{name}")
        assert found["stage"] in stages or found["is_live"], found["status"]
        return found if found["stage"] in stages else None

    return eventually(probe, f"{name} is {' or '.join(stages)}", 100)


def start(control: ControlClient, **changes: Any) -> str:
    more = {name: changes.pop(name) for name in ("reason", "override", "supersede") if name in changes}
    status, body = control.ask("POST", "/v1/rollouts", {"plan": {**PLAN, **changes}, **more})
    assert status == 201, body
    return str(body["id"])


def test_a_good_candidate_is_promoted_unattended_and_an_abort_brings_the_old_one_back(
    run, control: ControlClient, receiver: Receiver, tmp_path: Path
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(PLAN))
    said = run("rollout", "plan", str(file)).stdout
    assert "m: version 2 in place of version 1, by canary" in said
    assert "step 2   50 %" in said
    assert control.get("/v1/rollouts?live=true") == {"rollouts": []}
    name = json.loads(run("rollout", "start", str(file), "--reason", "retrained", "--json").stdout)["id"]
    found = reaches(control, name, "promoted")
    assert [each["weight_percent"] for each in found["stages"]] == [20, 50, 95, 100]
    assert control.get("/v1/routes/m")["route"] == {"versions": {"2": 100}}
    told = run("rollout", "explain", name).stdout
    assert "promoted: 100 % to the candidate: shown good by all of errors, latency" in told
    assert "all the same" in run("rollout", "replay", name).stdout
    assert run("rollout", "list", "m").stdout.count(name) == 1
    assert "errors" in run("rollout", "status", "m").stdout
    points = control.get(f"/v1/rollouts/{name}/timeline")["points"]
    assert {point["units"] for point in points} >= {2000, 5000}
    run("rollout", "abort", name, "--reason", "customers call")
    assert ended(control, name)["outcome"] == "rolled_back"
    assert control.get("/v1/routes/m")["route"] == {"versions": {"1": 100}}
    entries = control.get("/v1/audit?model=m&limit=200")["entries"]
    mine = [each for each in entries if each["action"].startswith("rollout.") and each["after"]["rollout"] == name]
    actions = [each["action"].removeprefix("rollout.") for each in reversed(mine)]
    moves = ["start", "loaded", "start_steps", "next_step", "start_baking", "promote", "abort", "roll_back", "drained"]
    assert [action for action in actions if action != "hold" and action != "last_good"] == moves
    assert {each["reason"] for each in mine} >= {"retrained", "customers call"}
    assert control.get("/v1/audit/verify")["ok"]
    wanted = ["gateway.rollout.promoted", "gateway.rollout.rolling_back", "gateway.rollout.rolled_back"]

    def events() -> list[str]:
        bodies = [json.loads(each.body) for each in receiver.received]
        return sorted(each["type"] for each in bodies if each["data"]["rollout"] == name)

    eventually(lambda: events() == sorted(wanted), "the webhook is told of each once")


def test_who_promotes_past_what_is_undecided_must_say_why(run, control: ControlClient) -> None:
    name = start(control, steps=[{"weight": 20, "min_time": "1s", "min_requests": 10**9}])
    reaches(control, name, "step")
    eventually(lambda: control.get(f"/v1/rollouts/{name}")["status"].get("epoch") == 1, "it is looked at")
    run("rollout", "pause", name, "--reason", "lunch")
    eventually(lambda: "manual" in control.get(f"/v1/rollouts/{name}")["holds"], "it is paused")
    refused = run("rollout", "promote", name, code=1).output
    assert "not everything is shown good" in refused
    assert "held by manual" in refused
    run("rollout", "resume", name)
    run("rollout", "promote", name, "--reason", "the board wants it")
    found = reaches(control, name, "baking")
    assert "an operator: ada: the board wants it" in found["status"]["headline"] or found["decisions"] > 3
    assert "nothing to resume" not in run("rollout", "resume", name, code=1).output
    assert "expected one of traffic" in run("rollout", "gate", name, "steps", code=1).output


def test_a_route_by_hand_is_refused_under_a_rollout_and_ends_it_when_told_to(control: ControlClient) -> None:
    name = start(control, steps=[{"weight": 20, "min_requests": 10**9}])
    reaches(control, name, "step")
    status, body = control.put_route("m", {"versions": {"1": 90, "2": 10}})
    assert (status, body["error"].split(";")[0]) == (409, f"route of model 'm': rollout {name} has it in hand (step)")
    assert control.ask("POST", "/v1/models/m/versions/2/retire", {})[0] == 409
    status, _ = control.put_route("m", {"versions": {"1": 90, "2": 10}}, supersede=True, reason="a fire")
    assert status == 200
    found = ended(control, name)
    assert (found["outcome"], found["cause"]) == ("superseded", "superseded")
    assert control.get("/v1/routes/m")["route"] == {"versions": {"1": 90, "2": 10}}


def test_another_rollout_waits_until_the_one_before_is_out_of_its_way(control: ControlClient) -> None:
    first = start(control, steps=[{"weight": 20, "min_requests": 10**9}])
    reaches(control, first, "step")
    status, body = control.ask("POST", "/v1/rollouts", {"plan": PLAN})
    assert (status, f"rollout {first} is live" in body["error"]) == (409, True)
    second = start(control, supersede=True, reason="a better plan")
    assert ended(control, first)["outcome"] == "superseded"
    reaches(control, second, "step", "baking", "promoted")


def test_a_candidate_that_answers_nan_is_refused_before_anybody_asks_it(control: ControlClient) -> None:
    name = start(control, candidate=3)
    found = ended(control, name)
    assert (found["outcome"], found["stages"]) == ("refused", [])
    assert "expected a finite number, got nan" in found["reason"]
    assert control.get("/v1/routes/m")["route"] == {"versions": {"1": 100}}


def test_a_dry_run_decides_on_the_traffic_that_there_is_and_touches_nothing(control: ControlClient) -> None:
    assert control.put_route("m", {"versions": {"1": 50, "2": 50}})[0] == 200
    before = control.get("/v1/routes/m")["generation"]
    name = start(control, mode="observe", stable="1")
    found = reaches(control, name, "promoted")
    assert found["stages"] == []
    assert control.get("/v1/routes/m")["generation"] == before
    assert control.get("/v1/blocked")["blocked"] == []
    assert control.put_route("m", {"versions": {"1": 100}})[0] == 200


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"candidate": 1}, 422, "version 1 answers already"),
        ({"candidate": 9}, 404, "no folder of version 9"),
        ({"model": "n"}, 404, "model 'n' has no route, so there is nothing to replace; with one: m"),
        ({"steps": [50, 20]}, 422, "steps: got weights that do not rise"),
        ({"stpes": [50]}, 422, "stpes"),
        ({"guardrails": {}}, 422, "without any a rollout would go on whatever happens"),
    ],
)
def test_what_cannot_be_a_plan_is_refused_in_words(
    control: ControlClient, changes: dict[str, Any], status: int, words: str
) -> None:
    got, body = control.ask("POST", "/v1/rollouts", {"plan": {**PLAN, **changes}})
    assert (got, words in body["error"]) == (status, True), body
