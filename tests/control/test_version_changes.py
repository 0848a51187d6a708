"""Versions that come and go on a running gateway: loaded before they are routed, retired, kept for a while."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.control import ask, connections, put, refusal, times
from tests.support.controlclient import ControlClient
from tests.support.gatewayprocess import GatewayProcess
from tests.support.traffic import Traffic


def only(version: int, **more: Any) -> dict[str, Any]:
    return {"versions": {str(version): 100}, **more}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    put(tmp_path / "models", "m", 1, times(1))
    return tmp_path / "models"


def state(control: ControlClient, version: int) -> str:
    return str((control.try_get(f"/v1/models/m/versions/{version}") or {}).get("state"))


def answering(gateway: GatewayProcess, version: str = "") -> set[float]:
    with connections(gateway.grpc_url) as clients:
        return {ask(client, "m", version) for client in clients}


def test_a_version_is_loaded_everywhere_before_it_is_routed(models: Path, serve: Serve) -> None:
    gateway = serve(models, "--workers", "2")
    control = gateway.wait_routed("m")
    put(models, "m", 2, times(2))
    with Traffic(gateway.grpc_url, "m") as traffic:
        status, body = control.put_route("m", only(2))
        assert (status, body["loads"], body["missing"]) == (200, ["2"], [])
        assert answering(gateway) == {2.0}
    assert traffic.failed == {}
    assert set(traffic.ok) == {"1", "2"}
    assert state(control, 2) == "READY"


def test_a_route_to_a_version_that_does_not_load_is_refused_with_each_workers_reason(
    models: Path, serve: Serve
) -> None:
    gateway = serve(models, "--workers", "2")
    control = gateway.wait_routed("m")
    put(models, "m", 2, b"no model")
    for _ in range(2):  # the second time it is tried again, not remembered
        status, body = control.put_route("m", only(2))
        assert (status, {fault["field"] for fault in body["faults"]}) == (409, {"versions.2"})
        assert {fault["message"].split(":")[0].split("/")[1] for fault in body["faults"]} == {"0", "1"}
        assert "nothing was changed" in body["error"]
    assert control.generation("m") == 1
    assert answering(gateway) == {1.0}
    status, body = control.put_route("m", only(3))
    assert (status, body["faults"][0]["message"]) == (422, "no such version; versions here: 1, 2")


def test_an_added_version_gets_no_traffic_and_its_files_may_not_change(models: Path, serve: Serve) -> None:
    gateway = serve(models)
    control = gateway.wait_routed("m")
    status, body = control.ask("POST", "/v1/models/m/versions", {})
    assert (status, body["error"].split(":")[0]) == (409, "model 'm'")
    put(models, "m", 2, times(2))
    (models / "m/2/version.yaml").write_text("lineage: {run: r-17}\ncard: {owner: ada}\n")
    status, body = control.ask("POST", "/v1/models/m/versions", {"reason": "trained on May"})
    assert status == 200
    assert [each["version"] for each in body["versions"]] == ["2"]
    assert answering(gateway) == {1.0}
    assert answering(gateway, "2") == {2.0}
    found = control.get("/v1/models/m/versions/2")
    assert (found["lineage"], found["card"]) == ({"run": "r-17"}, {"owner": "ada"})
    assert (found["registered_by"], found["is_routed"]) == ("ada", False)
    put(models, "m", 2, times(3))
    status, body = control.ask("POST", "/v1/models/m/versions", {"version": "2"})
    assert status == 409
    assert "a version never changes" in body["error"]
    assert answering(gateway, "2") == {2.0}


def test_a_retired_version_is_unloaded_and_stays_so_in_a_worker_that_starts_anew(models: Path, serve: Serve) -> None:
    put(models, "m", 2, times(2))
    gateway = serve(models)
    control = gateway.wait_routed("m")
    status, body = control.ask("POST", "/v1/models/m/versions/2/retire", {"reason": "old"})
    assert (status, "take it out of the route first" in body["error"]) == (409, True)
    assert control.put_route("m", only(1))[0] == 200
    status, body = control.ask("POST", "/v1/models/m/versions/2/retire", {"reason": "old"})
    assert (status, len(body["unloaded"]), body["missing"]) == (200, 1, [])
    assert state(control, 2) == "retired"
    with connections(gateway.grpc_url, 1) as (client,):
        assert refusal(ask, client, "m", "2")[0] == "UNAVAILABLE"
    assert "version 2 is retired" in control.put_route("m", only(2))[1]["error"]
    (worker,) = gateway.workers()
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: gateway.events("worker ready"), "the new worker")
    with connections(gateway.grpc_url, 1) as (client,):
        assert refusal(ask, client, "m", "2")[0] == "UNAVAILABLE"
        assert ask(client, "m") == 1.0
    assert control.ask("POST", "/v1/models/m/versions", {"version": "2"})[0] == 200
    assert answering(gateway, "2") == {2.0}


def test_the_old_side_stays_warm_for_keep_and_comes_back_when_it_is_routed_again(models: Path, serve: Serve) -> None:
    put(models, "m", 2, times(2))
    gateway = serve(models)
    control = gateway.wait_routed("m")
    assert control.put_route("m", only(1))[0] == 200
    assert control.put_route("m", only(2, keep="1h"))[0] == 200
    assert control.put_route("m", only(1, keep="10ms"))[1]["loads"] == []  # as quick back as there
    eventually(lambda: state(control, 2) == "UNAVAILABLE", "version 2 is unloaded")
    assert answering(gateway) == {1.0}
    assert control.put_route("m", only(2))[1]["loads"] == ["2"]
    assert answering(gateway) == {2.0}


def test_routes_outlive_the_gateway_and_the_store_with_the_last_ones_in_a_file(
    models: Path, serve: Serve, tmp_path: Path
) -> None:
    put(models, "m", 2, times(2))
    flags = ("--state", str(tmp_path / "state"))
    first = serve(models, *flags)
    assert first.wait_routed("m").put_route("m", only(1), reason="2 is not ready for people")[0] == 200
    assert first.stop() == 0
    second = serve(models, *flags)
    assert answering(second) == {1.0}  # at once: no request goes to 2 while the store is being read
    assert second.wait_routed("m").get("/v1/routes/m")["generation"] == 2
    assert second.stop() == 0
    for file in (tmp_path / "state").glob("gateway.db*"):
        file.unlink()
    (tmp_path / "state/gateway.db").mkdir()  # nothing that could be opened
    third = serve(models, *flags)
    assert answering(third) == {1.0}


def test_without_a_state_folder_nothing_is_kept_and_the_operator_is_told(models: Path, serve: Serve) -> None:
    gateway = serve(models)
    event = gateway.events("gateway ready")[0]
    assert event["is_ephemeral"]
    control = gateway.wait_routed("m")
    assert control.get("/v1/status")["store"]["is_ephemeral"]
    assert Path(event["state"]).exists()
    assert gateway.stop() == 0
    assert not Path(event["state"]).exists()


def test_a_repository_load_moves_an_automatic_route_and_leaves_an_operators_alone(models: Path, serve: Serve) -> None:
    gateway = serve(models, "--workers", "2", "--model-control")
    control = gateway.wait_routed("m")
    put(models, "m", 2, times(2))
    with connections(gateway.grpc_url) as clients:
        clients[0].load_model("m")
        assert {ask(client, "m") for client in clients} == {2.0}
        eventually(lambda: control.generation("m") == 2, "the route says so too")
        assert control.get("/v1/routes/m")["route"] == only(2)
        assert {ask(client, "m") for client in clients} == {2.0}
        assert control.put_route("m", only(1))[0] == 200
        put(models, "m", 3, times(3))
        clients[0].load_model("m")
        eventually(lambda: state(control, 3) == "READY", "version 3 is loaded")
        assert {ask(client, "m") for client in clients} == {1.0}
        assert control.generation("m") == 3
