"""Metrics of a running gateway: a known number of requests, a real Prometheus, and deaths of workers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.native.connection import Hub
from tests.support import onnxmodels
from tests.support.conditions import eventually
from tests.support.gatewayprocess import GatewayProcess, free_port
from tests.support.oip import Client, connect

Serve = Callable[..., GatewayProcess]

ROW = {"x": np.zeros((1, 4), np.float32)}
TOO_MANY = {"x": np.zeros((9, 4), np.float32)}
WRONG = {"x": np.zeros((1, 5), np.float32)}

counts_every_refusal = pytest.mark.skipif(
    not hasattr(Hub, "refused"), reason="this build does not count refusals by code"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name in ("ok", "bad", "late", "full", "load", "deadly"):
        onnxmodels.store(root, name, 1, onnxmodels.linear(), "batching: {queue_rows: 8}" if name == "full" else None)
    onnxmodels.store(root, "broken", 1, b"no model")
    return root


@pytest.fixture(scope="module")
def gateway(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(models, tmp_path_factory.mktemp("gateway"), "--workers", "2") as process:
        yield process


def control_url(gateway: GatewayProcess) -> str:
    return f"http://127.0.0.1:{gateway.events('gateway ready')[0]['control_port']}"


def get(url: str, accept: str = "") -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as answer:
        return str(answer.read().decode())


class Scrape:
    """One look at /metrics."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.text = get(control_url(gateway) + "/metrics")
        self._samples = [sample for family in parse_text(self.text) for sample in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        """Over all series of that name with at least those labels."""
        values = [s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items()]
        assert values, f"no {name} with {labels}"
        return sum(values)

    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (s.name, frozenset(s.labels.items())): s.value
            for s in self._samples
            if s.name.endswith(("_total", "_bucket", "_count", "_sum"))
        }


def settled(gateway: GatewayProcess, expected: float, name: str, **labels: str) -> Scrape:
    """A scrape in which that sum is `expected`; workers report each second."""
    last: list[float] = []

    def probe() -> Scrape | None:
        scrape = Scrape(gateway)
        with contextlib.suppress(AssertionError):
            last[:] = [scrape.sum(name, **labels)]
        return scrape if last == [expected] else None

    return eventually(probe, f"{name} {labels} is {expected}, not {last}")


@contextlib.contextmanager
def clients(gateway: GatewayProcess, n: int) -> Iterator[list[Client]]:
    """On a connection each: the kernel spreads them over the workers."""
    with contextlib.ExitStack() as stack:
        yield [Client(stack.enter_context(connect(gateway.grpc_url))) for _ in range(n)]


