"""The control plane on a real port: what it answers, and that its faults stay its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import gateway.control
from gateway.control import server
from gateway.observability import logs
from gateway.observability.aggregate import Aggregate, Totals
from gateway.serving.ports import reserve
from tests.support.conditions import eventually


@pytest.fixture(autouse=True)
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = io.StringIO()
    logs.setup("json", stream=out)
    yield out
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@contextlib.asynccontextmanager
async def control(aggregate: Aggregate) -> AsyncIterator[int]:
    """Its port."""
    with reserve("127.0.0.1", 0, "--control-port") as sock:
        port = sock.getsockname()[1]
        async with server.serving(sock, aggregate):
            yield port


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Status, content type, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type") or "", answer.read().decode()
    finally:
        connection.close()


async def test_it_tells_where_to_look_and_serves_that() -> None:
    async with control(Aggregate(1)) as port:
        status, kind, text = await asyncio.to_thread(ask, port, "/")
        assert (status, kind) == (200, "text/plain; charset=utf-8")
        for path in ("/metrics", "/docs", "/openapi.json"):
            assert f"  {path} " in text
            assert (await asyncio.to_thread(ask, port, path))[0] == 200
        paths = json.loads((await asyncio.to_thread(ask, port, "/openapi.json"))[2])["paths"]
        assert {"/", "/metrics"} <= paths.keys()
        assert (await asyncio.to_thread(ask, port, "/nowhere"))[0] == 404
        assert (await asyncio.to_thread(ask, port, "/metrics", "POST"))[0] == 405


async def test_metrics_come_in_the_format_that_is_asked_for() -> None:
    async with control(Aggregate(1)) as port:
        _, kind, text = await asyncio.to_thread(ask, port, "/metrics")
        assert kind == "text/plain; version=0.0.4; charset=utf-8"
        assert "# TYPE nv_inference_count counter\n" in text
        _, kind, text = await asyncio.to_thread(ask, port, "/metrics", Accept="application/openmetrics-text")
        assert kind.startswith("application/openmetrics-text; version=1.0.0")
        assert text.endswith("# EOF\n")


class Broken(Aggregate):
    def totals(self) -> Totals:
        raise RuntimeError("no totals today")


async def test_metrics_that_fail_are_a_500_and_a_log_line_and_the_rest_goes_on(log: io.StringIO) -> None:
    async with control(Broken(1)) as port:
        for _ in range(2):
            assert (await asyncio.to_thread(ask, port, "/metrics"))[0] == 500
            assert (await asyncio.to_thread(ask, port, "/"))[0] == 200
    assert "no totals today" in log.getvalue()


@pytest.mark.parametrize("error", [RuntimeError("no server today"), SystemExit(3)])
async def test_a_server_that_does_not_start_harms_nobody_and_lets_nobody_wait(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    import uvicorn

    async def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(uvicorn.Server, "startup", fail)
    async with control(Aggregate(1)) as port:
        await asyncio.to_thread(eventually, lambda: "control plane failed" in log.getvalue(), "the line")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


async def test_it_ends_with_its_context_and_connections_that_idle_do_not_hold_it() -> None:
    idle = []
    async with control(Aggregate(1)) as port:
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            await asyncio.to_thread(connection.connect)
            idle.append(connection)
        await asyncio.to_thread(ask, port, "/")
        began_s = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began_s < 3
    for connection in idle:
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


async def test_it_leaves_the_signals_to_whoever_hosts_it() -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with control(Aggregate(1)) as port:
        await asyncio.to_thread(ask, port, "/")
        assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_it_imports_nothing_of_the_data_plane() -> None:
    code = "import sys, gateway.control.app, gateway.control.server; print([m for m in sys.modules if 'gateway.' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert "gateway.control.app" in done.stdout
    assert "gateway.serving" not in done.stdout
    assert "gateway.native" not in done.stdout
    for source in Path(gateway.control.__file__).parent.glob("*.py"):
        assert "gateway.serving" not in source.read_text()
