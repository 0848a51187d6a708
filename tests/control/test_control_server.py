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
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI

import gateway.control
from gateway.control import server
from gateway.control.app import create_app
from gateway.control.fleet import Expected
from gateway.control.leader import Leader
from gateway.control.plane import Plane
from gateway.control.registration import Registrar
from gateway.control.storekeeper import StoreKeeper
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
async def control(folder: Path, totals: Callable[[], Totals] | None = None) -> AsyncIterator[int]:
    """Its port."""

    async def counted() -> Totals:
        return (totals or Aggregate(1).totals)()

    keeper = StoreKeeper(f"sqlite:///{folder}/gateway.db", None)
    plane = Plane(folder, keeper, Leader(keeper, "test"), Registrar(folder), Expected(), counted)
    keeper.start()
    stop = asyncio.Event()
    with reserve("127.0.0.1", 0, "--control-port") as sock:
        port = sock.getsockname()[1]
        sock.listen()
        task = asyncio.get_running_loop().create_task(server.serve(sock, create_app(plane), stop))
        try:
            yield port
        finally:
            stop.set()
            await asyncio.wait({task}, timeout=20)
            task.cancel()
            await asyncio.to_thread(keeper.close)


def ask(port: int, path: str, method: str = "GET", body: str = "", **headers: str) -> tuple[int, str, str]:
    """Status, content type, body; sent as JSON, unless `headers` say otherwise."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body or None, {"Content-Type": "application/json"} | headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type") or "", answer.read().decode()
    finally:
        connection.close()


async def test_it_tells_where_to_look_and_serves_that(tmp_path: Path) -> None:
    async with control(tmp_path) as port:
        status, kind, text = await asyncio.to_thread(ask, port, "/")
        assert (status, kind) == (200, "text/plain; charset=utf-8")
        for path in ("/metrics", "/docs", "/openapi.json", "/v1/status"):
            assert f"  {path} " in text
            assert (await asyncio.to_thread(ask, port, path))[0] == 200
        paths = json.loads((await asyncio.to_thread(ask, port, "/openapi.json"))[2])["paths"]
        assert {"/", "/metrics"} <= paths.keys()
        assert (await asyncio.to_thread(ask, port, "/nowhere"))[0] == 404
        assert (await asyncio.to_thread(ask, port, "/metrics", "POST"))[0] == 405


async def test_metrics_come_in_the_format_that_is_asked_for(tmp_path: Path) -> None:
    async with control(tmp_path) as port:
        _, kind, text = await asyncio.to_thread(ask, port, "/metrics")
        assert kind == "text/plain; version=0.0.4; charset=utf-8"
        assert "# TYPE nv_inference_count counter\n" in text
        _, kind, text = await asyncio.to_thread(ask, port, "/metrics", Accept="application/openmetrics-text")
        assert kind.startswith("application/openmetrics-text; version=1.0.0")
        assert text.endswith("# EOF\n")


def no_totals() -> Totals:
    raise RuntimeError("no totals today")


async def test_metrics_that_fail_are_a_500_and_a_log_line_and_the_rest_goes_on(
    tmp_path: Path, log: io.StringIO
) -> None:
    async with control(tmp_path, no_totals) as port:
        for _ in range(2):
            status, _, body = await asyncio.to_thread(ask, port, "/metrics")
            assert (status, json.loads(body)["faults"]) == (500, [])
            assert (await asyncio.to_thread(ask, port, "/"))[0] == 200
    assert "no totals today" in log.getvalue()


async def test_a_server_that_does_not_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise SystemExit(3)

    monkeypatch.setattr("uvicorn.Server.startup", fail)
    with (
        reserve("127.0.0.1", 0, "--control-port") as sock,
        pytest.raises(RuntimeError, match="the control port's server ended with 3"),
    ):
        await server.serve(sock, FastAPI(), asyncio.Event())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/v1/nothing", "", 404, "/v1/nothing: there is no such path; /docs shows those that are"),
        ("DELETE", "/v1/models", "", 405, "/v1/models: DELETE is not possible"),
        ("GET", "/v1/models/m", "", 404, "model 'm': there is none; models here: none"),
        ("GET", "/v1/routes/m", "", 404, "model 'm' has no route; models with one: none yet"),
        ("GET", "/v1/audit?limit=0", "", 422, "query.limit: "),
        ("PUT", "/v1/routes/m", "{", 422, "JSON"),
        ("PUT", "/v1/routes/m", '{"route": {"versions": {"1": 100}}, "reson": ""}', 422, "reson: unknown field"),
        ("PUT", "/v1/routes/m", '{"route": {"versions": {"1": 100}}}', 404, "model 'm': nobody serves it"),
        ("POST", "/v1/models/m/versions", "{}", 404, 'model "m": no such folder in the model repository'),
        ("POST", "/v1/models/m/versions/1/retire", "", 404, 'model "m": no such folder in the model repository'),
    ],
)
async def test_a_refusal_says_what_is_wrong_in_one_shape(
    tmp_path: Path, method: str, path: str, body: str, status: int, text: str
) -> None:
    async with control(tmp_path) as port:
        await asyncio.to_thread(eventually, lambda: ask(port, "/v1/models")[0] == 200, "the store")
        got, kind, answer = await asyncio.to_thread(ask, port, path, method, body)
    assert (got, kind) == (status, "application/json"), answer
    assert text in json.loads(answer)["error"]
    assert isinstance(json.loads(answer)["faults"], list)


@pytest.mark.parametrize("sent", ["application/x-www-form-urlencoded", "text/plain", ""])
async def test_what_curl_or_a_web_page_sends_without_the_header_is_told_which_one_it_needs(
    tmp_path: Path, sent: str
) -> None:
    async with control(tmp_path) as port:
        await asyncio.to_thread(eventually, lambda: ask(port, "/v1/models")[0] == 200, "the store")
        body = '{"route": {"versions": {"1": 100}}}'
        form = {"Content-Type": sent}
        status, _, answer = await asyncio.to_thread(lambda: ask(port, "/v1/routes/m", "PUT", body, **form))
    expected = f"Content-Type: got {sent or 'none'}, expected application/json"
    assert (status, json.loads(answer)["error"]) == (422, expected)


async def test_without_its_store_it_says_so_everywhere_and_status_still_answers(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"this is no database, and long enough to be told from one" * 100)
    async with control(tmp_path) as port:

        def fault() -> str:
            return str(json.loads(ask(port, "/v1/status")[2])["store"]["fault"])

        await asyncio.to_thread(eventually, lambda: "not a database" in fault(), "the reason")
        status, _, body = await asyncio.to_thread(ask, port, "/v1/routes")
        assert status == 503
        assert "not a database" in json.loads(body)["error"]
        assert (await asyncio.to_thread(ask, port, "/metrics"))[0] == 200


async def test_it_ends_with_its_context_and_connections_that_idle_do_not_hold_it(tmp_path: Path) -> None:
    idle = []
    async with control(tmp_path) as port:
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            await asyncio.to_thread(connection.connect)
            idle.append(connection)
        await asyncio.to_thread(ask, port, "/")
        began_s = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began_s < 20  # they would idle for longer
    for connection in idle:
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


async def test_it_leaves_the_signals_to_whoever_hosts_it(tmp_path: Path) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with control(tmp_path) as port:
        await asyncio.to_thread(ask, port, "/")
        assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_it_imports_nothing_of_the_data_plane() -> None:
    code = "import sys, gateway.control.process; print([m for m in sys.modules if 'gateway.' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True)
    assert "gateway.control.app" in done.stdout
    assert "gateway.serving" not in done.stdout
    assert "gateway.native.dataplane" not in done.stdout
    assert "sqlalchemy" not in done.stdout
    for source in Path(gateway.control.__file__).parent.rglob("*.py"):
        assert "gateway.serving" not in source.read_text()
