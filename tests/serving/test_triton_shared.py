"""Tensors to a real tritonserver by shared memory: the right bytes whatever befalls it, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from bench.fleet.models import WIDE
from demo.triton import wheel
from demo.triton.repository import TritonModel, store
from demo.triton.server import TritonServer
from gateway.backends.triton.regions import LEAST_BYTES, Use
from gateway.backends.triton.segments import PREFIX, SHM
from gateway.backends.triton.sharing import Lease, Sharing
from tests.support.conditions import eventually
from tests.support.gatewayprocess import GatewayProcess
from tests.support.inprocess import InProcess, serving
from tests.support.oip import Client, arrays, connect, request

pytestmark = pytest.mark.skipif(bool(wheel.why_not()), reason=wheel.why_not())

LATE = """\
class TritonPythonModel:
    # Twice its rows. A row that begins with -N says that it is there, waits until it may go on, and writes then.
    def initialize(self, args):
        self.folder = args["model_repository"]

    def execute(self, requests):
        answers = []
        for request in requests:
            rows = pb.get_input_tensor_by_name(request, "x").as_numpy()
            if rows[0, 0] < 0:
                name = os.path.join(self.folder, str(int(-rows[0, 0])))
                open(name + ".there", "w").close()
                end = time.monotonic() + 30
                while not os.path.exists(name + ".go") and time.monotonic() < end:
                    time.sleep(0.002)
            answers.append(pb.InferenceResponse([pb.Tensor("y", rows * 2)]))
        return answers
