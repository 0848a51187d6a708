"""Two workers before two real servers: both send there, agree on where a sequence is, and die and come back alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bench.fleet.load import Load
from bench.fleet.world import doubling
from demo.triton import wheel
from gateway import pb
from gateway.errors import Code
from tests.support import oip
from tests.support.conditions import eventually
from tests.support.gatewayprocess import GatewayProcess
from tests.support.h2client import RawClient
from tests.support.triton import TritonServer, models, serve_remotely, together

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(wheel.why_not()), reason=wheel.why_not()),
]

IN_FLIGHT = 12
ROWS = np.arange(32, dtype=np.float32).reshape(2, 16)


class Fleet:
    """`double` and `total` on both; of `moved` the gateway runs version 1 itself, and they version 2."""

    def __init__(self, folder: Path) -> None:
        self.servers = together(
            TritonServer(models(folder / name / "models", "double", "total"), folder / name) for name in ("a", "b")
        )
        self.a, self.b = self.servers
        root, urls = folder / "models", [server.url for server in self.servers]
        serve_remotely(root, "double", urls)
        serve_remotely(root, "total", urls)
        for version in "12":
            (root / "moved" / version).mkdir(parents=True)
        (root / "moved" / "1" / "model.onnx").write_bytes(doubling())
        there = {"endpoints": urls, "model": "double", "version": "1"}
        (root / "moved" / "2" / "triton.yaml").write_text(yaml.safe_dump(there))
        try:
            self.gateway = GatewayProcess(root, folder / "gateway", "--workers", "2")
        except BaseException:
            self.close_servers()
            raise

    def close(self) -> None:
        try:
            self.gateway.stop()
        finally:
            self.close_servers()

    def close_servers(self) -> None:
        for server in self.servers:
            server.close()

    def clients(self, ending: ExitStack) -> list[RawClient]:
        """One for each worker."""
        found: dict[int, RawClient] = {}
        while len(found) < 2:
            client = ending.enter_context(RawClient(self.gateway.port))
            client.settle()
            worker = eventually(lambda: self.gateway.worker_of(client.sock), "somebody has taken it")  # noqa: B023
            found.setdefault(worker, client)
        return [*found.values()]

    def attempts(self, model: str, version: str = "1") -> dict[str, int]:
        """By outcome, over both servers and all workers."""
        found: dict[str, int] = {}
        for (name, *labels), value in self.gateway.metrics().items():
            if name == "gateway_endpoint_attempts_total" and (labels[1], labels[3]) == (model, version):
                found[labels[2]] = found.get(labels[2], 0) + int(value)
        return found

    def states(self, model: str, version: str = "1") -> dict[tuple[str, str], int]:
        """In how many workers a server is in a state."""
        return {
            (labels[0], labels[2]): int(value)
            for (name, *labels), value in self.gateway.metrics().items()
            if name == "gateway_endpoint_state" and (labels[1], labels[3]) == (model, version) and value
        }

    def all_asked(self, model: str) -> bool:
        """Each server may be asked by each worker: what is on probation is ready when somebody asks."""
        counts = dict.fromkeys((server.url for server in self.servers), 0)
        for (url, state), n in self.states(model).items():
            counts[url] += n if state in ("ready", "probation") else 0
        return set(counts.values()) == {2}

    def undisturbed(self, model: str, work: Callable[[], None]) -> None:
        """Both workers have both servers while it is done: a machine that stands still for seconds makes them doubt."""
        said = "Triton server is not asked as before"
        while True:
            eventually(lambda: self.all_asked(model), "both workers know both servers", 30)
            before = len(self.gateway.events(said))
            try:
                work()
            except AssertionError:
                if len(self.gateway.events(said)) == before:
                    raise
            else:
                return


def answered(server: TritonServer, model: str) -> int:
    """Requests, by its own count."""
    with oip.connect(server.url) as channel:
        request = pb.inference.ModelStatisticsRequest(name=model)
        (found,) = oip.Client(channel).unary("ModelStatistics")(request, timeout=20).model_stats
        return int(found.inference_stats.success.count)


def infer(client: RawClient, message: Any) -> dict[str, Any]:
    """Over the connection of one worker. AssertionError with the refusal."""
    answer = client.call(message.SerializeToString())
    assert answer.status == 0, f"{Code(answer.status).name}: {answer.message}"
    return oip.arrays(pb.inference.ModelInferResponse.FromString(answer.data[5:]))


def step(client: RawClient, key: int, value: int, **parameters: bool) -> int:
    inputs = {"value": np.array([[value]], np.int32)}
    message = oip.request("total", inputs, parameters={"sequence_id": key, **parameters})
    return int(infer(client, message)["total"][0, 0])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("workers"))
    yield fleet
    fleet.close()


def test_both_workers_send_to_both_servers_and_what_they_sent_is_added_up(fleet: Fleet) -> None:
    eventually(lambda: fleet.all_asked("double"), "both workers know both servers", 30)
    before, theirs = fleet.attempts("double"), [answered(server, "double") for server in fleet.servers]
    with ExitStack() as ending:
        for client in fleet.clients(ending):
            seen: set[TritonServer] = set()
            while len(seen) < 2:  # one request at a time, so that each is a batch of its own
                counts = [answered(server, "double") for server in fleet.servers]
                np.testing.assert_array_equal(infer(client, oip.request("double", {"input": ROWS}))["output"], 2 * ROWS)
                seen |= {
                    server
                    for server, count in zip(fleet.servers, counts, strict=True)
                    if answered(server, "double") > count
                }
    sent = sum(answered(server, "double") for server in fleet.servers) - sum(theirs)

    def counted() -> dict[str, int]:
        return {outcome: n - before.get(outcome, 0) for outcome, n in fleet.attempts("double").items()}

    eventually(lambda: counted()["ok"] == sent, "as many as the servers have answered")
    assert sum(counted().values()) == sent


def test_workers_agree_on_where_a_sequence_is(fleet: Fleet) -> None:
    """A step that another worker would send to the other server would be refused there, or begin at nought."""
    keys = range(1, 31)
    with ExitStack() as ending:
        one, other = fleet.clients(ending)

        def work() -> None:
            for key in keys:
                assert step(one, key, key, sequence_start=True) == key
            for key in keys:
                assert step(other, key, 10) == key + 10
                assert step(one, key, 100) == key + 110
            for key in keys:
                assert step(other, key, 1000, sequence_end=True) == key + 1110

        fleet.undisturbed("total", work)
    assert all(answered(server, "total") >= 4 for server in fleet.servers)


def test_when_a_server_dies_each_worker_says_which_sequences_are_gone(fleet: Fleet) -> None:
    keys = range(101, 131)
    with ExitStack() as ending:
        one, other = fleet.clients(ending)

        def begin() -> None:
            for key in keys:
                step(one, key, 1, sequence_start=True)
                step(other, key, 1)

        fleet.undisturbed("total", begin)
        fleet.b.kill()
        told: dict[RawClient, dict[int, str]] = {one: {}, other: {}}
        for client, words in told.items():
            for key in keys:
                try:
                    assert step(client, key, 1) == (3 if client is one else 4)
                except AssertionError as refusal:
                    words[key] = str(refusal)
        assert set(told[one]) == set(told[other])
        assert 0 < len(told[one]) < len(keys)
        assert {text.split(":")[0] for words in told.values() for text in words.values()} <= {"ABORTED", "UNAVAILABLE"}
        fleet.b.start()
        before = answered(fleet.b, "total")
        number = iter(range(1000, 100_000))

        def begun_there() -> bool:
            key = next(number)
            for client in (one, other):
                step(client, key, 1, sequence_start=True, sequence_end=True)
            return answered(fleet.b, "total") > before and fleet.states("total").get((fleet.b.url, "ready")) == 2

        eventually(begun_there, "it gets new sequences, and both workers trust it again", 30)


def test_kill_9_of_a_server_and_of_a_worker_under_load(fleet: Fleet) -> None:
    eventually(lambda: len(fleet.gateway.workers()) == 2, "both workers are there", 30)
    with Load(fleet.gateway.grpc_url, "double", in_flight=IN_FLIGHT) as load:
        load.wait_more(100)
        fleet.b.kill()
        load.wait_more(200)
        assert load.counts.refused == {}
        attempts = sum(fleet.attempts("double").values())
        dies, stays = fleet.gateway.workers()
        os.kill(dies, signal.SIGKILL)
        load.wait_more(200)
        fleet.b.start()
        back = eventually(
            lambda: [pid for pid in fleet.gateway.workers() if pid not in (dies, stays)], "one is back", 30
        )
        assert back
        load.wait_more(200)
        eventually(lambda: fleet.all_asked("double"), "both servers are asked by both workers", 30)
    counts = load.counts
    assert counts.wrong == 0
    assert counts.sent == counts.right + counts.n_refused
    assert counts.n_refused <= IN_FLIGHT, counts.refused
    assert all(text.startswith("UNAVAILABLE") for text in counts.refused)
    assert sum(fleet.attempts("double").values()) >= attempts, "what the dead worker had sent is not forgotten"


def test_with_all_servers_dead_the_version_of_this_process_answers_until_they_are_back(fleet: Fleet) -> None:
    """Three in flight, as many as a fallback always takes over at once: of more, some may be refused as they die."""
    control = fleet.gateway.wait_routed("moved")
    route = {
        "versions": {"2": 100},
        "fallback": {"version": "1", "on": ["error", "circuit_open", "timeout"]},
        "circuit": {"failures": 5, "open_for": "100ms"},
    }
    status, body = control.put_route("moved", route)
    assert status == 200, body

    def by(version: str) -> bool:
        """Who answers now, by what the answer says."""
        answer = client.send(oip.request("moved", {"input": ROWS}))
        np.testing.assert_array_equal(oip.arrays(answer)["output"], 2 * ROWS)
        fell_back = answer.parameters["gateway_fallback_from"].string_param == "2"
        assert fell_back == (answer.model_version == "1")
        return bool(answer.model_version == version)

    with oip.connect(fleet.gateway.grpc_url) as channel, Load(fleet.gateway.grpc_url, "moved", in_flight=2) as load:
        client = oip.Client(channel)
        eventually(lambda: by("2"), "the servers answer")
        load.wait_more(50)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda server: server.kill(), fleet.servers))
        load.wait_more(100)
        eventually(lambda: by("1"), "this process answers")

        def says_why() -> bool:
            state, reason = client.index()["moved", "2"]
            return state == "UNAVAILABLE" and all(server.url in reason for server in fleet.servers)

        eventually(says_why, "the version says what is the matter with each")
        together(fleet.servers)
        eventually(lambda: by("2"), "the servers answer again", 30)
        load.wait_more(100)
    assert load.counts.wrong == 0
    assert load.counts.refused == {}
    assert load.counts.sent == load.counts.right
