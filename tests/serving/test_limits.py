"""The bounds of the wire: over one of them a caller is refused with its name, and service goes on for the others."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from gateway.errors import Code
from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.gatewayprocess import GatewayProcess
from tests.support.h2client import READ_S, RawClient, framed
from tests.support.oip import Client, arrays, connect, request
from tests.support.onnxmodels import identity, store
from tests.support.rest import RestClient
from tests.support.servedmodels import patient, row

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 1, 11
SETTINGS_MAX_CONCURRENT_STREAMS = 3

LIMITS = {
    "max_message_bytes": 2**20,
    "max_in_flight_bytes": 5 * 2**20 // 2,  # two messages and a half
    "max_connections": 6,
    "max_concurrent_streams": 10,
    "header_timeout_s": 3,
    "reset_burst": 20,
    "resets_per_s": 1,
}
TIMEOUTS = {"header_timeout_s": 1, "idle_timeout_s": 2.5}
"""Of a server of its own: elsewhere a client that is slow, because its machine is, would be shut out."""


@pytest.fixture(scope="module")
def narrow(serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    return serve_for_module(models(tmp_path_factory), config={"limits": LIMITS})


@pytest.fixture(scope="module")
def hasty(serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    return serve_for_module(models(tmp_path_factory), config={"limits": TIMEOUTS})


def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("limits")
    store(root, "wide", 1, identity("FP32", ("N", "length")))
    store(root, "patient", 1, patient(), "batching: {instances: 1, linger: false}")
    return root


def check_of(gateway: GatewayProcess) -> Callable[[], None]:
    def check() -> None:
        with connect(gateway.grpc_url) as channel:
            assert Client(channel).infer("wide", {"x": np.ones((1, 3), np.float32)})["y"].shape == (1, 3)

    return check


@pytest.fixture
def check(narrow: GatewayProcess) -> Callable[[], None]:
    """Somebody else is served."""
    return check_of(narrow)


@pytest.fixture
def check_hasty(hasty: GatewayProcess) -> Callable[[], None]:
    return check_of(hasty)


def wide(n_bytes: int) -> bytes:
    return bytes(request("wide", {"x": np.zeros((1, n_bytes // 4), np.float32)}).SerializeToString())


def test_a_message_up_to_the_limit_is_served_and_one_above_it_refused(
    narrow: GatewayProcess, check: Callable[[], None]
) -> None:
    with connect(narrow.grpc_url) as channel:
        client = Client(channel)
        assert client.infer("wide", {"x": np.zeros((1, 260_000), np.float32)})["y"].shape == (1, 260_000)
        with pytest.raises(grpc.RpcError) as caught:
            client.infer("wide", {"x": np.zeros((1, 263_000), np.float32)})
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "expected at most 1048576 (max_message_bytes)" in caught.value.details()
        assert client.infer("wide", {"x": np.zeros((1, 10), np.float32)})["y"].shape == (1, 10)
    check()


def test_bytes_in_flight_are_bounded_and_given_back(narrow: GatewayProcess, check: Callable[[], None]) -> None:
    """Two messages of a megabyte stay unfinished; a third is refused, and served once they have left."""
    message = framed(wide(1_000_000))
    with RawClient(narrow.port) as slow, RawClient(narrow.port) as other:
        for _ in range(2):
            slow.send(slow.open(), message[:1000])
        slow.settle()
        answer = other.call(wide(1_000_000))
        assert answer.status == Code.RESOURCE_EXHAUSTED
        assert "a message of 1000" in answer.message
        assert "would pass the limit of 2621440 (max_in_flight_bytes)" in answer.message
        assert other.call(wide(1000)).status == Code.OK  # what fits is served
        slow.sock.close()
        eventually(lambda: other.call(wide(1_000_000)).status == Code.OK, "the bytes are given back")
    check()


def test_one_connection_too_many_is_told_to_calm_down(narrow: GatewayProcess, check: Callable[[], None]) -> None:
    clients = [RawClient(narrow.port) for _ in range(6)]
    try:
        for client in clients:
            client.settle()
        with RawClient(narrow.port) as late:
            late.wait_closed()
            assert [code for _, code in late.goaways] == [ENHANCE_YOUR_CALM]
        assert clients[0].call(wide(100)).status == Code.OK
    finally:
        for client in clients:
            client.sock.close()
    eventually(lambda: is_served(check), "room for others again")


def test_one_rest_connection_too_many_gets_a_503_that_its_client_can_read(
    narrow: GatewayProcess, check: Callable[[], None]
) -> None:
    clients = [RawClient(narrow.port) for _ in range(6)]
    try:
        for client in clients:
            client.settle()
        with RestClient(f"127.0.0.1:{narrow.port}") as late:
            answer = late.infer("wide", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]})
            assert answer.status == 503
            assert answer.error == "the server has 6 connections open, and takes no more (limits.max_connections)"
            assert (answer.headers["connection"], answer.headers["retry-after"]) == ("close", "1")
        with socket.create_connection(("127.0.0.1", narrow.port), timeout=10) as silent:
            assert silent.recv(1) == b""  # it never said what it speaks
        assert clients[0].call(wide(100)).status == Code.OK
    finally:
        for client in clients:
            client.sock.close()
    eventually(lambda: is_served(check), "room for others again")


def is_served(check: Callable[[], None]) -> bool:
    try:
        check()
    except grpc.RpcError:
        return False
    return True


def test_more_streams_than_announced_end_the_connection_and_nobody_elses(
    narrow: GatewayProcess, check: Callable[[], None]
) -> None:
    with RawClient(narrow.port) as raw:
        raw.settle()
        assert raw.connection.remote_settings.max_concurrent_streams == 10
        for _ in range(10):
            raw.open()
        raw.connection.remote_settings[SETTINGS_MAX_CONCURRENT_STREAMS] = 100  # or h2 would not let us
        raw.connection.remote_settings.acknowledge()
        raw.open()
        raw.wait_closed()
        assert [code for _, code in raw.goaways] == [PROTOCOL_ERROR]
    check()


def test_a_client_that_resets_rapidly_is_shut_out(narrow: GatewayProcess, check: Callable[[], None]) -> None:
    with RawClient(narrow.port) as raw:
        raw.settle()
        with contextlib.suppress(OSError):  # shut out on the way
            for _ in range(200):
                stream = raw.open()
                raw.connection.reset_stream(stream)
                raw.flush()
        raw.wait_closed()
        assert raw.goaways
    check()


# --- those who take their time


def test_who_connects_and_says_nothing_is_shut_out(hasty: GatewayProcess, check_hasty: Callable[[], None]) -> None:
    began_s = time.monotonic()
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=READ_S) as silent:
        check_hasty()
        assert silent.recv(100) == b""
    assert time.monotonic() - began_s > 0.4


def test_a_preface_byte_by_byte_is_shut_out(hasty: GatewayProcess, check_hasty: Callable[[], None]) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=READ_S) as slow:
        slow.settimeout(0.3)
        closed = False
        for byte in PREFACE:
            try:
                slow.send(bytes([byte]))
                closed = slow.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
            if closed:
                break
        assert closed  # before the preface is through, which takes 7 s
    check_hasty()


def test_headers_that_never_end_are_shut_out(hasty: GatewayProcess, check_hasty: Callable[[], None]) -> None:
    with RawClient(hasty.port) as raw:
        raw.settle()
        head = b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x83"  # HEADERS of stream 1 without END_HEADERS
        began_s = time.monotonic()
        raw.sock.sendall(head)
        raw.wait_closed()
        assert time.monotonic() - began_s > 0.4
    check_hasty()


def test_a_message_that_dribbles_is_refused_with_what_is_missing(
    hasty: GatewayProcess, check_hasty: Callable[[], None]
) -> None:
    with RawClient(hasty.port) as raw:
        stream = raw.open()
        raw.send(stream, framed(wide(4000))[:100])
        began_s = time.monotonic()
        while not raw.answers[stream].is_over and time.monotonic() - began_s < READ_S:
            if raw.connection.streams[stream].open:
                raw.send(stream, b"\0")
            raw.read(0.05)
        answer = raw.answers[stream]
        assert answer.status == Code.DEADLINE_EXCEEDED
        assert "the request message is too slow" in answer.message
        assert "bytes are still missing" in answer.message
        assert raw.call(wide(100)).status == Code.OK
    check_hasty()


def test_an_idle_connection_is_closed_politely_and_one_with_a_call_is_not(hasty: GatewayProcess) -> None:
    with RawClient(hasty.port) as idle, RawClient(hasty.port) as waiting:
        idle.settle()
        stream = waiting.open()
        waiting.send(stream, framed(request("patient", row(1, 2_000_000)).SerializeToString()), end=True)  # some 4 s
        idle.wait_closed()
        assert {code for _, code in idle.goaways} == {0}
        assert waiting.finish(stream).status == Code.OK


# --- others who knock at this port


def test_a_browser_gets_an_answer_that_a_person_can_read(server: GatewayProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.status == 404
    assert answer.getheader("content-type") == "application/json"
    assert "/v2" in answer.read().decode()
    connection.close()


@pytest.mark.parametrize(
    "greeting", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500, b"\0" * 100, b"SSH-2.0-x\r\n"]
)
def test_what_is_not_http_at_all_is_closed(server: GatewayProcess, client: Client, greeting: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as stranger:
        stranger.sendall(greeting)
        while stranger.recv(1000):
            pass
    assert arrays(client.send(request("linear", {"x": np.ones((1, 4), np.float32)})))["y"].shape == (1, 3)


def test_a_thousand_calls_at_once_on_one_connection_are_all_answered(client: Client) -> None:
    futures = [client.start(request("linear", {"x": np.full((1, 4), i, np.float32)}, id=str(i))) for i in range(1500)]
    assert [future.result().id for future in futures] == [str(i) for i in range(1500)]
