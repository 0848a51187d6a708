"""Routes changed by REST on a running gateway of two workers: what is answered, refused, kept, and who serves after."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest

from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.control import ask, connections, put, times
from tests.support.controlclient import ControlClient
from tests.support.gatewayprocess import GatewayProcess
from tests.support.traffic import Traffic

N_CHANGES = 200
"""Under load, on two real workers: some twenty seconds. The in-process test of routed traffic makes a thousand."""


def only(version: int) -> dict[str, Any]:
    return {"versions": {str(version): 100}}


@pytest.fixture(scope="module")
def gateway(serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    """Models f, g, h and i with versions 1, 2 and 3: y = version * x."""
    models = tmp_path_factory.mktemp("models")
    for model in "fghi":
        for version in (1, 2, 3):
            put(models, model, version, times(version))
    state = tmp_path_factory.mktemp("state")
    return serve_for_module(models, "--workers", "2", "--state", str(state / "new" / "folder"))


@pytest.fixture
def control(gateway: GatewayProcess) -> ControlClient:
    return gateway.wait_routed(*"fghi")


def answering(gateway: GatewayProcess, model: str) -> set[float]:
    """Factors of the answers, over connections enough to meet both workers."""
    with connections(gateway.grpc_url) as clients:
        return {ask(client, model) for client in clients}


def test_a_model_starts_with_everything_to_its_highest_version(control: ControlClient, gateway: GatewayProcess) -> None:
    eventually(lambda: not control.get("/v1/routes/i")["missing"], "both workers have it in force")
    route = control.get("/v1/routes/i")
    assert (route["generation"], route["route"]) == (1, {"versions": {"3": 100}})
    assert (route["automatic"], route["actor"]) == (True, "gateway")
    assert len(route["acknowledged"]) == 2
    assert route["missing"] == []
    assert answering(gateway, "i") == {3.0}


def test_a_change_is_answered_when_both_workers_have_it_and_every_request_follows(
    control: ControlClient, gateway: GatewayProcess
) -> None:
    for version in (1, 2, 3, 1):
        status, body = control.put_route("f", only(version), reason="to see it")
        assert status == 200
        eventually(lambda: not control.get("/v1/routes/f")["missing"], "both workers have it")
        assert len(control.get("/v1/routes/f")["acknowledged"]) == 2
        assert answering(gateway, "f") == {float(version)}
    newest = control.get("/v1/routes/f/history?limit=2")["routes"]
    assert [each["generation"] for each in newest] == [body["generation"], body["generation"] - 1]
    assert (newest[0]["actor"], newest[0]["reason"], newest[0]["automatic"]) == ("ada", "to see it", False)


def test_the_second_of_two_operators_gets_a_409_with_the_difference(control: ControlClient) -> None:
    seen = control.generation("g")
    assert control.put_route("g", only(1), expected_generation=seen)[0] == 200
    status, body = ControlClient(f"http://{control._host}:{control._port}", "bob").put_route(
        "g", only(2), expected_generation=seen
    )
    assert (status, body["generation"], body["route"]) == (409, seen + 1, only(1))
    assert body["diff"] == [
        {"path": "versions.1", "before": 100, "after": None},
        {"path": "versions.2", "before": None, "after": 100},
    ]
    assert "by ada" in body["error"]
    assert control.generation("g") == seen + 1


def test_a_dry_run_says_what_would_change_and_changes_nothing(control: ControlClient) -> None:
    before = control.get("/v1/routes/g")
    wish = {"route": {"versions": {"1": 50, "2": 50}}}
    status, body = control.ask("PUT", "/v1/routes/g?dry_run=true", wish)
    assert (status, body["is_dry_run"], body["generation"]) == (200, True, before["generation"] + 1)
    assert body["diff"]
    assert control.get("/v1/routes/g") == before


@pytest.mark.parametrize(
    ("route", "field", "text"),
    [
        (only(7), "versions.7", "no such version; versions here: 1, 2, 3"),
        ({"versions": {"1": 60, "2": 60}}, "versions", "add up to 120, expected 100"),
        ({**only(1), "shadows": [{"version": "1"}]}, "shadows[0].version", "would shadow itself"),
        ({**only(1), "fallback": {"version": "1"}}, "fallback.version", "would fall back to itself"),
        ({**only(1), "sticky": {}}, "sticky", "names neither a header nor a parameter"),
        ({**only(1), "stickie": {}}, "stickie", ""),
    ],
)
def test_a_bad_route_is_refused_with_the_path_of_the_field(
    control: ControlClient, route: dict[str, Any], field: str, text: str
) -> None:
    before = control.generation("g")
    status, body = control.put_route("g", route)
    assert status == 422
    assert [fault["field"] for fault in body["faults"]] == [field]
    assert text in body["faults"][0]["message"]
    assert f"{field}: " in body["error"]
    assert control.generation("g") == before


def test_a_roll_back_makes_the_earlier_route_the_newest(control: ControlClient, gateway: GatewayProcess) -> None:
    first = control.put_route("h", only(1))[1]["generation"]
    assert control.put_route("h", only(2))[0] == 200
    status, body = control.ask("POST", "/v1/routes/h/rollback", {"to": first, "reason": "2 is bad"})
    assert (status, body["generation"], body["route"]) == (200, first + 2, only(1))
    assert answering(gateway, "h") == {1.0}
    status, body = control.ask("POST", "/v1/routes/h/rollback", {})
    assert (status, body["route"]) == (200, only(2))
    assert control.get("/v1/routes/h")["reason"] == f"back to generation {first + 1}"
    stale = {"to": first, "expected_generation": first}
    assert control.ask("POST", "/v1/routes/h/rollback", stale)[0] == 409
    assert control.ask("POST", "/v1/routes/h/rollback", {"to": 999})[0] == 404


def test_generations_can_be_compared(control: ControlClient) -> None:
    generation = control.put_route("h", {"versions": {"1": 90, "2": 10}})[1]["generation"]
    control.put_route("h", {"versions": {"1": 80, "2": 20}})
    body = control.get(f"/v1/routes/h/diff?from={generation}")
    assert body["diff"] == [
        {"path": "versions.1", "before": 90, "after": 80},
        {"path": "versions.2", "before": 10, "after": 20},
    ]
    assert control.get(f"/v1/routes/h/diff?to={generation}")["before"]["generation"] == generation - 1


def test_what_a_shadow_answered_is_added_up_over_both_workers(control: ControlClient, gateway: GatewayProcess) -> None:
    assert control.put_route("g", {**only(1), "shadows": [{"version": "2"}]})[0] == 200
    with connections(gateway.grpc_url) as clients:
        for client in clients:
            assert ask(client, "g") == 1.0

    def disagreed() -> int:
        return sum(pair["counts"]["counts"]["disagreed"] for pair in control.get("/v1/shadows/g")["pairs"])

    eventually(lambda: disagreed() == len(clients), "all pairs of both workers")
    (pair,) = control.get("/v1/shadows/g")["pairs"]
    assert (pair["version"], pair["rates"]["agreement"]) == ("2", 0.0)
    found = eventually(lambda: control.get("/v1/shadows/g/disagreements")["disagreements"], "samples")
    (sample, *_) = found[0]["sample"]["worst"]
    assert sample["primary"][0]["values"] == [1.0] * 4
    assert sample["shadow"][0]["values"] == [2.0] * 4


def test_every_change_is_in_the_audit_log_which_holds(control: ControlClient) -> None:
    status, body = control.put_route("h", only(3), reason="for the record")
    assert status == 200
    newest = control.get("/v1/audit?model=h&action=route&limit=1")["entries"][0]
    assert (newest["actor"], newest["reason"], newest["subject"]) == ("ada", "for the record", "h")
    assert newest["after"]["generation"] == body["generation"]
    assert control.get("/v1/audit/verify")["ok"]


def test_models_and_versions_say_what_is_registered_and_what_serves(control: ControlClient) -> None:
    eventually(lambda: control.get("/v1/models/i/versions/2")["signature"], "the signature")
    version = control.get("/v1/models/i/versions/2")
    assert (version["state"], version["states"], version["is_registered"]) == ("READY", {"READY": 2}, True)
    assert version["digest"].startswith("sha256:")
    assert version["signature"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    model = control.get("/v1/models/i")
    assert [each["version"] for each in model["versions"]] == ["1", "2", "3"]
    assert [each["is_routed"] for each in model["versions"]] == [False, False, True]
    assert {each["name"] for each in control.get("/v1/models")["models"]} == set("fghi")


def test_status_and_workers_show_both_workers_up_to_date(control: ControlClient, gateway: GatewayProcess) -> None:
    status = eventually(lambda: (now := control.get("/v1/status"))["ok"] and now, "nothing is wrong")
    assert status["wrong"] == []
    assert (status["store"]["is_up"], status["store"]["is_ephemeral"]) == (True, False)
    workers = control.get("/v1/workers")["workers"]
    assert [each["pid"] for each in workers] == gateway.workers()
    assert all(each["is_live"] and each["is_ready"] for each in workers)
    assert workers[0]["revision"] == workers[1]["revision"] == status["store"]["revision"]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_random_changes_under_full_load_fail_no_request_and_only_routed_versions_answer(
    control: ControlClient, gateway: GatewayProcess
) -> None:
    dice = random.Random(4)
    assert control.put_route("f", only(1))[0] == 200
    took_s = []
    with Traffic(gateway.grpc_url, "f") as traffic:
        for _ in range(N_CHANGES):
            share = dice.randint(0, 100)
            status, body = control.put_route("f", {"versions": {"1": share, "2": 100 - share}})
            assert status == 200
            took_s.append(body["live_after_s"] or 2.0)  # who is late is named, and gets it all the same
    assert traffic.failed == {}
    assert set(traffic.ok) == {"1", "2"}
    assert sum(traffic.ok.values()) > N_CHANGES
    assert statistics.median(took_s) <= 1.0  # 0.05 on a quiet machine; a poll that was missed is two seconds
