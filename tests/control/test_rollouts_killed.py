"""Rollouts whose control process or workers are killed, and whose store is locked, on a running gateway under load."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.control.test_rollouts_live import RAILS
from tests.support.conditions import eventually
from tests.support.control import put, times
from tests.support.controlclient import ControlClient
from tests.support.gatewayprocess import GatewayProcess
from tests.support.traffic import Traffic

pytestmark = pytest.mark.timeout(240)  # a control process that starts anew beside a load takes its time

PLAN = {
    "model": "m",
    "candidate": 2,
    "strategy": ["shadow", "canary"],
    "shadow": {"percent": 50, "min_time": "500ms"},
    "steps": [{"weight": 20, "min_time": "500ms"}, {"weight": 50, "min_time": "500ms"}],
    "bake": {"time": "500ms"},
    "guardrails": RAILS,
    "acceptance": {"latency": 100},
    "timing": {"drain": "2s"},  # requests of a worker that was killed never end
}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def running(serve_for_module: Serve, state: Path) -> GatewayProcess:
    for version in (1, 2):
        put(state / "models", "m", version, times(version))
    process = serve_for_module(state / "models", "--workers", "2", "--state", str(state))
    process.wait_routed("m")
    return process


@pytest.fixture
def gateway(running: GatewayProcess) -> GatewayProcess:
    """With nothing under way, and version 1 in force."""
    control = running.control()
    for each in control.get("/v1/rollouts?live=true")["rollouts"]:
        control.ask("POST", f"/v1/rollouts/{each['id']}/abort", {"reason": "the next test begins"})
        eventually(lambda each=each: not now(control, each["id"])["is_live"], "it is over", 100)
    assert control.put_route("m", {"versions": {"1": 100}})[0] == 200
    return running


def begin(control: ControlClient, **changes: Any) -> str:
    status, body = control.ask("POST", "/v1/rollouts", {"plan": {**PLAN, **changes}})
    assert status == 201, body
    return str(body["id"])


def now(control: ControlClient, name: str) -> dict[str, Any]:
    time.sleep(0.05)  # who asks without a pause takes the processor from who decides
    found: dict[str, Any] = control.try_get(f"/v1/rollouts/{name}") or {}
    return found


def kill_control(gateway: GatewayProcess) -> None:
    pid = eventually(lambda: gateway.control_pid, "a control process", 100)
    assert pid
    os.kill(pid, signal.SIGKILL)


def check_history(control: ControlClient, name: str, weights: list[float]) -> None:
    """Each decision once, none of them lost, and the route did what they say."""
    found = control.get(f"/v1/rollouts/{name}")
    assert [each["weight_percent"] for each in found["stages"]] == weights
    decisions = control.get(f"/v1/rollouts/{name}/decisions?limit=1000")["decisions"]
    assert [each["seq"] for each in decisions] == list(range(1, found["decisions"] + 1))
    generations = [each["generation"] for each in found["stages"]]
    assert [each["generation"] for each in decisions if each["generation"]] == generations
    history = control.get("/v1/routes/m/history?limit=500")["routes"]
    own = [each["generation"] for each in history if each["reason"].startswith(f"rollout {name}:")]
    assert sorted(own) == generations
    assert control.get(f"/v1/rollouts/{name}/replay")["same"]
    assert control.get("/v1/audit/verify")["ok"]


def test_a_worker_that_dies_in_a_step_does_not_stop_it_and_its_answers_still_count(gateway: GatewayProcess) -> None:
    control = gateway.control()
    with Traffic(gateway.grpc_url, "m", 1):
        name = begin(control, strategy="canary", steps=[{"weight": 50, "min_time": "2s"}])
        eventually(
            lambda: now(control, name).get("status", {}).get("settled", {}).get("candidate", 0) > 50, "some", 100
        )
        before = now(control, name)["status"]["settled"]["candidate"]
        os.kill(gateway.workers()[0], signal.SIGKILL)
        eventually(lambda: now(control, name).get("stage") in ("baking", "promoted"), "it goes on", 100)
        found = control.get(f"/v1/rollouts/{name}/decisions?snapshots=true")["decisions"]
        (on,) = [each for each in found if each["event"] == "start_baking"]
        (split,) = [each for each in on["snapshot"]["evidence"]["split"] if each["index"] == 1]
        assert split["n_candidate"] >= before
        assert control.get(f"/v1/rollouts/{name}/replay")["same"]


def test_nothing_moves_while_the_store_is_locked_and_it_goes_on_afterwards(
    gateway: GatewayProcess, state: Path
) -> None:
    control = gateway.control()
    with Traffic(gateway.grpc_url, "m", 1) as traffic:
        name = begin(control, strategy="canary", steps=[{"weight": 20, "min_time": "1s"}])
        eventually(lambda: now(control, name).get("stage") == "step", "its first step", 100)
        with contextlib.closing(sqlite3.connect(state / "gateway.db", timeout=60)) as file:
            file.execute("BEGIN IMMEDIATE")
            before = eventually(lambda: now(control, name), "what there is now", 100)
            held_s = time.monotonic() + 2.5
            while time.monotonic() < held_s:
                found = now(control, name)
                assert not found or found["decisions"] - before["decisions"] <= 1  # what was written before the lock
                assert not found or found["epoch"] == before["epoch"]
            file.rollback()
        eventually(lambda: now(control, name).get("stage") in ("baking", "promoted"), "it goes on", 100)
        assert control.get(f"/v1/rollouts/{name}/replay")["same"]
    assert traffic.failed == {}


def test_it_is_promoted_though_its_leader_is_killed_at_every_transition(gateway: GatewayProcess) -> None:
    control = gateway.control()
    with Traffic(gateway.grpc_url, "m", 1) as traffic:
        eventually(lambda: control.try_get("/v1/status"), "status")
        name = begin(control, steps=[{"weight": 50, "min_time": "500ms"}])
        seen: set[str] = set()

        def is_promoted() -> bool:
            stage = now(control, name).get("stage", "loading")
            if stage not in seen and stage != "loading":  # each kill costs a longer pause
                seen.add(stage)
                kill_control(gateway)
            return stage == "promoted"

        eventually(is_promoted, f"it is promoted; {sorted(seen)}; log:\n{gateway.log[-3000:]}", 200)
        eventually(lambda: control.try_get("/v1/status"), "a control process", 100)
        check_history(control, name, [0, 50, 95, 100])
        # A look is each 50 ms, and on a busy machine a stage may pass between two of them.
        assert len(seen) >= 4
        assert seen <= {"warming", "shadow", "step", "baking", "promoted"}
    assert traffic.failed == {}