"""
N = 40_000
"""Values of a row: 160 kB."""
MODELS = (
    TritonModel("late", [("x", "FP32", [N])], [("y", "FP32", [N])], LATE, max_batch_size=4),
    WIDE,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("triton")
    for model in MODELS:
        store(folder / "repository", model)
    with TritonServer(folder / "repository", folder) as running:
        yield running


def put(root: Path, model: str, url: str, more: str = "", name: str = "") -> None:
    (root / (name or model) / "1").mkdir(parents=True)
    text = f"backend: triton\ntriton: {{endpoints: ['{url}'], model: {model}, warm_up: false{more}}}\n"
    (root / (name or model) / "model.yaml").write_text(text)


@pytest.fixture
def gateway(server: TritonServer, tmp_path: Path) -> Iterator[InProcess]:
    put(tmp_path, "late", server.url)
    put(tmp_path, "wide", server.url)
    put(tmp_path, "late", server.url, ", shared_memory: off", "sent")
    put(tmp_path, "late", server.url, ", shared_memory_limit: 1MiB", "tight")
    with serving(tmp_path) as running:
        yield running
    assert ours() == set()
    assert registered(server) == set()


@pytest.fixture
def client(gateway: InProcess) -> Iterator[Client]:
    with connect(gateway.url) as channel:
        yield Client(channel)


def rows(n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random((n, N), np.float32)


def ask(client: Client, model: str, x: np.ndarray[Any, Any], **wishes: Any) -> np.ndarray[Any, Any]:
    answer: np.ndarray[Any, Any] = arrays(client.send(request(model, {"x": x}), **wishes))["y"]
    return answer


def is_right(client: Client, model: str, x: np.ndarray[Any, Any]) -> bool:
    return np.array_equal(ask(client, model, x), 2 * x)


def sharing(gateway: InProcess, model: str) -> Sharing:
    found = gateway.loader.remotes[model, "1"]._sharing
    assert found
    return found


def ways(gateway: InProcess, model: str) -> dict[str, int]:
    (endpoint,) = gateway.loader.remotes[model, "1"].fleet.endpoints
    return dict(endpoint.counts.ways)


def uses(gateway: InProcess, model: str) -> list[Use]:
    return gateway.do(lambda: [region.use for region in sharing(gateway, model).regions])


def ours(pid: int = 0) -> set[str]:
    """Of that process; what it only tries a server with is smaller."""
    found = set()
    for path in SHM.glob(f"{PREFIX}{pid or os.getpid()}-*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size >= LEAST_BYTES:
                found.add(path.name)
    return found


def registered(server: TritonServer) -> set[str]:
    with triton.InferenceServerClient(server.url) as theirs:
        return {name for name in theirs.get_system_shared_memory_status().regions if name.startswith(PREFIX)}


def metrics(gateway: GatewayProcess) -> str:
    with urllib.request.urlopen(f"{gateway.control_url}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


# --- answers


def test_large_tensors_go_by_shared_memory_and_come_back_bit_for_bit(gateway: InProcess, client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: is_right(client, "late", rows(1 + n % 4, n)), range(40)))
    assert set(ways(gateway, "late")) == {"shared_memory"}
    assert is_right(client, "sent", rows(2))
    assert ways(gateway, "sent") == {"message": 1}
    for n in (100, 1_000_000):  # its output has no fixed size, so only the input goes this way, and a small one neither
        values = np.random.default_rng(n).random((1, n), np.float32)
        answer = arrays(client.send(request("wide", {"input": values})))["output"]
        np.testing.assert_array_equal(answer, 2 * values)
    assert ways(gateway, "wide") == {"message": 1, "shared_memory": 1}
    pool_of = sharing(gateway, "late").regions
    assert 0 < pool_of.used_bytes <= pool_of.limit_bytes


def test_more_than_the_limit_is_sent(gateway: InProcess, client: Client) -> None:
    sizes = [1, 1, 4, 1, 2, 1, 4, 3, 1, 1] * 4  # 4 rows need 1.28 MB, one 320 kB
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: is_right(client, "tight", rows(sizes[n], n)), range(len(sizes))))
    assert is_right(client, "tight", rows(4))
    assert ways(gateway, "tight")["message"] > 0
    regions = sharing(gateway, "tight").regions
    assert regions.used_bytes <= regions.limit_bytes
    eventually(
        lambda: is_right(client, "tight", rows(1)) and ways(gateway, "tight").get("shared_memory"), "one row fits"
    )


# --- requests that were given up


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_model_that_writes_late_writes_into_nobody_elses_memory(
    how: str, gateway: InProcess, client: Client, server: TritonServer
) -> None:
    held, remote = sharing(gateway, "late"), gateway.loader.remotes["late", "1"]

    def is_settled() -> bool:
        gateway.do(held._take_back)
        return uses(gateway, "late") == [Use.FREE]

    for turn in range(8):  # until the model has begun before the deadline, however slow the machine is
        number = 1 + turn + 100 * ["deadline", "cancel"].index(how)
        there, go = (server.repository / "late" / f"{number}.{word}" for word in ("there", "go"))
        assert is_right(client, "late", rows(2))  # leaves a region of two rows, which one of one row then gets
        eventually(is_settled, "there is that region and no other", 40)
        abandoned = rows(1)
        abandoned[0, 0] = -number
        wish = {"timeout": 0.5 * 2**turn} if how == "deadline" else {}
        call = client.start(request("late", {"x": abandoned}), **wish)
        eventually(lambda: there.exists() or call.done(), "the model has begun", 100)  # noqa: B023
        if there.exists():
            break
        go.touch()
    if how == "cancel":
        call.cancel()
    else:
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: uses(gateway, "late") == [Use.RETIRED], "nobody gets its region any more")
    assert ours() == set()
    before = ways(gateway, "late")["shared_memory"]
    with ThreadPoolExecutor(1) as pool:
        # Behind it: where its late answer goes, in the region that it had, the second of these rows would lie.
        after = pool.submit(is_right, client, "late", rows(2, 7))
        (endpoint,) = remote.fleet.endpoints
        eventually(lambda: endpoint.counts.ways["shared_memory"] == before + 1, "it is on its way")
        assert Use.RETIRED in uses(gateway, "late")
        go.touch()
        assert after.result()
    assert all(is_right(client, "late", rows(1 + n % 4, n)) for n in range(6))
    eventually(lambda: Use.RETIRED not in uses(gateway, "late"), "the server let go of it, and it counts no more")


# --- servers that forget, die, and see other memory


def test_a_server_that_forgot_its_regions_gets_messages_and_then_new_ones(
    gateway: InProcess, client: Client, server: TritonServer
) -> None:
    assert is_right(client, "late", rows(1))
    with triton.InferenceServerClient(server.url) as theirs:
        theirs.unregister_system_shared_memory()
    assert is_right(client, "late", rows(1, 2))
    assert ways(gateway, "late") == {"shared_memory": 2, "message": 1}
    assert is_right(client, "late", rows(1, 3))
    assert ways(gateway, "late") == {"shared_memory": 3, "message": 1}


def test_a_server_that_writes_elsewhere_is_not_believed(
    gateway: InProcess, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "memory", property(lambda lease: bytearray(lease.region.size)))
    assert all(is_right(client, "late", rows(2, n)) for n in range(3))
    assert ways(gateway, "late") == {"shared_memory": 1, "message": 3}
    (member,) = gateway.loader.remotes["late", "1"]._members.values()
    assert member.home
    assert "not in the shared memory" in member.home.reason


def test_a_server_that_was_killed_gets_new_regions_when_it_is_back(tmp_path: Path) -> None:
    store(tmp_path / "repository", MODELS[0])
    with TritonServer(tmp_path / "repository", tmp_path / "own") as own:
        put(tmp_path / "models", "late", own.url, ", shared_memory: on")
        with serving(tmp_path / "models") as gateway, connect(gateway.url) as channel:
            client, entry = Client(channel), gateway.catalog.versions("late")[0]
            assert is_right(client, "late", rows(2))
            before = ours()
            assert before == registered(own) != set()
            own.kill()
            eventually(lambda: not entry.is_ready, "it is seen to be gone")
            own.start()
            eventually(lambda: entry.is_ready, "it is seen to be back")
            assert all(is_right(client, "late", rows(2, n)) for n in range(5))
            assert set(ways(gateway, "late")) == {"shared_memory"}
            eventually(lambda: not before & ours(), "what the dead one knew is gone")
            assert ours() == registered(own)


def test_a_server_with_memory_of_its_own_is_found_out(tmp_path: Path) -> None:
    alone = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs alone /dev/shm && exec "$@"', "sh")
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces for this user")
    store(tmp_path / "repository", MODELS[0])
    with TritonServer(tmp_path / "repository", tmp_path / "own", under=alone) as own:
        put(tmp_path / "models", "late", own.url)
        put(tmp_path / "models", "late", own.url, ", shared_memory: on", "demanded")
        with serving(tmp_path / "models") as gateway, connect(gateway.url) as channel:
            assert is_right(Client(channel), "late", rows(2))
            assert ways(gateway, "late") == {"message": 1}
            entry = gateway.catalog.versions("demanded")[0]
            assert not entry.is_ready
            assert "triton.shared_memory is on, and Triton at" in entry.reason
            assert "it does not see the shared memory of this process" in entry.reason


def test_what_cannot_share_is_refused_when_it_is_demanded(server: TritonServer, tmp_path: Path) -> None:
    put(tmp_path, "late", f"{server.url}', '192.0.2.1:8001", ", shared_memory: on, connect_timeout: 100ms", "far")
    put(tmp_path, "late", server.url, ", shared_memory: on", "forwarded")
    file = tmp_path / "forwarded" / "model.yaml"
    file.write_text(file.read_text() + "batching: remote\n")
    with serving(tmp_path) as gateway:
        reasons = {model: gateway.catalog.versions(model)[0].reason for model in gateway.catalog.models()}
    assert "Triton at 192.0.2.1:8001 cannot: 192.0.2.1 is no address of this machine" in reasons["far"]
    assert "triton.shared_memory is on, and batching is remote" in reasons["forwarded"]


# --- workers that end


@pytest.mark.timeout(150)
def test_nothing_is_left_of_a_killed_worker_nor_of_the_gateway(server: TritonServer, tmp_path: Path) -> None:
    put(tmp_path / "models", "late", server.url, ", shared_memory: on")
    with GatewayProcess(tmp_path / "models", tmp_path / "log", "--workers", "2") as gateway:

        def both() -> list[int]:
            with connect(gateway.grpc_url) as channel:  # each connection is some worker's
                assert is_right(Client(channel), "late", rows(2))
            return sorted(pid for pid in gateway.workers() if ours(pid))

        killed, other = eventually(lambda: len(found := both()) == 2 and found, "both workers have regions", 40)
        left = ours(killed)
        assert left <= registered(server)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: not ours(killed), "its files are swept", 40)
        eventually(lambda: not left & registered(server), "its regions are forgotten", 40)
        assert len(eventually(lambda: len(found := both()) == 2 and found, "the new one has regions", 40)) == 2
        assert ours(other) <= registered(server)
        labels = f'endpoint="{server.url}",model="late",version="1",way="shared_memory"'
        eventually(lambda: f"gateway_endpoint_sent_total{{{labels}}}" in metrics(gateway), "it is told")
        pids = gateway.workers()
        gateway.stop()
    assert not [name for pid in (*pids, killed) for name in ours(pid)]
    assert registered(server) == set()
