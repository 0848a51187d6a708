"""What is refused before it has a model is counted by reason, is in the access log, and tells its caller which request
it was.
"""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.gatewayprocess import GatewayProcess
from tests.support.h2client import RawClient
from tests.support.oip import Client, connect, request
from tests.support.onnxmodels import identity, store
from tests.support.rest import RawConnection, RestClient, one

LIMITS = {
    "max_message_bytes": 2**20,
    "max_json_bytes": 2**16,
    "max_in_flight_bytes": 2**21,
    "max_header_list_bytes": 8192,
}
X = {"x": np.ones((1, 4), np.float32)}


@pytest.fixture(scope="module")
def gateway(serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    root = tmp_path_factory.mktemp("models")
    store(root, "wide", 1, identity("FP32", ("N", "length")))
    return serve_for_module(root, "--access-log", "1", config={"limits": LIMITS})


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[Client]:
    with connect(gateway.grpc_url) as channel:
        yield Client(channel)


@pytest.fixture
def rest(gateway: GatewayProcess) -> Iterator[RestClient]:
    with RestClient(gateway.rest_url) as client:
        yield client


def metric(gateway: GatewayProcess, name: str, **labels: str) -> float:
    port = gateway.events("gateway ready")[0]["control_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def wide(n_bytes: int) -> Any:
    return request("wide", {"x": np.zeros((1, n_bytes // 4), np.float32)})


def refused(client: Client, message: Any, **wishes: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        client.send(message, **wishes)
    return caught.value


def send_too_much(gateway: GatewayProcess) -> None:
    """A third message beside two that are announced and not sent."""
    with RawClient(gateway.port) as slow, RawClient(gateway.port) as other:
        for _ in range(2):
            slow.send(slow.open(), b"\0" + (2**20 - 1000).to_bytes(4))
        slow.settle()
        assert other.call(wide(100_000).SerializeToString()).status == 8


CASES: dict[str, tuple[Callable[[GatewayProcess, Client, RestClient], Any], str, str]] = {
    "message": (lambda g, c, r: refused(c, wide(2**20 + 64)), "message_bytes", "RESOURCE_EXHAUSTED"),
    "header list": (
        lambda g, c, r: refused(c, wide(64), metadata=[("x-long", "y" * 9000)]),
        "header_list_bytes",
        "RESOURCE_EXHAUSTED",
    ),
    "in flight": (lambda g, c, r: send_too_much(g), "in_flight_bytes", "RESOURCE_EXHAUSTED"),
    "REST: too much JSON": (
        lambda g, c, r: r.infer("wide", one("FP32", (1, 20000), [1.5] * 20000)),
        "message_bytes",
        "RESOURCE_EXHAUSTED",
    ),
    "REST: content length": (
        lambda g, c, r: r.infer("wide", b" " * (2**20 + 1)),
        "message_bytes",
        "RESOURCE_EXHAUSTED",
    ),
    "REST: no JSON": (lambda g, c, r: r.infer("wide", b"{"), "malformed", "INVALID_ARGUMENT"),
    "REST: raw, unknown model": (
        lambda g, c, r: r.infer("nobody", b"1234", Inference_Header_Content_Length="0"),
        "unknown_model",
        "NOT_FOUND",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_counted_once_by_reason_and_by_code(
    gateway: GatewayProcess, client: Client, rest: RestClient, name: str
) -> None:
    act, reason, code = CASES[name]
    labels = {"model": "", "version": ""}
    reasons = metric(gateway, "gateway_refusals_total", reason=reason, **labels)
    codes = metric(gateway, "gateway_requests_total", code=code, **labels)
    with contextlib.suppress(ConnectionError):
        act(gateway, client, rest)
    expected = (reasons + 1, codes + (name != "header list"))  # its path may be among what was not read
    eventually(
        lambda: (
            (
                metric(gateway, "gateway_refusals_total", reason=reason, **labels),
                metric(gateway, "gateway_requests_total", code=code, **labels),
            )
            in {expected, (reasons + 1, codes + 1)}
        ),
        f"{expected}",
    )


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda g: get(g, "/v2/nowhere"), "unknown_path"),
        (lambda g: get(g, "/v2", X_Long="y" * 9000), "header_list_bytes"),
        (lambda g: send_no_http(g), "malformed"),
        (lambda g: refused_method(g), "unknown_path"),
    ],
)
def test_what_was_for_no_model_is_counted_by_reason_only(
    gateway: GatewayProcess, act: Callable[[GatewayProcess], Any], reason: str
) -> None:
    before = metric(gateway, "gateway_refusals_total", reason=reason)
    requests = metric(gateway, "gateway_requests_total", model="")
    act(gateway)
    eventually(lambda: metric(gateway, "gateway_refusals_total", reason=reason) == before + 1, reason)
    assert metric(gateway, "gateway_requests_total", model="") == requests


def get(gateway: GatewayProcess, path: str, **headers: str) -> None:
    with RestClient(gateway.rest_url) as client:
        client.get(path, **headers)


def send_no_http(gateway: GatewayProcess) -> None:
    with RawConnection(gateway.rest_url) as raw:
        assert raw.ask(b"GARBAGE\r\n\r\n").status == 400


def refused_method(gateway: GatewayProcess) -> None:
    with connect(gateway.grpc_url) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/no.Such/Method")(b"", timeout=10)


# --- the access log


def test_a_rest_request_refused_while_it_is_parsed_is_in_the_access_log(
    gateway: GatewayProcess, rest: RestClient
) -> None:
    assert rest.infer("wide", {"id": "broken-1", "inputs": 3}).status == 400
    assert rest.post("/v2/models/wide/versions/7/infer", b"{", X_Request_Id="broken-2").status == 400

    def lines() -> dict[str, dict[str, Any]]:
        return {line["id"]: line for line in gateway.events("request")}

    eventually(lambda: {"broken-1", "broken-2"} <= lines().keys(), "both have their line")
    first, second = lines()["broken-1"], lines()["broken-2"]
    assert (first["model"], first["code"], first["protocol"]) == ("wide", "INVALID_ARGUMENT", "rest")
    assert (second["model"], second["version"]) == ("wide", "7")


# --- the request's id


def trailers(error: Any) -> dict[str, str]:
    return dict(error.trailing_metadata())


@pytest.mark.parametrize("what", ["unknown model", "wrong shape", "late"])
def test_a_grpc_failure_names_the_request_in_its_trailers(client: Client, what: str) -> None:
    message = {
        "unknown model": request("nobody", X, id="one"),
        "wrong shape": request("wide", {"x": np.ones(4, np.float32)}, id="one"),
        "late": request("wide", X, id="one", parameters={"timeout": 1}),
    }[what]
    assert trailers(refused(client, message))["x-request-id"] == "one"


def test_an_id_that_no_header_can_carry_is_escaped_and_a_long_one_is_cut(client: Client) -> None:
    assert trailers(refused(client, request("nobody", X, id="Füße\n%")))["x-request-id"] == "F%C3%BC%C3%9Fe%0A%25"
    assert trailers(refused(client, request("nobody", X, id="x" * 5000)))["x-request-id"] == "x" * 256


def test_the_id_in_the_headers_stands_in_for_one_in_the_message(client: Client) -> None:
    with_header = {"metadata": [("x-request-id", "from-header")]}
    assert trailers(refused(client, request("nobody", X), **with_header))["x-request-id"] == "from-header"
    assert trailers(refused(client, wide(2**20 + 64), **with_header))["x-request-id"] == "from-header"
    assert trailers(refused(client, request("nobody", X, id="own"), **with_header))["x-request-id"] == "own"


def test_a_failure_without_an_id_has_no_such_trailer_and_neither_has_success(client: Client) -> None:
    assert "x-request-id" not in trailers(refused(client, request("nobody", X)))
    _, call = client._infer.with_call(request("wide", X, id="fine"), timeout=10)
    assert "x-request-id" not in dict(call.trailing_metadata())


def test_a_failure_inside_a_stream_has_the_id_where_triton_puts_it(client: Client) -> None:
    messages = [request("wide", X, id="a"), request("nobody", X, id="b"), request("wide", X, id="c")]
    answers = list(client.stream(iter(messages), timeout=20))
    assert [answer.infer_response.id for answer in answers] == ["a", "b", "c"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]


def test_tritons_stream_client_takes_such_a_failure_for_an_error(gateway: GatewayProcess) -> None:
    heard: list[Any] = []
    with triton_grpc.InferenceServerClient(gateway.grpc_url) as triton:
        triton.start_stream(lambda result, error: heard.append((result, error)))
        x = triton_grpc.InferInput("x", [1, 4], "FP32")
        x.set_data_from_numpy(X["x"])
        triton.async_stream_infer("nobody", [x], request_id="b")
        eventually(lambda: heard, "the answer")
        triton.stop_stream()
    (result, error) = heard[0]
    assert result is None
    assert isinstance(error, InferenceServerException)


def test_a_rest_failure_has_the_id_beside_the_error(rest: RestClient) -> None:
    assert rest.infer("nobody", one(id="r")).json["id"] == "r"
    assert rest.infer("wide", b"{", X_Request_Id="h").json["id"] == "h"
