"""Real clients on real sockets while routes change: who answers, what is counted, and that nobody is lost."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from gateway import pb
from tests.support.conditions import eventually
from tests.support.inprocess import InProcess, serving
from tests.support.oip import Client, connect
from tests.support.onnxmodels import build, node, store, tensor
from tests.support.rest import RestClient, binary_body, one

ROW = {"x": np.zeros((1, 4), np.float32)}


def store_number(root: Path, version: int, model: str = "m", inputs: str = "x") -> None:
    """A model that answers its own version number."""
    content = build(
        [node("Mul", [inputs, "zero"], ["z"]), node("Add", ["z", "number"], ["y"])],
        [tensor(inputs)],
        [tensor("y")],
        {"zero": np.zeros(1, np.float32), "number": np.full(1, version, np.float32)},
    )
    store(root, model, version, content)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        store_number(tmp_path, version)
    return tmp_path


@pytest.fixture
def gateway(models: Path) -> Iterator[InProcess]:
    with serving(models) as gateway:
        yield gateway


def answer_of(response: Any) -> int:
    (values,) = response.raw_output_contents
    number = int(np.frombuffer(values, np.float32)[0])
    assert response.model_version == str(number)
    return number


class Caller:
    """Asks the model m by gRPC, for who answers."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.inference.ModelInferRequest.SerializeToString,
            response_deserializer=pb.inference.ModelInferResponse.FromString,
        )

    def __call__(self, version: str = "", parameters: dict[str, str] | None = None, **metadata: str) -> int:
        request = pb.inference.ModelInferRequest(model_name="m", model_version=version)
        request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        request.raw_input_contents.append(bytes(16))
        for name, value in (parameters or {}).items():
            request.parameters[name].string_param = value
        pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        return answer_of(self.call(request, metadata=pairs, timeout=20))


@pytest.fixture
def ask(gateway: InProcess) -> Iterator[Caller]:
    with connect(gateway.url) as channel:
        yield Caller(channel)


RULES = {
    "versions": {"1": 100},
    "rules": [
        {"name": "beta", "match": {"header": "X-Tenant", "exact": "acme"}, "versions": {"2": 100}},
        {"name": "region", "match": {"parameter": "region", "one_of": ["eu", "7", "true"]}, "versions": {"3": 100}},
    ],
}


def test_without_a_route_the_highest_version_answers(gateway: InProcess, ask: Caller) -> None:
    assert ask() == 3
    assert ask("1") == 1
    assert gateway.counted() == {"3 stable": 1, "1 pinned": 1}


def test_grpc_and_rest_follow_the_same_rules(gateway: InProcess, ask: Caller) -> None:
    assert gateway.route({"m": RULES}) == {}
    assert [ask(), ask(x_tenant="acme"), ask(x_tenant="b"), ask(parameters={"region": "eu"})] == [1, 2, 1, 3]
    with RestClient(gateway.url) as rest:

        def answer(parameters: dict[str, Any] | None = None, **headers: str) -> int:
            body = one(data=[0, 0, 0, 0]) | ({"parameters": parameters} if parameters else {})
            found = rest.infer("m", body, **headers).json
            assert found["model_version"] == str(int(found["outputs"][0]["data"][0]))
            return int(found["model_version"])

        assert [answer(), answer(X_Tenant="acme"), answer(x_tenant="b")] == [1, 2, 1]
        assert [answer({"region": region}) for region in ("eu", "us", 7, True, 7.0, ["eu"], {"a": 1})] == [
            3, 1, 3, 3, 1, 1, 1,
        ]  # fmt: skip
        body, headers = binary_body(ROW)
        assert rest.infer("m", body, **headers, x_tenant="acme").headers["content-type"] == "application/octet-stream"
    assert gateway.counted() == {"1 stable": 8, "2 beta": 3, "3 region": 4}