def refused(client: Client, model: str, inputs: Any, **wishes: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(model, inputs, **wishes)
    return str(caught.value.code().name)


def test_each_outcome_is_counted_once_for_its_version(gateway: GatewayProcess) -> None:
    with clients(gateway, 8) as several:
        for client in several:
            client.infer("ok", ROW)
            client.infer("ok", {"x": np.zeros((3, 4), np.float32)})
            assert refused(client, "late", ROW, parameters={"timeout": 1}) == "DEADLINE_EXCEEDED"
            assert refused(client, "full", TOO_MANY) == "RESOURCE_EXHAUSTED"
        scrape = settled(gateway, 16, "gateway_requests_total", model="ok", code="OK")
        assert scrape.sum("gateway_requests_total", model="ok") == 16
        assert scrape.sum("nv_inference_request_success_total", model="ok", version="1") == 16
        assert scrape.sum("nv_inference_count_total", model="ok") == 8 * 4
        assert scrape.sum("nv_inference_request_failure_total", model="ok") == 0
        n_batches = scrape.sum("nv_inference_exec_count_total", model="ok")
        assert scrape.sum("gateway_batch_releases_total", model="ok") == n_batches <= 16
        scrape = settled(gateway, 8, "gateway_deadline_misses_total", model="late", version="1", arm="stable")
        assert scrape.sum("gateway_requests_total", model="late") == 8
        assert scrape.sum("nv_inference_request_failure_total", model="late", reason="REJECTED") == 8
        scrape = settled(gateway, 8, "gateway_refusals_total", model="full", reason="queue_rows")
        assert scrape.sum("gateway_requests_total", model="full", code="RESOURCE_EXHAUSTED") == 8
        assert scrape.sum("gateway_requests_total", model="full") == 8
        assert scrape.sum("gateway_connections", protocol="grpc") >= 8
        assert scrape.sum("gateway_connections_accepted_total") >= 8
        assert scrape.sum("gateway_received_bytes_total") > 8 * 4 * 50
        assert scrape.sum("gateway_sent_bytes_total") > 8 * 4 * 50


@counts_every_refusal
def test_bad_input_counts_for_its_version_and_an_unknown_model_for_none(gateway: GatewayProcess) -> None:
    with clients(gateway, 4) as several:
        for client in several:
            assert refused(client, "bad", WRONG) == "INVALID_ARGUMENT"
            assert refused(client, "nothing", ROW) == "NOT_FOUND"
            assert refused(client, "broken", ROW) == "UNAVAILABLE"
    scrape = settled(gateway, 4, "gateway_requests_total", model="bad", code="INVALID_ARGUMENT")
    assert scrape.sum("nv_inference_request_failure_total", model="bad", reason="OTHER") == 4
    scrape = settled(gateway, 4, "gateway_requests_total", model="", code="NOT_FOUND")
    assert scrape.sum("gateway_requests_total", model="", code="UNAVAILABLE") == 4
    assert scrape.sum("gateway_refusals_total", model="", reason="unknown_model") == 4
    assert "nothing" not in scrape.text  # what a caller makes up is no label


def test_states_of_versions_and_workers_are_shown(gateway: GatewayProcess) -> None:
    scrape = settled(gateway, 2, "gateway_version_state", model="ok", version="1", state="READY")
    assert scrape.sum("gateway_version_state", model="broken", version="1", state="UNAVAILABLE") == 2
    assert 0 < scrape.sum("nv_model_load_duration_secs", model="ok", version="1") < 60
    assert scrape.sum("gateway_worker_up") == 2
    assert scrape.sum("gateway_worker_restarts_total") == 0
    assert scrape.sum("gateway_worker_resident_memory_bytes", worker="1") > 10_000_000
    assert scrape.sum("gateway_in_flight_limit_bytes") == 2 * 2**30


def test_openmetrics_is_served_to_who_asks_for_it(gateway: GatewayProcess) -> None:
    text = get(control_url(gateway) + "/metrics", "application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_openmetrics(text)}
    assert {"gateway_requests", "gateway_batch_releases", "nv_inference_count"} <= names


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Debian's package prometheus")
def test_promtool_takes_what_is_served(gateway: GatewayProcess) -> None:
    text = get(control_url(gateway) + "/metrics").encode()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=90, check=False)
    assert done.returncode in (0, 3), done.stderr
    assert [line for line in done.stderr.decode().splitlines() if not line.startswith("nv_")] == []


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Callable[[str], float]]:
    """A Prometheus that scrapes `target` each second; answers a query with one number."""
    port = free_port()
    config = {
        "scrape_configs": [
            {"job_name": "gateway", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]},
        ]
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]

    def ask(query: str) -> float:
        url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        try:
            result = json.loads(get(url))["data"]["result"]
        except OSError:
            return -1  # it starts
        return float(result[0]["value"][1]) if result else -1

    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield ask
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's package prometheus")
def test_a_real_prometheus_counts_what_two_workers_answered_under_load(gateway: GatewayProcess, tmp_path: Path) -> None:
    n_clients, n_each = 16, 150
    with prometheus(tmp_path, control_url(gateway).removeprefix("http://")) as ask, clients(gateway, n_clients) as all_:
        eventually(lambda: ask("up") == 1, "the first scrape", 60)

        def load(client: Client) -> None:
            for _ in range(n_each):
                client.infer("load", ROW)

        with ThreadPoolExecutor(n_clients) as pool:
            list(pool.map(load, all_))
        expected = n_clients * n_each
        query = 'sum(gateway_requests_total{model="load",code="OK"})'
        eventually(lambda: ask(query) == expected, f"{query} is {expected}", 60)
        assert ask('nv_inference_request_success{model="load"}') == expected
        assert ask("sum(gateway_worker_up)") == 2
        assert ask("scrape_samples_scraped") > 100
        assert ask("max_over_time(up[1m])") == ask("min_over_time(up[1m])") == 1


@pytest.mark.slow
def test_no_counter_goes_backwards_when_a_worker_is_killed(models: Path, serve: Serve) -> None:
    gateway = serve(models, "--workers", "2")
    with clients(gateway, 12) as several:
        for client in several:
            client.infer("deadly", ROW)
        before = settled(gateway, 12, "gateway_requests_total", model="deadly", code="OK")
    victim = gateway.workers()[0]
    os.kill(victim, signal.SIGKILL)
    seen = [before]

    def is_back() -> bool:
        seen.append(Scrape(gateway))
        assert seen[-1].sum("gateway_requests_total", model="deadly", code="OK") == 12
        return seen[-1].sum("gateway_worker_restarts_total") == 1 and seen[-1].sum("gateway_worker_up") == 2

    eventually(is_back, "the new worker", 60)
    with clients(gateway, 12) as several:
        for client in several:
            client.infer("deadly", ROW)
        seen.append(settled(gateway, 24, "gateway_requests_total", model="deadly", code="OK"))
    for earlier, later in pairwise(seen):
        now = later.counters()
        fell = {key: (old, now.get(key)) for key, old in earlier.counters().items()}
        assert not {key: pair for key, pair in fell.items() if pair[1] is None or pair[1] < pair[0]}


@pytest.mark.slow
def test_a_supervisor_that_stands_still_keeps_no_worker_from_answering(models: Path, serve: Serve) -> None:
    gateway = serve(models)
    with clients(gateway, 1) as (client,):
        client.infer("ok", ROW)
        os.kill(gateway.process.pid, signal.SIGSTOP)
        try:
            n = 1
            until_s = time.monotonic() + 2.2  # two reports
            while time.monotonic() < until_s:
                client.infer("ok", ROW)
                n += 1
        finally:
            os.kill(gateway.process.pid, signal.SIGCONT)
    settled(gateway, n, "gateway_requests_total", model="ok", code="OK")
    assert gateway.stop() == 0
