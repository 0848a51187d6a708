"""A version that fails under a route with a fallback, as callers see it: gRPC, its streams, REST, Triton's clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from tests.support.conditions import eventually
from tests.support.oip import Client, arrays, connect, request
from tests.support.onnxmodels import build, node, parse_number, store, tensor
from tests.support.rest import RestClient, one
from tests.support.routedworker import RoutedWorker
from tests.support.servedmodels import TABLE_SIZE, patient, row

GOOD, BAD = np.array([["3.5"]], object), np.array([["no number"]], object)
ROUTE: dict[str, Any] = {
    "versions": {"2": 100},
    "fallback": {"version": "1", "on": ["error", "circuit_open", "timeout"]},
    "circuit": {"failures": 1000, "open_for": "1s"},
}


def guess() -> bytes:
    """y[N, 1] = -1 whatever the text x[N, 1] is: never fails."""
    return build(
        [
            node(
                "LabelEncoder",
                ["x"],
                ["y"],
                "ai.onnx.ml",
                keys_strings=["never"],
                values_floats=[0.0],
                default_float=-1.0,
            )
        ],
        [tensor("x", "BYTES", ("N", 1))],
        [tensor("y", "FP32", ("N", 1))],
        opsets={"ai.onnx.ml": 3},
    )


def quick() -> bytes:
    """The answers of `patient`, without its patience."""
    return build(
        [node("Gather", ["table", "index"], ["y"])],
        [tensor("turns", "INT64", ("N",)), tensor("index", "INT64", ("N",))],
        [tensor("y", "FP32", ("N",))],
        {"table": np.arange(TABLE_SIZE, dtype=np.float32)},
    )


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoutedWorker]:
    root = tmp_path_factory.mktemp("models")
    store(root, "number", 1, guess())
    store(root, "number", 2, parse_number())
    store(root, "slow", 1, quick())
    store(root, "slow", 2, patient(), "batching: {max_batch_size: 4, instances: 1}")
    log = tmp_path_factory.mktemp("log") / "log"
    with RoutedWorker(root, log) as worker:
        yield worker


@pytest.fixture
def client(worker: RoutedWorker) -> Iterator[Client]:
    assert worker.route(number=ROUTE, slow=ROUTE) == {}
    with connect(f"127.0.0.1:{worker.grpc_port}") as channel:
        yield Client(channel)


def fallback_from(answer: Any) -> str:
    return str(answer.parameters["gateway_fallback_from"].string_param) if answer.parameters else ""


def test_a_grpc_caller_gets_the_fallbacks_answer_and_sees_that_it_is(client: Client) -> None:
    good, bad = client.send(request("number", {"x": GOOD}, id="a")), client.send(request("number", {"x": BAD}, id="b"))
    assert (arrays(good)["y"].tolist(), good.model_version, fallback_from(good)) == ([[3.5]], "2", "")
    assert (arrays(bad)["y"].tolist(), bad.model_version, fallback_from(bad), bad.id) == ([[-1]], "1", "2", "b")


def test_a_version_named_by_the_caller_fails_as_it_does(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.infer("number", {"x": BAD}, version="2")
    assert caught.value.code() is grpc.StatusCode.INTERNAL


def test_a_stream_keeps_its_order_when_some_of_its_requests_are_rescued(client: Client) -> None:
    inputs = [GOOD, BAD, GOOD, BAD, BAD, GOOD]
    messages = [request("number", {"x": x}, id=str(i)) for i, x in enumerate(inputs)]
    answers = [answer.infer_response for answer in client.stream(iter(messages), timeout=20)]
    assert [answer.id for answer in answers] == [str(i) for i in range(6)]
    assert [arrays(answer)["y"].item() for answer in answers] == [3.5, -1, 3.5, -1, -1, 3.5]
    assert [fallback_from(answer) for answer in answers] == ["", "2", "", "2", "2", ""]


def test_a_rest_caller_gets_it_too_in_json_and_in_binary(worker: RoutedWorker, client: Client) -> None:
    with RestClient(f"127.0.0.1:{worker.port}") as rest:
        answer = rest.infer("number", one("BYTES", (1, 1), ["no number"], id="c"))
        assert answer.status == 200
        assert answer.json == {
            "model_name": "number",
            "model_version": "1",
            "id": "c",
            "parameters": {"gateway_fallback_from": "2"},
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [-1.0]}],
        }
        assert "parameters" not in rest.infer("number", one("BYTES", (1, 1), ["1"])).json


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_http_client_reads_the_answer_and_its_parameters(
    worker: RoutedWorker, client: Client, binary: bool
) -> None:
    with triton_http.InferenceServerClient(f"127.0.0.1:{worker.port}") as triton:
        x = triton_http.InferInput("x", [1, 1], "BYTES")
        x.set_data_from_numpy(BAD, binary_data=binary)
        answer = triton.infer("number", [x], outputs=[triton_http.InferRequestedOutput("y", binary_data=binary)])
        assert answer.as_numpy("y").tolist() == [[-1]]
        assert answer.get_response()["model_version"] == "1"
        assert answer.get_response()["parameters"] == {"gateway_fallback_from": "2"}


def test_tritons_grpc_client_reads_the_answer_and_its_parameters(worker: RoutedWorker, client: Client) -> None:
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{worker.grpc_port}") as triton:
        x = triton_grpc.InferInput("x", [1, 1], "BYTES")
        x.set_data_from_numpy(BAD)
        answer = triton.infer("number", [x])
        assert answer.as_numpy("y").tolist() == [[-1]]
        assert fallback_from(answer.get_response()) == "2"


def test_a_slow_version_has_half_of_the_deadline_and_the_fallback_answers_in_time(client: Client) -> None:
    """Some 4 s, or 1.3 on the fastest machines, beside a deadline of 2; the other half of that is for the fallback, and
    more in a second and a third attempt.
    """
    for times in (1, 2, 3):
        late = client.start(request("slow", row(5, times * 2_000_000)), timeout=times * 2)
        is_rescued = late.exception() is None and late.result().model_version == "1"
        client.send(request("slow", row(6, 0), version="2"), timeout=100)  # once the long run is through
        if is_rescued:
            break
    answer = late.result()
    assert (arrays(answer)["y"].tolist(), answer.model_version, fallback_from(answer)) == ([5], "1", "2")
    assert client.send(request("slow", row(6, 0))).model_version == "2"  # it serves on


def test_a_version_that_always_fails_is_closed_off_tried_again_and_taken_back(
    worker: RoutedWorker, client: Client
) -> None:
    worker.route(number={**ROUTE, "circuit": {"failures": 3, "open_for": "300ms"}}, slow=ROUTE)
    before = worker.statistics("number", "2")["requests"].get("13", 0)
    answers = [client.send(request("number", {"x": BAD})) for _ in range(60)]
    assert {answer.model_version for answer in answers} == {"1"}  # nobody saw an error
    statistics = worker.statistics("number", "2")
    assert statistics["requests"]["13"] - before < 20
    assert statistics["circuit"]["opened"] >= 1
    said = worker.events("circuit open")[0]
    assert (said["model"], said["version"], said["failed_in_a_row"], said["tried_again_in_s"]) == (
        "number",
        "2",
        3,
        0.3,
    )
    eventually(
        lambda: client.send(request("number", {"x": GOOD})).model_version == "2", "a probe succeeds and closes it", 30
    )
    assert worker.statistics("number", "2")["circuit"]["state"] == "closed"
    assert worker.events("circuit closed, the version serves again")


def test_without_a_fallback_an_open_circuit_refuses_at_once_and_says_why(worker: RoutedWorker, client: Client) -> None:
    worker.route(number={"versions": {"2": 100}, "circuit": {"failures": 2, "open_for": "600s"}}, slow=ROUTE)
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            client.infer("number", {"x": BAD})
        assert caught.value.code() is grpc.StatusCode.INTERNAL
    with pytest.raises(grpc.RpcError) as caught:
        client.infer("number", {"x": GOOD})
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "failed 2 times in a row and gets no requests (circuit open); it is tried again in" in caught.value.details()
    with RestClient(f"127.0.0.1:{worker.port}") as rest:
        answer = rest.infer("number", one("BYTES", (1, 1), ["1"]))
        assert (answer.status, "circuit open" in answer.error) == (503, True)
    worker.route(number={"versions": {"2": 100}, "circuit": "none"}, slow=ROUTE)
    assert client.infer("number", {"x": GOOD})["y"].tolist() == [[3.5]]