def test_of_a_header_that_comes_twice_the_first_counts_by_rest_too(gateway: InProcess) -> None:
    gateway.route({"m": RULES})
    body = json.dumps(one()).encode()
    for values, version in (("acme", "b"), "2"), (("b", "acme"), "1"):
        head = "".join(f"X-Tenant: {value}\r\n" for value in values)
        host, port = gateway.url.split(":")
        with socket.create_connection((host, int(port)), 20) as raw:
            raw.sendall(f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n{head}".encode())
            raw.sendall(b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["model_version"] == version


def test_every_header_of_a_rest_request_can_become_a_parameter(models: Path) -> None:
    records: list[Any] = []
    with serving(models, forward_headers="x-.*") as gateway, RestClient(gateway.url) as rest:
        sampler = gateway.hub.sampler
        sampler.record, sampler.every = (lambda *record: records.append(record)), 1
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        assert rest.infer("m", one(), X_Team="risk", Y="no", traceparent=trace).status == 200
    ((*_, got_trace, parameters),) = records
    assert (got_trace, parameters) == (trace.encode(), [("x-team", "risk")])


def test_a_stream_is_routed_message_by_message_with_the_headers_of_its_call(gateway: InProcess) -> None:
    gateway.route({"m": RULES})
    with connect(gateway.url) as channel:
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.inference.ModelInferRequest.SerializeToString,
            response_deserializer=pb.inference.ModelStreamInferResponse.FromString,
        )
        request = pb.inference.ModelInferRequest(model_name="m")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        request.raw_input_contents.append(bytes(16))
        answers = stream(iter([request] * 5), metadata=[("x-tenant", "acme")], timeout=20)
        assert [answer_of(answer.infer_response) for answer in answers] == [2] * 5


def test_a_user_stays_with_one_version_by_grpc_and_by_rest(gateway: InProcess, ask: Caller) -> None:
    gateway.route({"m": {"versions": {"1": 50, "2": 50}, "sticky": {"header": "x-user"}}})
    by_grpc = [ask(x_user=f"user-{user}") for user in range(40)]
    assert set(by_grpc) == {1, 2}
    assert [ask(x_user=f"user-{user}") for user in range(40)] == by_grpc
    with RestClient(gateway.url) as rest:
        by_rest = [rest.infer("m", one(), x_user=f"user-{user}").json["model_version"] for user in range(40)]
    assert by_rest == [str(version) for version in by_grpc]
    gateway.route({"m": {"versions": {"1": 40, "2": 60}, "sticky": {"header": "x-user"}}}, 2)
    raised = [ask(x_user=f"user-{user}") for user in range(40)]
    assert all(now == 2 for was, now in zip(by_grpc, raised, strict=True) if was == 2)


def test_shares_are_honoured_in_real_traffic(gateway: InProcess, ask: Caller) -> None:
    gateway.route({"m": {"versions": {"1": 70, "2": 30}}})
    counts = Counter(ask() for _ in range(1000))
    assert 700 - 75 < counts[1] < 700 + 75  # 5 standard deviations
    assert gateway.counted() == {"1 stable": counts[1], "2 candidate": counts[2]}


def test_what_does_not_serve_is_said_when_a_route_is_applied_and_to_who_is_drawn_for_it(
    gateway: InProcess, ask: Caller
) -> None:
    documents = {"m": {"versions": {"1": 0, "9": 100}}, "other": {"versions": {"1": 100}}}
    assert gateway.route(documents) == {
        "m": "version 9: no such version here; versions here: 1, 2, 3",
        "other": "no such model here",
    }
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "version '9' does not serve: no such version here" in caught.value.details()
    assert ask("2") == 2


def test_rest_says_what_forbids_a_version(gateway: InProcess) -> None:
    gateway.route({"m": {"versions": {"1": 100}, "pinned": "forbid"}}, 5)
    with RestClient(gateway.url) as rest:
        answer = rest.post("/v2/models/m/versions/2/infer", one())
    assert answer.status == 400
    assert "its route (generation 5) forbids to name a version" in answer.error


def test_metadata_and_raw_bodies_speak_of_the_version_that_the_route_names(tmp_path: Path) -> None:
    store_number(tmp_path, 1, inputs="old")
    store_number(tmp_path, 2, inputs="new")
    with serving(tmp_path) as gateway, connect(gateway.url) as channel, RestClient(gateway.url) as rest:

        def input_name() -> str:
            request = pb.inference.ModelMetadataRequest(name="m")
            return str(Client(channel).unary("ModelMetadata")(request, timeout=20).inputs[0].name)

        def raw() -> str:
            body = np.zeros((1, 4), np.float32).tobytes()
            answer = rest.post("/v2/models/m/infer", body, Inference_Header_Content_Length="0")
            assert answer.status == 200, answer.body
            return str(int(np.frombuffer(answer.body[-16:], np.float32)[0]))

        assert (input_name(), raw()) == ("new", "2")
        gateway.route({"m": {"versions": {"1": 95, "2": 5}, "sticky": {"header": "x-user"}}})
        assert input_name() == "old"
        gateway.route({"m": {"versions": {"1": 100}}}, 2)
        assert raw() == "1"


def test_a_repository_load_moves_an_automatic_route_and_leaves_an_operators(gateway: InProcess, ask: Caller) -> None:
    models = Path(gateway.loader._models)
    gateway.route({"m": {"versions": {"3": 100}}}, automatic=True)
    assert ask() == 3
    store_number(models, 4)
    gateway.wait(gateway.loader.load("m"))
    assert ask() == 4
    assert gateway.do(lambda: gateway.routing.repinned) == {"m": "4"}
    gateway.route({"m": {"versions": {"3": 100}}}, automatic=True)  # what the store still has
    assert ask() == 4
    gateway.route({"m": {"versions": {"3": 100}}}, 2)
    assert ask() == 3
    store_number(models, 5)
    gateway.wait(gateway.loader.load("m"))
    assert ask() == 3
    assert gateway.do(lambda: gateway.routing.repinned) == {}


def test_a_version_that_is_loaded_later_is_found_by_the_route_that_waits_for_it(
    gateway: InProcess, ask: Caller
) -> None:
    assert gateway.route({"m": {"versions": {"4": 100}, "fallback": {"version": "1"}}})
    assert ask() == 1
    store_number(Path(gateway.loader._models), 4)
    gateway.wait(gateway.loader.load("m"))
    assert ask() == 4
    assert gateway.do(gateway.routing.faults) == {}


def test_a_thousand_changes_of_route_under_load_lose_no_request(gateway: InProcess) -> None:
    """Each answer is from a version that a table named which was in force at some time of its request."""
    rng = random.Random(5)
    history: list[set[int]] = []
    ends, faults = threading.Event(), []
    answers: list[tuple[int, int, int]] = []

    def call(user: int) -> None:
        with connect(gateway.url) as channel, RestClient(gateway.url) as rest:
            ask = Caller(channel)
            try:
                while not ends.is_set():
                    before = len(history)
                    if user % 2:
                        version = ask(x_user=f"user-{user}")
                    else:
                        version = int(rest.infer("m", one(), x_user=f"user-{user}").json["model_version"])
                    answers.append((before, len(history), version))
            except Exception as error:
                faults.append(error)

    def change(generation: int) -> None:
        parts = [rng.choice([0, 0, 1, 5, 50]) for _ in range(3)]
        if not any(parts):
            parts[rng.randrange(3)] = 1
        named = {version: part for version, part in zip("123", parts, strict=True) if part}
        shares = {version: 100 * part // sum(parts) for version, part in named.items()}
        shares[next(iter(shares))] += 100 - sum(shares.values())
        document: dict[str, Any] = {"versions": shares}
        if rng.random() < 0.5:
            document["sticky"] = {"header": "x-user"}
        if rng.random() < 0.5:
            target = rng.choice("123")
            match = {"header": "x-user", "one_of": ["user-0", "user-3"]}
            document["rules"] = [{"match": match, "versions": {target: 100}}]
            shares = {**shares, target: 100}
        history.append({int(version) for version, share in shares.items() if share})
        assert gateway.route({"m": document}, generation) == {}

    change(1)
    callers = [threading.Thread(target=call, args=(user,)) for user in range(4)]
    for caller in callers:
        caller.start()
    for generation in range(2, 1002):
        change(generation)
    eventually(lambda: faults or len(answers) > 200, "some answers, also where callers got little of the processor")
    ends.set()
    for caller in callers:
        caller.join(20)
    assert not faults
    assert len(answers) > 200
    for before, after, version in answers:
        # `history` is written before its table is in force: the one before may still answer.
        assert version in set().union(*history[max(0, before - 2) : after])
    assert sum(gateway.counted().values()) == len(answers)
    assert gateway.do(lambda: len(gateway.routing.arms.arms())) < 20
