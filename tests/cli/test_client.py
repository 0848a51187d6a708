"""The operator's client where there is no control plane: what it says, and how soon."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from typer.testing import CliRunner

from gateway.cli import app, client
from gateway.cli.client import Client, shown
from gateway.errors import ConfigError
from tests.support.gatewayprocess import GatewayProcess


def ask(server: str, code: int = 1) -> str:
    result = CliRunner().invoke(app, ["status", "--server", server])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stderr


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    """A server that says that and nothing else, once."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(content)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_nobody_there_is_told_with_what_to_start_and_where_to_point() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert ask(url) == (
        f"error: nothing answers at {url}: start it with `gateway serve`, or say where it is with --server URL or "
        "$GATEWAY_SERVER (it is the control port, 8002 unless told otherwise)\n"
    )


def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "READ_PATIENCE_S", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert ask(url) == f"error: no answer from {url} (--server) within 0.2 s\n"


def test_an_unknown_host_is_named() -> None:
    assert "error: http://no-host.invalid:8002 (--server): host 'no-host.invalid': " in ask(
        "http://no-host.invalid:8002"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is this the control port?"),
        (b"\x00\x01garbage", "is this the control port?"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "answered 200 with 'hello', which is no control plane's",
        ),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 6\r\n\r\n\x1b[31mx", r"answered 502 with '\\x1b[31mx'"),
        (b'HTTP/1.1 404 No\r\nContent-Length: 15\r\n\r\n{"error": "no"}', "which is no control plane's answer"),
    ],
)
def test_somebody_else_at_the_address_is_told_apart(content: bytes, words: str) -> None:
    with answering(content) as url:
        assert words in ask(url)


def test_the_data_plane_is_no_control_plane_and_says_where_it_is(server: GatewayProcess) -> None:
    assert "it is on the control port, 8002 unless told otherwise" in ask(f"http://{server.rest_url}")


@pytest.mark.parametrize("server", ["127.0.0.1:8002", "ftp://host", "http://", "http://host:port", "", "http://h?x=1"])
def test_what_is_no_url_is_a_fault_of_usage(server: str) -> None:
    with pytest.raises(ConfigError, match=r"--server: got .*, expected a URL such as http://127.0.0.1:8002"):
        Client(server)


def test_a_refusal_is_a_line_for_each_wrong_field() -> None:
    body = (
        b'{"error": "a; b", "faults": [{"field": "versions.7", "message": "no such version"}, '
        b'{"field": "sticky", "message": "without a name"}]}'
    )
    head = b"HTTP/1.1 422 No\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(head + body) as url:
        assert ask(url) == "error: versions.7: no such version\nerror: sticky: without a name\n"


@pytest.mark.parametrize("name", ["Åsa Öberg", "eve\r\nX-Admin: yes", "ada"])
def test_any_name_can_be_given_and_none_adds_a_header(name: str) -> None:
    heard: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while b"\r\n\r\n{}" not in b"".join(heard):
                heard.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        assert Client(f"http://127.0.0.1:{listener.getsockname()[1]}", name).post("v1", "x", body={}) == {}
        thread.join()
    names = [line.split(b":")[0].lower() for line in b"".join(heard).split(b"\r\n")[1:]]
    assert b"x-admin" not in names
    assert names.count(b"x-actor") == 1


def test_what_moves_a_cursor_is_shown_and_not_done() -> None:
    assert shown("a\x1b[2Jb\r\n\u202ec é") == "a\\x1b[2Jb\\r\\n\\u202ec é"
