"""The native reader of HTTP heads beside llhttp: what it takes, llhttp reads the same, to the same byte."""

from __future__ import annotations

import random
from typing import Any

import httptools
import pytest

from gateway.native.httphead import Head, read_request


class Told:
    """What llhttp says of the first message."""

    def __init__(self, data: bytes) -> None:
        self.url, self.body = b"", b""
        self.fields: dict[bytes, bytes] = {}
        self.n_messages = 0
        self.parser: Any = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name.lower() not in self.fields
        self.fields[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.n_messages += 1


def check(data: bytes, last: Head | None = None) -> Head | None:
    found = read_request(data, 0, last)
    if found is None:
        return None
    head, body, end = found
    told = Told(data[:end])
    assert told.n_messages == 1
    assert (told.url, told.fields, told.body) == (head.target, head.fields, body)
    assert told.parser.get_method() == b"POST"
    assert told.parser.get_http_version() == "1.1"
    assert told.parser.should_keep_alive()
    assert not told.parser.should_upgrade()
    assert len(body) == head.n_body
    return head


PLAIN = (
    b"POST /v2/models/a%2Fb/versions/1/infer HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: x/1 (y)\r\n"
    b"Content-Type: application/json\r\nAccept-Encoding: gzip, deflate\r\nX-Tenant:  acme\r\nConnection: Keep-Alive\r\n"
    b"Content-Length: 10\r\nX-Request-Id: 7\r\n\r\n0123456789"
)


def test_a_plain_request_is_taken_and_its_head_is_known_again() -> None:
    head = check(PLAIN)
    assert head is not None
    assert check(PLAIN, head) is head
    other = check(PLAIN.replace(b"10\r\n", b"9\r\n"), head)
    assert other is not None
    assert other is not head
    assert other.fields[b"content-length"] == b"9"
    assert head.fields[b"content-length"] == b"10"
    assert check(PLAIN.replace(b"9\r\n", b"10\r\n"), other) is not None
    assert check(PLAIN.replace(b"acme", b"acne"), head).fields[b"x-tenant"] == b"acne"  # type: ignore[union-attr]


def test_a_request_that_is_not_all_there_is_left() -> None:
    head = check(PLAIN)
    for n in range(len(PLAIN)):
        assert read_request(PLAIN[:n], 0, None) is None
        assert read_request(PLAIN[:n], 0, head) is None


def test_requests_are_found_one_behind_the_other() -> None:
    found = read_request(PLAIN + PLAIN, len(PLAIN), None)
    assert found is not None
    assert found[2] == 2 * len(PLAIN)


@pytest.mark.parametrize("change", [
    (b"POST", b"GET"), (b"POST ", b"POST  "), (b"POST /", b"POST http://a/"), (b"POST", b"\r\nPOST"),
    (b"/infer", b"/infer?a"),
    (b"/infer", b"/infer#a"), (b"/1.1", b"/1.0"), (b"/1.1", b"/1.2"), (b"/1.1\r\n", b"/1.1\n"),
    (b"acme\r\n", b"acme\n"),
    (b"acme", b"ac\xffme"), (b"acme", b"ac\tme"), (b"acme", b"acme "), (b"acme\r\n", b"acme\r\n more\r\n"),
    (b"X-Tenant:", b"X-Tenant :"),
    (b"X-Tenant:", b"X(Tenant:"), (b"X-Tenant:", b":"), (b"acme", b""), (b"X-Tenant", b"User-Agent"),
    (b"X-Tenant", b"Host"),
    (b"localhost:8000", b"a,b"), (b"Host: localhost:8000\r\n", b""), (b"Keep-Alive", b"close"),
    (b"Keep-Alive", b"keep-alive, upgrade"),
    (b"X-Tenant", b"Upgrade"), (b"X-Tenant:  acme", b"Expect: 100-continue"),
    (b"X-Tenant:  acme", b"Transfer-Encoding: chunked"),
    (b"X-Tenant:  acme", b"Transfer-Encoding: identity"), (b"X-Tenant:  acme", b"Content-Length: 10"),
    (b"X-Tenant:  acme", b"content-length: 9"), (b"X-Tenant", b"Proxy-Connection"), (b"Length: 10", b"Length: 010"),
    (b"Length: 10", b"Length: +10"), (b"Length: 10", b"Length: 0"), (b"Length: 10", b"Length: 10,10"),
    (b"Length: 10", b"Length: 1 0"),
    (b"Length: 10", b"Length: 0xa"), (b"Length: 10", b"Length: 99999999999999999999"), (b"Content-Length: 10\r\n", b""),
    (b"acme", b"a" * 3000), (b"X-Tenant:  acme\r\n", b"".join(b"X%d: 1\r\n" % i for i in range(40))),
])  # fmt: skip
def test_every_other_head_is_left_to_llhttp(change: tuple[bytes, bytes]) -> None:
    data = PLAIN.replace(*change)
    assert data != PLAIN
    assert read_request(data, 0, None) is None
    assert read_request(data, 0, check(PLAIN)) is None


def test_a_changed_byte_is_read_as_llhttp_reads_it() -> None:
    dice = random.Random(8)
    last = check(PLAIN)
    n_taken = 0
    for _ in range(6000):
        data = bytearray(PLAIN)
        for _ in range(dice.choice([1, 1, 2])):
            at = dice.randrange(len(data))
            kind = dice.randrange(3)
            if kind == 0:
                data[at] = dice.randrange(256)
            elif kind == 1:
                data[at:at] = dice.choice([b" ", b"\r\n", b"\r", b"\n", b":", b",", b"0", b"\0", b"close", b"chunked"])
            else:
                del data[at]
        n_taken += check(bytes(data) + b"more", dice.choice([None, last])) is not None
    assert 300 < n_taken < 5700
