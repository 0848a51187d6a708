"""HTTP/1.1 itself: framing in any cut, order, limits and what a client may not do."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from tests.support.gatewayprocess import GatewayProcess
from tests.support.rest import RawConnection, RestClient, http_request, one

BODY = json.dumps(one()).encode()
INFER = "/v2/models/identity_fp32/infer"
CHUNKED = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:8], BODY[8:]))
CHUNKED += b"0\r\nTrailer: late\r\n\r\n"


@pytest.fixture
def raw(server: GatewayProcess):
    with RawConnection(server.rest_url) as connection:
        yield connection


def test_rest_and_grpc_share_both_ports(server: GatewayProcess) -> None:
    for url in (server.rest_url, server.grpc_url):
        with RestClient(url) as client:
            assert client.get("/v2/health/live").json == {"live": True}


def test_a_connection_is_kept_for_many_requests(raw: RawConnection) -> None:
    for i in range(5):
        answer = raw.ask(http_request(INFER, json.dumps(one(id=str(i))).encode()))
        assert (answer.status, answer.json["id"]) == (200, str(i))


SCRIPT = [
    (http_request("/v2/health/live"), 200),
    (http_request(INFER, BODY), 200),
    (http_request(INFER, CHUNKED, head=["Transfer-Encoding: chunked"]), 200),
    (b"\r\n" + http_request("/v2/nowhere"), 404),
    (http_request(INFER), 405),
    (http_request(INFER, b"{"), 400),
    (http_request(INFER, BODY, head=["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"]), 200),
    (http_request("http://elsewhere/v2/health/ready?x=y#z"), 200),
    (http_request(INFER, BODY + b" " * 20000), 200),
    (http_request("/v2", head=["Connection: Upgrade", "Upgrade: websocket"]), 200),
    (http_request("/v2/", b"ignored", method="GET"), 200),
]


@pytest.mark.parametrize("seed", range(12))
def test_pipelined_requests_are_answered_in_order_however_they_are_cut(server: GatewayProcess, seed: int) -> None:
    rng = random.Random(seed)
    script = [SCRIPT[i] for i in rng.choices(range(len(SCRIPT)), k=40)] if seed else SCRIPT
    data = b"".join(request for request, _ in script)
    with RawConnection(server.rest_url) as connection:
        at = 0
        while at < len(data):
            n = len(data) if seed == 1 else rng.choice((1, 2, 17, 400, 5000, 40000))
            connection.send(data[at : at + n])
            at += n
        statuses = [connection.answer().status for _ in script]
    assert statuses == [status for _, status in script]


def test_a_request_fed_byte_by_byte_is_answered(raw: RawConnection) -> None:
    for request in (SCRIPT[2][0], SCRIPT[6][0]):
        for i in range(len(request)):
            raw.send(request[i : i + 1])
        assert raw.answer().status == 200


def test_many_pipelined_requests_wait_their_turn(raw: RawConnection) -> None:
    n = 500
    raw.send(b"".join(http_request(INFER, json.dumps(one(id=str(i))).encode()) for i in range(n)))
    assert [raw.answer().json["id"] for _ in range(n)] == [str(i) for i in range(n)]


def test_expect_100_is_answered_before_the_body_is_sent(raw: RawConnection) -> None:
    head, _, body = http_request(INFER, BODY, head=["Expect: 100-continue"]).partition(b"\r\n\r\n")
    assert raw.ask(head + b"\r\n\r\n").status == 100
    assert raw.ask(body).status == 200
    assert raw.ask(http_request("/v2", b"", method="GET", head=["Expect: 100-continue"])).status == 200


@pytest.mark.parametrize(
    ("path", "head", "status"),
    [
        (INFER, ["Expect: 100-continue", f"Content-Length: {2**40}"], 413),
        ("/v2/nowhere", ["Expect: 100-continue", "Content-Length: 10"], 404),
        (INFER, ["Expect: magic", "Content-Length: 10"], 417),
        ("/v2/nowhere", ["Content-Length: 1000000"], 404),
    ],
)
def test_a_body_that_will_be_refused_is_not_asked_for(
    raw: RawConnection, path: str, head: list[str], status: int
) -> None:
    answer = raw.ask(http_request(path, None, method="POST", head=head))
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert raw.is_ended()


def test_an_answer_arrives_although_its_request_was_too_large_to_read(raw: RawConnection) -> None:
    raw.send(http_request(INFER, None, method="POST", head=[f"Content-Length: {100 * 2**20}"]))
    raw.send(b"x" * 2_000_000)
    assert raw.answer().status == 413


def test_head_has_the_headers_and_no_body(raw: RawConnection) -> None:
    whole = raw.ask(http_request("/v2"))
    raw.send(http_request("/v2", method="HEAD") + http_request("/v2"))
    head = raw.answer(is_head=True)
    assert head.headers["content-length"] == str(len(whole.body)) == whole.headers["content-length"]
    assert raw.answer().body == whole.body


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", INFER, "POST"),
        ("POST", "/v2", "GET, HEAD"),
        ("DELETE", "/v2/models/m", "GET, HEAD"),
        ("OPTIONS", INFER, "POST"),
    ],
)
def test_a_wrong_method_is_405_and_names_the_right_ones(raw: RawConnection, method: str, path: str, allow: str) -> None:
    answer = raw.ask(http_request(path, method=method))
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert method in answer.error


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v2/models", "/v2/models//infer", "/v2/models/a/b/c", "/v2/models/%ff/infer", "/v2/models/m/infer/"],
)
def test_an_unknown_path_is_404_with_a_pointer(raw: RawConnection, path: str) -> None:
    answer = raw.ask(http_request(path))
    assert answer.status == 404
    assert "/v2/openapi.json" in answer.error


def test_generate_is_404_and_says_what_to_use(raw: RawConnection) -> None:
    answer = raw.ask(http_request("/v2/models/identity_fp32/generate", b"{}"))
    assert answer.status == 404
    assert "/infer" in answer.error


def test_names_are_percent_decoded(raw: RawConnection) -> None:
    assert raw.ask(http_request("/v2/models/%69dentity%5Ffp32")).json["name"] == "identity_fp32"
    assert "'a/b ü'" in raw.ask(http_request("/v2/models/a%2Fb%20%C3%BC")).error


SMUGGLED = [
    (["Content-Length: 5", "Transfer-Encoding: chunked"], 400),
    (["Content-Length: 5", "Content-Length: 6"], 400),
    (["Content-Length: -5"], 400),
    (["Content-Length: +5"], 400),
    (["Content-Length: 5, 5"], 400),
    (["Transfer-Encoding: chunked, identity"], 400),
    (["Transfer-Encoding: gzip, chunked"], 501),
    (["Transfer-Encoding: chunked", "Connection: Upgrade", "Upgrade: h2c"], 400),
    (["Content-Length : 5"], 400),
    (["Content-Length: 5\n", "X: y"], 400),
    (["Host: again"], 400),
]


@pytest.mark.parametrize(("head", "status"), SMUGGLED)
def test_ambiguous_framing_is_refused_and_ends_the_connection(raw: RawConnection, head: list[str], status: int) -> None:
    raw.send(http_request(INFER, method="POST", head=head) + b"0\r\n\r\n" + http_request("/v2/smuggled"))
    answer = raw.answer()
    assert answer.status == status
    assert raw.is_ended()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\x01\x02\x03 garbage\r\n\r\n", 400),
        (b"GET /v2 HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /v2 HTTP/1.1\r\n\r\n", 400),
        (b"GET /v2\r\n\r\n", 505),
        (b"GET /v2 HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400),
        (b"BREW /v2 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (http_request(INFER, b"zz\r\n", head=["Transfer-Encoding: chunked"]), 400),
        (b"POST /v2/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000, 431),
        (b"GET /v2 HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 60_000, 431),
        (b"GET /v2 HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10_000, 431),
        (http_request(INFER, b"2;" + b"e" * 90_000, head=["Transfer-Encoding: chunked"]), 400),
        (http_request(INFER, b"1\r\n{\r\n0\r\n" + b"T: y\r\n" * 30_000, head=["Transfer-Encoding: chunked"]), 400),
    ],
)
def test_what_is_no_http_is_refused_with_the_reason(raw: RawConnection, data: bytes, status: int) -> None:
    answer = raw.ask(data)
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert answer.error
    assert raw.is_ended()


def test_earlier_answers_come_before_a_refusal(raw: RawConnection) -> None:
    raw.send(http_request(INFER, BODY) * 3 + b"\x00\r\n\r\n")
    assert [raw.answer().status for _ in range(4)] == [200, 200, 200, 400]
    assert raw.is_ended()


def test_connection_close_ends_it_after_the_answer(raw: RawConnection) -> None:
    raw.send(http_request(INFER, BODY, head=["Connection: close"]) + http_request("/v2"))
    assert raw.answer().headers["connection"] == "close"
    assert raw.is_ended()


def test_http_1_0_is_closed_unless_it_asks_for_keep_alive(server: GatewayProcess) -> None:
    with RawConnection(server.rest_url) as connection:
        assert connection.ask(http_request("/v2", version="1.0")).status == 200
        assert connection.is_ended()
    with RawConnection(server.rest_url) as connection:
        for _ in range(2):
            answer = connection.ask(http_request("/v2", version="1.0", head=["Connection: keep-alive"]))
            assert answer.headers["connection"] == "keep-alive"


def test_curl_gets_answers_compressed_with_100_continue_and_head(server: GatewayProcess, tmp_path: Path) -> None:
    def curl(*arguments: str) -> str:
        command = ["curl", "-sS", "-m", "20", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout

    url = f"http://{server.rest_url}"
    values = list(range(40_000))
    (tmp_path / "body").write_bytes(json.dumps(one(shape=(10_000, 4), data=values)).encode())
    shown = curl("-v", "-H", "Expect: 100-continue", "--compressed", "-d", f"@{tmp_path}/body", url + INFER)
    assert json.loads(shown)["outputs"][0]["data"][-1] == 39_999
    assert curl("-I", url + "/v2").startswith("HTTP/1.1 200")
    assert json.loads(curl("--http2", url + "/v2"))["name"] == "gateway"
    chunked = curl("-H", "Transfer-Encoding: chunked", "-d", f"@{tmp_path}/body", url + INFER)
    assert json.loads(chunked) == json.loads(shown)
