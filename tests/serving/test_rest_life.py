"""Connections over time: slow and silent peers, cancellation, budgets, timeouts, priorities, drain, TLS."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.conditions import OverTooEarly, eventually, lasting, set_up_anew, still_held
from tests.support.gatewayprocess import GatewayProcess
from tests.support.oip import Client, arrays, connect, request
from tests.support.onnxmodels import identity, store
from tests.support.rest import RawConnection, RestClient, http_request, one, tensor
from tests.support.servedmodels import patient, row

TIMEOUTS = ("header_timeout_s", "idle_timeout_s", "send_timeout_s")
SLOW = 200_000
"""Turns of the patient model: half a second or more."""

BODY = json.dumps(one()).encode()
INFER = "/v2/models/identity_fp32/infer"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("life")
    store(root, "identity_fp32", 1, identity("FP32", ("N", 4)))
    settings = "batching: {max_batch_size: 1, instances: 1, priority_levels: 2, default_priority: 2, queue_rows: 4}"
    store(root, "patient", 1, patient(), settings)
    return root


@pytest.fixture(scope="module")
def strict(serve_for_module: Any, models: Path) -> GatewayProcess:
    """A gateway that has little patience."""
    found = serve_for_module(models, config={"limits": dict.fromkeys(TIMEOUTS, 1)})
    assert isinstance(found, GatewayProcess)
    return found


@pytest.fixture(scope="module")
def narrow(serve_for_module: Any, models: Path) -> GatewayProcess:
    """One that has little memory, and all the time in the world."""
    limits = {
        "max_message_bytes": 100_000,
        "max_json_bytes": 50_000,
        "max_in_flight_bytes": 250_000,
        "max_connections": 20,
    }
    found = serve_for_module(models, config={"limits": limits})
    assert isinstance(found, GatewayProcess)
    return found


@pytest.fixture(scope="module")
def calm(serve_for_module: Any, models: Path) -> GatewayProcess:
    found = serve_for_module(models, "--access-log", "1")
    assert isinstance(found, GatewayProcess)
    return found


def patient_body(turns: int, index: int = 1, **fields: Any) -> bytes:
    inputs = [tensor(name, "INT64", [1], values.tolist()) for name, values in row(index, turns).items()]
    return json.dumps({"inputs": inputs, "outputs": [{"name": "y"}], **fields}).encode()


def patient_request(turns: int, index: int = 1, **fields: Any) -> bytes:
    return http_request("/v2/models/patient/infer", patient_body(turns, index, **fields))


@pytest.mark.parametrize(
    "start",
    [
        b"GET /v2 HT",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\n",
        http_request(INFER, BODY)[:-1],
        http_request(INFER, BODY + b" " * 20_000)[:-1],
        http_request(INFER, b'5\r\n{"in', head=["Transfer-Encoding: chunked"]),
    ],
)
def test_a_slow_sender_is_told_408_and_closed(strict: GatewayProcess, start: bytes) -> None:
    with RawConnection(strict.rest_url) as raw:
        answer = raw.ask(start)
        assert answer.status == 408
        assert raw.is_ended()


def test_an_idle_connection_is_closed_without_a_word(strict: GatewayProcess) -> None:
    with RawConnection(strict.rest_url) as raw:
        assert raw.ask(http_request("/v2")).status == 200
        assert raw.is_ended()


def test_one_that_asks_now_and_then_is_kept(calm: GatewayProcess) -> None:
    with RawConnection(calm.rest_url) as raw:
        raw.send(patient_request(SLOW))
        raw.send(http_request("/v2")[:5])
        assert raw.answer().status == 200
        raw.send(http_request("/v2")[5:])
        assert raw.answer().status == 200


def test_bodies_beyond_the_limit_are_413(narrow: GatewayProcess) -> None:
    with RestClient(narrow.rest_url) as client:
        assert client.post(INFER, b" " * 60_000).status == 413
        assert client.post(INFER, b" " * 100_001).status == 413
    chunk = b"%x\r\n%b\r\n" % (30_000, b" " * 30_000)
    with RawConnection(narrow.rest_url) as raw:
        raw.send(http_request(INFER, chunk * 4 + b"0\r\n\r\n", head=["Transfer-Encoding: chunked"]))
        assert raw.answer().status == 413


def test_bodies_in_flight_have_a_budget(narrow: GatewayProcess) -> None:
    part = http_request(INFER, b" " * 90_000)[:-1]
    with RawConnection(narrow.rest_url) as one_, RawConnection(narrow.rest_url) as two:
        for raw in (one_, two):
            raw.send(part)
        with RestClient(narrow.rest_url) as client:
            answer = eventually(lambda: _status(client, 429), "the budget is full")
            assert "max_in_flight_bytes" in answer.error
    with RestClient(narrow.rest_url) as client:
        eventually(lambda: _status(client, 413), "the budget is free again: the JSON is only too long")


def _status(client: RestClient, status: int) -> Any:
    answer = client.post(INFER, b" " * 90_000)
    client.connection.close()
    return answer if answer.status == status else None


def test_a_reader_that_stopped_is_given_up(strict: GatewayProcess) -> None:
    with RawConnection(strict.rest_url, 15) as raw:
        raw.socket.settimeout(2)
        many = http_request("/v2/openapi.json") * 200
        try:
            for _ in range(3000):
                raw.send(many)
        except OSError:
            pass
        else:
            pytest.fail("the gateway took everything without being read")
        raw.socket.setblocking(False)

        def is_given_up() -> bool:
            try:
                raw.socket.send(b"x")
            except BlockingIOError:
                return False
            except OSError:
                return True
            return False

        eventually(is_given_up, "the connection is aborted")
        rss = strict.rss_bytes()
        with RestClient(strict.rest_url) as client:
            assert client.get("/v2").status == 200
        assert strict.rss_bytes() < rss + 50 * 2**20


def test_rest_counts_towards_the_connection_limit(narrow: GatewayProcess) -> None:
    def served(connections: list[RawConnection]) -> bool:
        raw = RawConnection(narrow.rest_url, 5)
        connections.append(raw)
        try:
            return raw.ask(http_request("/v2")).status == 200
        except (AssertionError, OSError, ValueError, IndexError):
            return False

    connections: list[RawConnection] = []
    try:
        assert not all(served(connections) for _ in range(25))
        assert len(connections) > 10
    finally:
        for raw in connections:
            raw.socket.close()
    again: list[RawConnection] = []
    eventually(lambda: served(again), "there is room again")
    for raw in again:
        raw.socket.close()


@set_up_anew
def test_a_disconnect_cancels_what_waits(calm: GatewayProcess) -> None:
    """The lane runs one at a time: of all that was sent while it was busy only the last one is still there to run."""
    with (
        RestClient(calm.rest_url) as client,
        RawConnection(calm.rest_url) as first,
        RawConnection(calm.rest_url) as last,
    ):

        def n_run() -> int:
            (stats,) = client.get("/v2/models/patient/stats").json["model_stats"]
            return int(stats["inference_count"])

        before = n_run()
        first.send(patient_request(lasting(SLOW)))
        assert client.get("/v2").status == 200  # it has arrived
        gone = [RawConnection(calm.rest_url) for _ in range(3)]
        for raw in gone:
            raw.send(patient_request(0))
        assert client.get("/v2").status == 200
        for raw in gone:
            raw.socket.close()
        assert client.get("/v2").status == 200
        last.send(patient_request(0))
        if not _is_silent(first):
            raise OverTooEarly("the lane was free before all had left")
        assert last.answer().status == 200
        assert first.answer().status == 200
        assert n_run() == before + 2


def _is_silent(raw: RawConnection) -> bool:
    raw.socket.setblocking(False)
    try:
        raw.socket.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        raw.socket.settimeout(raw.timeout_s)
    return False


def test_a_full_queue_is_429_and_a_passed_timeout_504(calm: GatewayProcess) -> None:
    with RawConnection(calm.rest_url) as raw:
        raw.send(patient_request(SLOW, id="0") + patient_request(0, parameters={"timeout": 1000}, id="late"))
        assert raw.answer().status == 200
        late = raw.answer()
        assert (late.status, late.json["id"]) == (504, "late")
        raw.send(patient_request(SLOW) + patient_request(0) * 8)
        statuses = [raw.answer().status for _ in range(9)]
        assert statuses[0] == 200
        assert 429 in statuses


@set_up_anew
def test_priority_lets_a_request_pass(calm: GatewayProcess) -> None:
    """Three wait behind a slow one; the urgent one came last and is answered first. The access log tells the order."""
    attempt = str(lasting(1))
    with RestClient(calm.rest_url) as client:
        waiting = []
        for name, level, turns in (("running", 2, lasting(SLOW)), ("a", 2, 0), ("b", 2, 0), ("urgent", 1, 0)):
            waiting.append(RawConnection(calm.rest_url))
            waiting[-1].send(patient_request(turns, id=name + attempt, parameters={"priority": level}))
            assert client.get("/v2").status == 200  # it has arrived
        is_too_late = not _is_silent(waiting[0])
        for raw in waiting:
            assert raw.answer().status == 200
            raw.socket.close()
    if is_too_late:
        raise OverTooEarly("the slow one was through before the urgent one came")
    names = {name + attempt for name in ("running", "a", "b", "urgent")}

    def order() -> list[str]:
        return [event["id"].removesuffix(attempt) for event in calm.events("request") if event["id"] in names]

    eventually(lambda: len(order()) == 4, "all are in the log")
    assert order() == ["running", "urgent", "a", "b"]
    with RestClient(calm.rest_url) as client:
        assert client.infer("patient", patient_body(0, parameters={"priority": 3})).status == 400


def test_a_failing_model_is_the_callers_fault_or_500(calm: GatewayProcess) -> None:
    with RestClient(calm.rest_url) as client:
        answer = client.infer("patient", patient_body(0, index=5000, id="bad"))
        assert answer.status in (400, 500)
        assert answer.json["id"] == "bad"


@pytest.fixture
def batching(serve: Any, tmp_path: Path) -> GatewayProcess:
    root = tmp_path / "models"
    store(root, "patient", 1, patient(), "batching: {max_batch_size: 8, instances: 1, linger: false}")
    process = serve(root)
    assert isinstance(process, GatewayProcess)
    return process


@set_up_anew
def test_rest_and_grpc_requests_share_batches(batching: GatewayProcess) -> None:
    process = batching
    body = json.loads(patient_body(0))
    body["outputs"] = [{"name": "run"}]
    with RawConnection(process.rest_url) as raw, connect(process.grpc_url) as channel:
        client = Client(channel)
        call = client.hold("patient", row(0, SLOW))
        raw.send(http_request("/v2/models/patient/infer", json.dumps(body).encode()))
        with RestClient(process.rest_url) as other:
            other.get("/v2")  # it has arrived
        waits = client.start(request("patient", row(1)))
        client.settle()
        still_held(call)
        also = arrays(waits.result())
        call.result()
        got = np.array(raw.answer().json["outputs"][0]["data"], np.float32)
    assert got.tolist() == also["run"][0].tolist()


@set_up_anew
def test_drain_finishes_what_is_open_and_closes_what_is_idle(serve: Any, models: Path) -> None:
    process = serve(models)
    with (
        RawConnection(process.rest_url) as busy,
        RawConnection(process.rest_url) as idle,
        RawConnection(process.rest_url) as late,
    ):
        for raw in (busy, idle, late):
            assert raw.ask(http_request("/v2")).status == 200
        busy.send(patient_request(lasting(4 * SLOW)))
        with RestClient(process.rest_url) as client:
            client.get("/v2")
        process.terminate()

        def is_draining() -> bool:
            try:
                answer = late.ask(http_request("/v2/health/ready"))
            except (AssertionError, OSError) as error:
                raise OverTooEarly("the drain was over") from error
            return "connection" in answer.headers

        eventually(is_draining, "the gateway drains")
        assert late.is_ended()
        answer = busy.answer()
        assert answer.status == 200
        assert busy.is_ended()
        assert idle.is_ended()
    assert process.wait() == 0


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    return cert, key


def test_tls_offers_http_1_1_by_alpn(serve: Any, models: Path, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    process = serve(models, "--tls-cert", cert, "--tls-key", key)
    context = ssl.create_default_context(cafile=cert)
    context.check_hostname = False
    for offer, taken in ((["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "h2"), ([], None)):
        if offer:
            context.set_alpn_protocols(offer)
        with RawConnection(process.rest_url) as raw:
            raw.socket = context.wrap_socket(raw.socket)
            assert raw.socket.selected_alpn_protocol() == taken
            if taken == "http/1.1":
                large = json.dumps(one(shape=(20_000, 4), data=[0.5] * 80_000)).encode()
                for body in (BODY, large):
                    assert raw.ask(http_request(INFER, body)).status == 200
        context = ssl.create_default_context(cafile=cert)
        context.check_hostname = False
