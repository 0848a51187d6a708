"""Answers carry a token where model.yaml asks for it, over every way in, and what is reported by it is kept: real
clients on a real gateway with two workers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from gateway import pb
from gateway.native import receipt
from gateway.store import Store, url_of_folder
from tests.support import onnxmodels
from tests.support.conditions import eventually
from tests.support.controlclient import ControlClient
from tests.support.gatewayprocess import GatewayProcess
from tests.support.oip import Client, connect, request
from tests.support.rest import RestClient

F = pb.feedback
ONE = {"x": np.array([[1, 2, 9, 3]], np.float32)}
SOFTMAX = onnxmodels.build(
    [onnxmodels.node("Softmax", ["x"], ["y"])], [onnxmodels.tensor("x")], [onnxmodels.tensor("y")]
)
ROUTE = {
    "versions": [{"version": "1", "weight": 90, "arm": "stable"}, {"version": "2", "weight": 10, "arm": "candidate"}]
}


@dataclass
class Served:
    process: GatewayProcess
    key: bytes
    state: Path

    def client(self) -> Client:
        return Client(connect(self.process.grpc_url))

    def token(self, metadata: Any = None) -> str:
        answer = self.client().send(request("m", ONE), metadata=metadata)
        return str(answer.parameters["gateway_request"].string_param)

    def scores(self, version: str = "1") -> dict[str, Any]:
        found = ControlClient(self.process.control_url).get("/v1/feedback/m")
        return next((v for v in found["versions"] if v["version"] == version), {"accepted": 0, "duplicate": 0})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("feedback")
    for version in (1, 2):
        onnxmodels.store(folder / "models", "m", version, SOFTMAX, "feedback: true\n")
    onnxmodels.store(folder / "models", "plain", 1, SOFTMAX)
    state = folder / "state"
    with GatewayProcess(folder / "models", folder / "g", "--state", str(state), "--workers", "2") as process:
        control = process.wait_routed("m", "plain")
        control.put_route("m", {**ROUTE, "sticky": {"header": "x-user"}})
        eventually((state / "feedback.key").exists, "the key is made")
        found = Served(process, bytes.fromhex((state / "feedback.key").read_text()), state)

        def both_have_it() -> bool:
            return all(found.token() for _ in range(32))

        eventually(both_have_it, "both workers have the key")
        yield found


def outcome(token: str, label: int | None = None, **values: float) -> Any:
    made = F.Outcome(request=token, values=values)
    if label is not None:
        made.label.number = label
    return made


def report(client: Client, *outcomes: Any) -> list[tuple[int, str]]:
    call = client.channel.unary_unary(
        "/gateway.v1.Feedback/Report",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=F.ReportResponse.FromString,
    )
    return [(r.status, r.error) for r in call(F.ReportRequest(reports=outcomes), timeout=20).results]


def test_an_answer_by_grpc_stream_and_rest_carries_a_token_that_is_right(served: Served) -> None:
    client = served.client()
    unary = client.send(request("m", ONE, id="a"))
    (streamed,) = client.stream(iter([request("m", ONE, id="b")]))
    with RestClient(served.process.rest_url) as rest:
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 9, 3]}]}
        tokens = [
            unary.parameters["gateway_request"].string_param,
            streamed.infer_response.parameters["gateway_request"].string_param,
            rest.infer("m", body).json["parameters"]["gateway_request"],
        ]
    for token in tokens:
        said = receipt.read(served.key, token)
        assert said[3] == "m"
        assert (said[4], said[5], said[7]) in (("1", "stable", 9000), ("2", "candidate", 1000))
        assert said[10] == [(2, pytest.approx(0.9965, abs=1e-3))]


def test_a_model_that_does_not_ask_for_it_has_none(served: Served) -> None:
    assert not served.client().send(request("plain", ONE)).parameters


def test_a_sticky_key_is_in_the_token_hashed_and_the_same_in_every_worker(served: Served) -> None:
    units = {receipt.read(served.key, served.token([("x-user", "ada")]))[2] for _ in range(6)}
    others = {receipt.read(served.key, served.token([("x-user", f"u{i}")]))[2] for i in range(6)}
    assert len(units) == 1
    assert len(others | units) == 7
    assert receipt.read(served.key, served.token())[2] is None


def test_what_is_reported_to_either_worker_is_kept_once(served: Served) -> None:
    tokens = [served.token([("x-user", "ada")]) for _ in range(20)]
    version = receipt.read(served.key, tokens[0])[4]
    before = served.scores(version)
    for _ in range(3):
        results = report(served.client(), *(outcome(token, 2, sold=1.0) for token in tokens))
    assert {status for status, _ in results} == {F.Result.DUPLICATE}
    after = served.scores(version)
    assert after["accepted"] - before["accepted"] == 20
    assert after["duplicate"] - before["duplicate"] == 40
    assert after["accuracy"]["share"] == 1.0


def test_each_of_a_batch_is_answered_for_itself(served: Served) -> None:
    good = served.token()
    results = report(served.client(), outcome(good, 1), outcome(good[:-3] + "AAA", 1), outcome("x", 1), outcome(good))
    assert [status for status, _ in results] == [
        F.Result.ACCEPTED,
        F.Result.FORGED,
        F.Result.MALFORMED,
        F.Result.INVALID,
    ]
    assert [bool(error) for _, error in results] == [False, True, True, True]


def test_a_message_that_is_none_is_refused_as_a_whole(served: Served) -> None:
    call = served.client().channel.unary_unary("/gateway.v1.Feedback/Report")
    with pytest.raises(grpc.RpcError) as error:
        call(b"\xff\xff", timeout=20)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "gateway.v1.ReportRequest" in error.value.details()


def test_a_stream_of_batches_ends_with_their_sum(served: Served) -> None:
    client = served.client()
    tokens = [served.token() for _ in range(10)]
    batches = [F.ReportRequest(reports=[outcome(t, 2)]) for t in tokens] + [
        F.ReportRequest(reports=[outcome(tokens[0], 2), outcome("x", 2)])
    ]
    call = client.channel.stream_unary(
        "/gateway.v1.Feedback/ReportStream",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=F.ReportSummary.FromString,
    )
    summary = call(iter(batches), timeout=20)
    assert (summary.accepted, summary.duplicate, summary.refused) == (10, 1, 1)
    assert [(each.index, each.result.status) for each in summary.first] == [(11, F.Result.MALFORMED)]
    assert call(iter([]), timeout=20) == F.ReportSummary()


@pytest.mark.parametrize("port", ["data", "control"])
def test_http_takes_one_report_or_many_and_says_what_was_wrong(served: Served, port: str) -> None:
    url = f"http://{served.process.rest_url}" if port == "data" else served.process.control_url
    token = served.token()

    def post(body: Any) -> tuple[int, Any]:
        return ControlClient(url).ask("POST", "/v1/feedback", body)

    assert post({"request": token, "label": 2, "groups": ["women"]}) == (
        200,
        {"results": [{"status": "accepted", "error": ""}]},
    )
    status, body = post({"reports": [{"request": token, "label": 2}, {"request": "x", "label": 2}]})
    assert (status, [each["status"] for each in body["results"]]) == (200, ["duplicate", "malformed"])
    for body, status in (
        ({"request": "x", "label": 1}, 400),
        ({"request": token[:-3] + "AAA", "label": 1}, 403),
        ({"request": token}, 422),
        ({"request": token, "row": 1, "label": 1}, 422),
    ):
        found = post(body)
        assert found[0] == status, found
        assert found[1]["error"]
    for body in ({"reports": []}, {"request": token, "lable": 1}, {"request": 7}, [1]):
        found = post(body)
        assert found[0] == (400 if port == "data" else 422), found
        assert found[1]["error"]


def test_the_command_reports_a_file_and_shows_how_versions_do(served: Served, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway", "feedback", *words, "--server", served.process.control_url]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)

    file = tmp_path / "reports.jsonl"
    lines = [{"request": served.token(), "label": label, "values": {"rating": 4}} for label in (2, 3)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("report", "--file", str(file))
    assert (done.returncode, done.stdout) == (0, "2 accepted\n"), done.stderr
    done = run("report", served.token()[:-1] + "~", "--label", "1")
    assert done.returncode == 1
    assert "1 malformed" in done.stdout
    done = run("show", "m")
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert "rating" in done.stdout
    assert run("show", "nobody").returncode == 1
    assert run("report").returncode == 2


def test_what_a_shadow_predicted_is_told_for_the_answers_it_belongs_to(served: Served) -> None:
    control = served.process.control()
    control.put_route(
        "m", {"versions": [{"version": "1", "weight": 100, "arm": "stable"}], "shadows": [{"version": "2"}]}
    )
    with Store.open(url_of_folder(served.state)) as store:

        def told() -> dict[str, Any]:
            reports = store.reports("link", "m", "2")
            return {id: label for report in reports for id, label in json.loads(report.body).items()}

        ids: set[str] = set()

        def is_told() -> bool:
            ids.add(receipt.read(served.key, served.token())[0].hex())
            return bool(ids & told().keys())

        eventually(is_told, "a pair is told")
        assert {label for id, label in told().items() if id in ids} == {"2"}
    control.put_route("m", ROUTE)


def test_metrics_count_reports_of_all_processes(served: Served) -> None:
    text = ControlClient(served.process.control_url).get("/metrics")
    assert 'gateway_feedback_reports_total{model="m",status="accepted",version="1"}' in text
    assert 'gateway_feedback_reports_total{model="",status="forged",version=""}' in text


def test_reflection_knows_the_service(served: Served) -> None:
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    database = ProtoReflectionDescriptorDatabase(served.client().channel)
    assert "gateway.v1.Feedback" in database.get_services()
