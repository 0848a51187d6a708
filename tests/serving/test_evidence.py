"""What a worker tells of two versions under comparison, and what it does by itself about one that harms everybody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from gateway.control.evidence import Told
from gateway.native.scales import DRAWN, FAILED, LATENCY
from gateway.rollout.room import Room
from gateway.serving.evidence import ALIVE_S, EVERY_S, IDLE_S, KEEP_S, KIND, Evidence, blamed
from gateway.store.records import Report
from tests.support.conditions import eventually
from tests.support.control import put, times
from tests.support.inprocess import InProcess, serving
from tests.support.onnxmodels import build, node, tensor
from tests.support.weighed import Weighed, split

MANY = 100
"""Requests of which half are drawn for a candidate that breaks: too few to blame it only once in 10^13. Of 40 they were
so once in 900.
"""


def of_one_mind() -> bytes:
    """The same answer to everybody."""
    return build(
        [node("Mul", ["x", "zero"], ["nothing"]), node("Add", ["nothing", "one"], ["y"])],
        [tensor("x", shape=("N", 4))],
        [tensor("y", shape=("N", 4))],
        {"zero": np.float32(0), "one": np.float32(1)},
    )


def breaking() -> bytes:
    """NaN for everybody: 0 / 0."""
    return build(
        [node("Mul", ["x", "zero"], ["nothing"]), node("Div", ["nothing", "nothing"], ["y"])],
        [tensor("x", shape=("N", 4))],
        [tensor("y", shape=("N", 4))],
        {"zero": np.float32(0)},
    )


def refusing() -> bytes:
    """No entry of the table is the one that it looks for."""
    return build(
        [
            node("Cast", ["x"], ["place"], to=7),
            node("Add", ["place", "far"], ["index"]),
            node("Gather", ["t", "index"], ["y"]),
        ],
        [tensor("x", shape=("N", 4))],
        [tensor("y", shape=("N", 4))],
        {"t": np.ones(3, np.float32), "far": np.array([100], np.int64)},
    )


@dataclass
class Compared:
    """A gateway: version 1 is good, 2 to 4 are not, 5 is like 1. With its evidence, by a clock that a test moves."""

    gateway: InProcess
    evidence: Evidence
    client: triton.InferenceServerClient
    passed_s: float = 0.0
    told: dict[str, Told] = field(default_factory=dict)

    def ask(self, n: int) -> list[str]:
        """The versions that answered; "" for each failure."""
        found = []
        for number in range(n):
            x = triton.InferInput("x", [1, 4], "FP32")
            x.set_data_from_numpy(np.full((1, 4), number % 97 + 0.5, np.float32))
            try:
                found.append(self.client.infer("m", [x]).get_response().model_version)
            except InferenceServerException:
                found.append("")
        return found

    def route(self, candidate: str, percent: float, generation: int, **more: Any) -> None:
        document = split(percent, **more)
        document["versions"][1]["version"] = candidate
        self.gateway.route({"m": document}, generation)

    def read(self) -> list[Report]:
        reports: list[Report] = self.gateway.do(self.evidence.read)
        self.told |= {report.key: Told.of(report) for report in reports}
        return reports

    def react(self) -> None:
        self.gateway.do(lambda: self.evidence.react(int(self.evidence.clock() * 1e6)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for version, content in enumerate([times(1), of_one_mind(), breaking(), refusing(), times(1)], 1):
        put(root, "m", version, content)
    return root


@pytest.fixture
def compared(models: Path) -> Iterator[Compared]:
    with serving(models) as gateway, triton.InferenceServerClient(gateway.url) as client:
        evidence = Evidence(gateway.routing, gateway.hub.mirror, lambda: gateway.loader.lanes)
        found = Compared(gateway, evidence, client)
        real = evidence.clock
        evidence.clock = lambda: real() + found.passed_s
        yield found


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [("2", "requests got the same answer"), ("3", "broken answers to"), ("4", "failures in a row")],
)
def test_a_candidate_that_harms_everybody_loses_its_weight_at_once(
    compared: Compared, candidate: str, reason: str
) -> None:
    compared.route(candidate, 50, 7)
    compared.ask(300)
    compared.react()
    assert compared.ask(50) == ["1"] * 50
    compared.read()
    assert reason in compared.told["7"].lowered
    compared.route("5", 50, 8)  # what it says now holds
    assert "5" in compared.ask(50)


def test_weight_that_was_taken_stays_taken_while_the_same_generation_is_in_force(compared: Compared) -> None:
    compared.route("3", 50, 7)
    compared.ask(MANY)
    compared.react()
    compared.route("3", 50, 7)
    compared.gateway.do(lambda: compared.gateway.routing.publish(compared.gateway.routing._models))
    assert set(compared.ask(40)) == {"1"}


def test_a_candidate_like_stable_keeps_its_weight(compared: Compared) -> None:
    compared.route("5", 50, 7)
    for _ in range(5):
        compared.ask(100)
        compared.react()
    assert set(compared.ask(50)) == {"1", "5"}
    assert compared.gateway.routing.lowered == {}


def test_a_split_that_names_no_arms_is_counted_and_left_to_its_operator(compared: Compared) -> None:
    compared.gateway.route({"m": {"versions": {"1": 50, "3": 50}}}, 7)
    compared.ask(60)
    compared.react()
    assert set(compared.ask(40)) == {"1", "3"}
    compared.read()
    assert compared.told["7"].facts("candidate")["broken"] > 3


def test_weight_is_not_given_to_a_stable_version_that_does_not_serve(compared: Compared) -> None:
    compared.route("3", 50, 7)
    compared.ask(MANY)
    compared.gateway.wait(compared.gateway.loader.unload_version("m", "1"))
    compared.react()
    assert compared.gateway.routing.lowered == {}
    assert "3" in compared.ask(40)


def test_both_arms_are_told_with_what_came_of_them(compared: Compared) -> None:
    compared.route("4", 50, 7)
    answers = compared.ask(200)
    compared.passed_s += 1.0
    compared.read()
    told = compared.told["7"]
    assert told.counts is not None
    stable, candidate = told.counts
    assert (stable[DRAWN], stable[FAILED]) == (answers.count("1"), 0)
    assert (candidate[DRAWN], candidate[FAILED]) == (answers.count(""), answers.count(""))
    assert stable[LATENCY].sum() == answers.count("1")
    assert told.head["columns"] == [["y[0]", "y[1]", "y[2]", "y[3]"], None]
    assert told.open == (0, 0)


def test_a_source_is_in_a_hurry_only_while_somebody_is_compared(compared: Compared) -> None:
    evidence, gateway = compared.evidence, compared.gateway
    gateway.do(evidence.start)
    assert (evidence.every_s(), compared.read()) == (IDLE_S, [])
    compared.route("5", 50, 7)
    assert evidence.every_s() == EVERY_S
    assert [report.kind for report in compared.read()] == [KIND]
    assert compared.read() == []
    compared.passed_s += ALIVE_S
    assert len(compared.read()) == 1
    gateway.route({"m": {"versions": {"1": 100}}}, 8)
    compared.passed_s += 1.0
    compared.read()
    compared.passed_s += KEEP_S
    compared.read()
    assert (evidence.every_s(), compared.read()) == (IDLE_S, [])
    assert gateway.do(gateway.routing.arms.weighed) == []
    gateway.do(evidence.close)


def test_a_generation_that_is_over_is_told_while_it_has_requests_to_end() -> None:
    with Weighed() as harness:
        harness.serve()
        harness.route(split(100))
        harness.ask(n=2)
        passed_s = [harness.now_us / 1e6]
        routing = SimpleNamespace(arms=harness.book, routes={}, lowered={})
        evidence = Evidence(routing, harness.plane.mirror, clock=lambda: passed_s[0])  # type: ignore[arg-type]
        for _ in range(5):
            passed_s[0] += KEEP_S / 2
            (report,) = evidence.read()
        assert Told.of(report).open == (0, 2)
        harness.finish_all()
        told = []
        for _ in range(5):
            passed_s[0] += KEEP_S / 2
            told.append(len(evidence.read()))
        assert told[0] == 1
        assert told[-1] == 0
        assert harness.book.weighed() == []


def test_the_reflex_comes_by_itself(compared: Compared) -> None:
    compared.gateway.do(compared.evidence.start)
    compared.route("3", 50, 7)
    compared.ask(MANY)
    eventually(lambda: compared.gateway.routing.lowered, "the candidate has lost its weight")
    compared.gateway.do(compared.evidence.close)


def test_copies_are_told_pair_by_pair(compared: Compared) -> None:
    document = {"versions": [{"version": "1", "weight": 100, "arm": "stable"}], "shadows": [{"version": "3"}]}
    compared.gateway.route({"m": document}, 7)
    compared.ask(50)

    def told() -> bool:
        compared.passed_s += ALIVE_S
        compared.read()
        return compared.told["7"].shadow("3").get("answered", 0) >= 50

    eventually(told, "all pairs are told")
    shadow = compared.told["7"].shadow("3")
    assert (shadow["broken"], shadow["other"], shadow["failed"]) == (50, 50, 0)


@pytest.mark.parametrize(
    ("stable", "candidate", "text"),
    [
        ({}, {"broken": 2}, ""),
        ({}, {"broken": 13}, ""),  # once in 8192, by chance
        ({}, {"broken": 14}, "broken answers"),
        ({"broken": 1}, {"broken": 20}, ""),  # stable does it as well
        ({}, {"run": 12, "failed": 12}, "failures in a row"),
        ({"run": 3, "failed": 3}, {"run": 12, "failed": 12}, ""),  # both at once: somebody else's fault
        ({"failed": 900}, {"run": 12, "failed": 12}, ""),
        ({}, {"same": 99}, ""),
        ({"same": 30}, {"same": 149}, ""),
        ({"same": 30}, {"same": 150}, "same answer"),
    ],
)
def test_what_a_worker_blames_on_sight(stable: dict[str, int], candidate: dict[str, int], text: str) -> None:
    none = {"n": 1000, "failed": 0, "broken": 0, "run": 0, "same": 0}
    reason = blamed({**none, **stable}, {**none, **candidate})
    assert (text in reason) if text else reason == ""


def test_what_a_versions_executors_get_through_is_told_before_anybody_asked_it(compared: Compared) -> None:
    def rooms() -> dict[str, Room]:
        reports = compared.gateway.do(compared.evidence.read_costs)
        return {each.version: Room.from_body(each.body) for each in reports if each.kind == "room"}

    before = rooms()
    assert before.keys() == {"1", "2", "3", "5"}  # 4 refuses what it is warmed with
    assert all(room.executors >= 1 and room.run_us > 0.0 and room.n_requests == 0 for room in before.values())
    compared.route("5", 0, 7)
    compared.ask(20)
    after = rooms()
    assert (after["1"].n_requests, after["1"].n_rows) == (20, 20)
    assert rooms() == {}
