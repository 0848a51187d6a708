"""Reserving a port: who may share it, who may not, and what a refusal says."""

from __future__ import annotations

import socket

import pytest

from gateway.errors import ConfigError
from gateway.serving.ports import reserve


def listener(port: int) -> socket.socket:
    """As a worker does it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    return sock


def test_port_0_is_a_free_one_and_workers_can_share_it() -> None:
    with reserve("127.0.0.1", 0, "--port") as held:
        port = held.getsockname()[1]
        with listener(port), listener(port), socket.create_connection(("127.0.0.1", port)):
            pass


def test_a_held_port_that_nobody_listens_on_refuses_connections() -> None:
    with reserve("127.0.0.1", 0, "--port") as held, pytest.raises(ConnectionRefusedError):
        socket.create_connection(held.getsockname())


def test_a_port_held_by_another_supervisor_is_refused_before_its_workers_listen() -> None:
    with reserve("127.0.0.1", 0, "--port") as held, pytest.raises(ConfigError, match=r"^--port \d+: in use on"):
        reserve("127.0.0.1", held.getsockname()[1], "--port")


def test_a_stranger_with_reuseport_is_not_joined() -> None:
    with listener(0) as stranger, pytest.raises(ConfigError, match=r"^--grpc-port \d+: in use on 127.0.0.1; stop what"):
        reserve("127.0.0.1", stranger.getsockname()[1], "--grpc-port")


def test_closed_connections_of_an_earlier_server_are_no_hindrance() -> None:
    with socket.create_server(("127.0.0.1", 0)) as earlier:
        port = earlier.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = earlier.accept()
        accepted.close()  # the server's side closes first, and lingers in TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    with reserve("127.0.0.1", port, "--port") as held:
        assert held.getsockname()[1] == port
        listener(port).close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "a" * 300])
def test_a_host_that_is_not_ours_is_refused_by_its_flag(host: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--host {host}: .*127.0.0.1"):
        reserve(host, 0, "--port")
