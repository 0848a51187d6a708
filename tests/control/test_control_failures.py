"""What is served, said and mended when the control plane, a worker or the store fails on a running gateway."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton

from gateway.store import Store
from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.control import ask, connections, put, times
from tests.support.gatewayprocess import GatewayProcess
from tests.support.postgres import Postgres
from tests.support.traffic import Traffic


def only(version: int) -> dict[str, Any]:
    return {"versions": {str(version): 100}}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2):
        put(tmp_path / "models", "m", version, times(version))
    return tmp_path / "models"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.close()


def answering(gateway: GatewayProcess) -> set[float]:
    with connections(gateway.grpc_url) as clients:
        return {ask(client, "m") for client in clients}


def store_up(gateway: GatewayProcess) -> set[str]:
    """As the metrics of all workers say."""
    status, text = gateway.control().ask("GET", "/metrics")
    assert status == 200
    return {line.split()[1] for line in text.splitlines() if line.startswith("gateway_store_up{")}


@pytest.mark.timeout(180)  # it starts three times, beside a load that takes whole cores
def test_killing_the_control_process_harms_no_request_and_it_comes_back(
    models: Path, serve: Serve, tmp_path: Path
) -> None:
    gateway = serve(models, "--workers", "2", "--state", str(tmp_path / "state"))
    control = gateway.wait_routed("m")
    assert control.put_route("m", only(1))[0] == 200
    with Traffic(gateway.grpc_url, "m") as traffic:
        for n in (1, 2):
            pid = gateway.control_pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            eventually(lambda n=n: len(gateway.events("control plane died, requests are served without it")) == n, "it")
            # The port is the supervisor's: who asks meanwhile waits, and is not refused.
            assert control.put_route("m", only(n))[0] == 200
            assert gateway.control_pid not in (None, pid)
    assert traffic.failed == {}
    assert set(traffic.ok) == {"1", "2"}
    assert control.get("/v1/status")["ok"]


def test_a_worker_that_is_killed_comes_back_with_the_routes_in_force(models: Path, serve: Serve) -> None:
    gateway = serve(models, "--workers", "2")
    control = gateway.wait_routed("m")
    assert control.put_route("m", only(1))[0] == 200
    victim = gateway.workers()[0]
    os.kill(victim, signal.SIGKILL)
    status, body = control.put_route("m", {"versions": {"1": 100, "2": 0}})
    assert status == 200
    assert len(body["acknowledged"]) == 2 or body["missing"]  # back in time, or named
    eventually(lambda: len(gateway.workers()) == 2 and gateway.events("worker ready"), "the new worker")
    eventually(lambda: len(control.get("/v1/routes/m")["acknowledged"]) == 2, "both have the newest route")
    assert answering(gateway) == {1.0}
    eventually(lambda: control.get("/v1/status")["ok"], "nothing is wrong any more")


def test_a_worker_that_stands_still_is_named_and_catches_up(models: Path, serve: Serve) -> None:
    gateway = serve(models, "--workers", "2")
    control = gateway.wait_routed("m")
    frozen = gateway.workers()[1]
    (name,) = [each["worker"] for each in control.get("/v1/workers")["workers"] if each["pid"] == frozen]
    os.kill(frozen, signal.SIGSTOP)
    try:
        status, body = control.put_route("m", only(1))
        assert (status, body["live_after_s"]) == (200, None)
        assert name in [each["worker"] for each in body["missing"]]
        eventually(lambda: [each["worker"] for each in control.get("/v1/routes/m")["missing"]] == [name], "it alone")
    finally:
        os.kill(frozen, signal.SIGCONT)
    eventually(lambda: control.get("/v1/routes/m")["missing"] == [], "it has caught up")


def test_a_worker_that_cannot_apply_a_newer_route_takes_itself_out_of_ready(
    models: Path, serve: Serve, tmp_path: Path
) -> None:
    gateway = serve(models, "--state", str(tmp_path / "state"))
    control = gateway.wait_routed("m")
    with triton.InferenceServerClient(gateway.grpc_url) as client:
        assert client.is_server_ready()
        with Store.open(f"sqlite:///{tmp_path}/state/gateway.db") as store:
            store.put_route("m", {**only(1), "invented_later": True}, None, "a newer gateway", "")
        eventually(lambda: not client.is_server_ready(), "it is out of ready")
        assert ask(client, "m") == 2.0  # what comes all the same is answered by the last route
        wrong = eventually(lambda: control.get("/v1/status")["wrong"], "it says why")
        assert any("invented_later" in text for text in wrong)
        assert control.put_route("m", only(1))[0] == 200
        eventually(client.is_server_ready, "it is ready again")
        assert ask(client, "m") == 1.0


def test_with_a_locked_store_requests_go_on_changes_are_refused_and_it_recovers(
    models: Path, serve: Serve, tmp_path: Path
) -> None:
    gateway = serve(models, "--state", str(tmp_path / "state"))
    control = gateway.wait_routed("m")
    lock = sqlite3.connect(tmp_path / "state" / "gateway.db", isolation_level=None, timeout=30)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        began_s = time.monotonic()
        status, body = control.put_route("m", only(1))
        assert (status, "locked" in body["error"]) == (503, True)
        assert time.monotonic() - began_s < 30
        assert answering(gateway) == {2.0}
        eventually(lambda: store_up(gateway) == {"0.0"}, "the metrics say so")
    finally:
        lock.close()
    eventually(lambda: store_up(gateway) == {"1.0"}, "the worker is back")
    eventually(lambda: control.put_route("m", only(1))[0] == 200, "changes are possible")
    eventually(lambda: answering(gateway) == {1.0}, "and happen")


def test_on_a_full_disk_requests_go_on_changes_are_refused_and_it_recovers(
    models: Path, serve: Serve, tmp_path: Path
) -> None:
    gateway = serve(models, "--state", str(tmp_path / "state"))
    control = gateway.wait_routed("m")
    pids = [*gateway.workers(), gateway.control_pid or 0]
    limits = resource.prlimit(pids[0], resource.RLIMIT_FSIZE)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, limits[1]))  # no file grows beyond
    try:
        status, body = control.put_route("m", only(1))
        assert status == 503, body
        assert answering(gateway) == {2.0}
        eventually(lambda: store_up(gateway) == {"0.0"}, "the metrics say so")
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    eventually(lambda: control.put_route("m", only(1))[0] == 200, "changes are possible")
    eventually(lambda: answering(gateway) == {1.0}, "and happen")
    eventually(lambda: store_up(gateway) == {"1.0"}, "the metrics say so")
    assert control.get("/v1/audit/verify")["ok"]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_without_postgresql_requests_go_on_by_the_last_routes_and_it_recovers(
    models: Path, serve: Serve, postgres: Postgres
) -> None:
    gateway = serve(models, "--workers", "2", env={"GATEWAY_STORE": postgres.new_database()})
    control = gateway.wait_routed("m")
    assert control.put_route("m", only(1))[0] == 200
    assert control.get("/v1/status")["store"]["name"].startswith("postgresql")
    with Traffic(gateway.grpc_url, "m") as traffic:
        postgres.kill()
        assert control.put_route("m", only(2))[0] == 503
        eventually(lambda: store_up(gateway) == {"0.0"}, "the metrics say so")
        status = control.get("/v1/status")
        assert (status["ok"], status["store"]["is_up"]) == (False, False)
        os.kill(gateway.workers()[0], signal.SIGKILL)  # who starts now has no store to ask
        eventually(lambda: gateway.events("worker ready"), "a worker that never saw the store", 60)
        assert answering(gateway) == {1.0}
        postgres.start()
        eventually(lambda: store_up(gateway) == {"1.0"}, "the workers are back", 60)
        eventually(lambda: control.put_route("m", only(2))[0] == 200, "changes are possible", 60)
        eventually(lambda: control.get("/v1/routes/m")["missing"] == [], "everywhere")
        assert answering(gateway) == {2.0}
    failures = {text: n for text, n in traffic.failed.items() if not text.startswith("UNAVAILABLE")}
    assert failures == {}  # the killed worker's own connections break, and nothing else
    assert set(traffic.ok) == {"1", "2"}
