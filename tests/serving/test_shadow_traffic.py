"""Real clients on real sockets, with a shadow that is slow, failing, shaped otherwise or hung: they notice nothing, and
what became of the shadow is told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest

from gateway.config.shadows import Shadowing
from gateway.native.lane import Lane
from gateway.routing.shadowreport import merged, rates
from gateway.serving.shadows import Shadows
from tests.support import onnxmodels
from tests.support.conditions import OverTooEarly, eventually, lasting, set_up_anew
from tests.support.h2client import RawClient, framed
from tests.support.inprocess import InProcess, serving
from tests.support.oip import INFER, STREAM_INFER, connect, request
from tests.support.onnxmodels import build, node, store, tensor
from tests.support.rest import RestClient, binary_body
from tests.support.servedmodels import patient, row

N = 60
SHADOWED = {"versions": {"1": 100}, "shadows": [{"version": "2", "max_concurrency": 1000}]}
PLAIN = {"versions": {"1": 100}}


def scaled(by: float, shape: tuple[Any, ...] = ("N", 4)) -> bytes:
    return build(
        [node("Mul", ["x", "by"], ["y"])], [tensor("x")], [tensor("y", shape=shape)], {"by": np.float32(by).reshape(1)}
    )


def failing() -> bytes:
    """Looks every row up in a table that it is not in, whatever comes."""
    return build(
        [
            node("Cast", ["x"], ["index"], to=onnxmodels.ELEMENTS["INT64"]),
            node("Add", ["index", "far"], ["beyond"]),
            node("Gather", ["table", "beyond"], ["y"]),
        ],
        [tensor("x")],
        [tensor("y")],
        {"far": np.array(1_000_000, np.int64), "table": np.ones(3, np.float32)},
    )


def wide() -> bytes:
    """Every number twice."""
    return build(
        [node("Concat", ["x", "x"], ["y"], axis=1)],
        [tensor("x")],
        [tensor("y", shape=("N", 8))],
    )


class Gateway:
    """A gateway with models m/1 and m/2, and what its shadows tell."""

    def __init__(self, inner: InProcess) -> None:
        self.inner = inner
        # A shadow has the lowest priority: on a busy machine its turn may come late, and where it counts it may.
        self.shadows = inner.do(lambda: Shadows(inner.hub, Shadowing(least_time_s=60)))
        self.generation = 0
        self._reports: dict[tuple[str, str, str, str], dict[str, Any]] = {}

    def route(self, document: dict[str, Any]) -> None:
        self.generation += 1
        assert self.inner.route({"m": document}, self.generation) == {}

    def lane(self, version: str) -> Lane:
        return self.inner.loader.lanes["m", version]

    def counts(self) -> Any:
        return self.inner.do(self.shadows.counts)["m", "2"]

    def concluded(self) -> Any:
        """Waits until every request drawn has come to something."""

        def all_told() -> Any:
            open_now = self.inner.do(lambda: [stats.n_open for stats in self.inner.hub.mirror.stats.values()])
            return not any(open_now)

        eventually(all_told, "every pair is concluded")
        return self.counts()

    def reports(self, kind: str) -> list[dict[str, Any]]:
        for report in self.inner.do(self.shadows.read):
            self._reports[report.kind, report.model, report.version, report.key] = orjson.loads(report.body)
        return [body for key, body in self._reports.items() if key[0] == kind]


@contextmanager
def gateway_with(root: Path, first: bytes, second: bytes, settings: str | None = None) -> Iterator[Gateway]:
    store(root, "m", 1, first, settings)
    store(root, "m", 2, second, settings)
    with serving(root) as inner:
        gateway = Gateway(inner)
        try:
            yield gateway
        finally:
            gateway.shadows.close()


def ask_all(url: str, rows: list[Any] | None = None) -> list[Any]:
    """(bytes of the answer, or code and text) of N different requests at once."""
    rows = rows or [{"x": np.full((1 + i % 3, 4), i, np.float32)} for i in range(N)]
    with connect(url) as channel:
        call = channel.unary_unary(INFER)
        futures = [
            call.future(request("m", row, id=f"r{i}").SerializeToString(), timeout=20) for i, row in enumerate(rows)
        ]
        return [outcome(future) for future in futures]


def outcome(future: Any) -> Any:
    error = future.exception()
    return (error.code(), error.details()) if error else future.result()


@pytest.fixture
def plain(tmp_path: Path) -> Callable[..., Any]:
    return lambda second: gateway_with(tmp_path, scaled(2), second)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (scaled(2), {"agreement": 1.0, "exact": 1.0}),
        (scaled(2.5), {"agreement": 1 / N, "exact": 1 / N}),  # zero is zero
        (scaled(float("nan")), {"agreement": 0.0}),
        (wide(), {"agreement": 0.0}),
    ],
    ids=["alike", "other", "nan", "wide"],
)
def test_answers_are_byte_for_byte_the_same_with_any_shadow(plain: Any, second: bytes, told: dict[str, float]) -> None:
    with plain(second) as gateway:
        gateway.route(PLAIN)
        expected = ask_all(gateway.inner.url)
        gateway.route(SHADOWED)
        assert ask_all(gateway.inner.url) == expected
        counts = gateway.concluded()
        assert (counts.drawn, counts.compared, counts.dropped) == (N, N, {})
        (pairs,) = gateway.reports("pair")
        assert pairs["counts"]["both_answered"] == N
        assert {name: rates(pairs)[name] for name in told} == pytest.approx(told)


def test_a_shadow_that_fails_on_everything_is_no_ones_trouble(plain: Any) -> None:
    with plain(failing()) as gateway:
        gateway.route(PLAIN)
        expected = ask_all(gateway.inner.url)
        gateway.route(SHADOWED)
        assert ask_all(gateway.inner.url) == expected
        counts = gateway.concluded()
        assert counts.failed + sum(counts.dropped.values()) == N
        assert counts.failed >= 16
        (told,) = gateway.reports("disagreement")
        assert {sample["shadow_code"] for sample in told["recent"]} <= {"INTERNAL", "INVALID_ARGUMENT"}


def test_a_shadow_that_takes_other_inputs_is_a_misfit(plain: Any) -> None:
    second = build([node("Identity", ["z"], ["y"])], [tensor("z")], [tensor("y")])
    with plain(second) as gateway:
        gateway.route(PLAIN)
        expected = ask_all(gateway.inner.url)
        gateway.route(SHADOWED)
        assert ask_all(gateway.inner.url) == expected
        dropped = gateway.concluded().dropped
        assert set(dropped) <= {"misfit", "failing"}
        assert sum(dropped.values()) == N


def test_a_shadow_that_hangs_holds_up_nobody(plain: Any) -> None:
    """Its thread is stuck inside the model; the loop, the primary and the other pairs go on."""
    with plain(scaled(2)) as gateway:
        gateway.route(PLAIN)
        expected = ask_all(gateway.inner.url)
        release = threading.Event()
        inner = gateway.inner

        def hang(inputs: Any) -> Any:
            release.wait(30)
            return [inputs[0] * 2]

        (held,) = [held for entry, held in inner.loader._holdings.items() if entry.version == "2"]
        held.backend._call = hang
        inner.hub.mirror.least_time_us = 100_000
        gateway.route(SHADOWED)
        try:
            assert ask_all(inner.url) == expected
            late = eventually(
                lambda: sum(gateway.counts().dropped.values()) == N and gateway.counts().dropped, "all late"
            )
            assert set(late) == {"late_running", "late_queued"}
            assert ask_all(inner.url) == expected, "and once more, with the thread still stuck"
        finally:
            release.set()
        eventually(lambda: inner.do(lambda: held.is_idle), "the stuck batch came back")


def test_a_slow_shadow_is_dropped_by_budget_and_the_primary_is_on_time(tmp_path: Path) -> None:
    rows = [row(i, 0) for i in range(N)]
    with gateway_with(tmp_path, patient(10), patient(40_000), "batching: {max_batch_size: 4}") as gateway:
        gateway.route(PLAIN)
        ask_all(gateway.inner.url, rows[:2])
        gateway.route({"versions": {"1": 100}, "shadows": [{"version": "2", "max_concurrency": 8}]})
        answers = ask_all(gateway.inner.url, rows)
        assert not [answer for answer in answers if isinstance(answer, tuple)]
        counts = gateway.concluded()
        assert counts.dropped["oldest"] > 0
        assert counts.compared + sum(counts.dropped.values()) == N
        (pairs,) = gateway.reports("pair")
        assert pairs["counts"]["shadow_slower"] > pairs["counts"]["both_answered"] / 2


def test_rest_and_streams_have_shadows_too(plain: Any) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    with plain(scaled(2.5)) as gateway:
        answers = []
        for document in (PLAIN, SHADOWED):
            gateway.route(document)
            body, headers = binary_body({"x": x}, id="over rest")
            with RestClient(gateway.inner.url) as client, connect(gateway.inner.url) as channel:
                found = [client.infer("m", body, **headers).body]
                stream = channel.stream_stream(STREAM_INFER)
                messages = [request("m", {"x": x + i}, id=f"s{i}").SerializeToString() for i in range(5)]
                found += list(stream(iter(messages), timeout=20))
            answers.append(found)
        assert answers[0] == answers[1]
        assert gateway.concluded().compared == 6
        (told,) = gateway.reports("disagreement")
        assert {sample["id"] for sample in told["recent"]} == {"over rest", *(f"s{i}" for i in range(5))}


@set_up_anew
def test_a_caller_who_disconnects_takes_the_shadow_along(tmp_path: Path) -> None:
    settings = "batching: {max_batch_size: 1, instances: 1}"
    with gateway_with(tmp_path, patient(lasting(40_000)), patient(10), settings) as gateway:
        gateway.route(SHADOWED)
        raw = RawClient(int(gateway.inner.url.rpartition(":")[2]))
        for _ in range(5):
            raw.send(raw.open(), framed(request("m", row(7)).SerializeToString()), end=True)
        raw.settle()
        raw.sock.close()
        counts = gateway.concluded()
        if counts.dropped.get("primary_gone", 0) < 3:
            raise OverTooEarly("most were answered before the caller left")
        eventually(lambda: gateway.inner.do(lambda: gateway.inner.hub.budget.used) == 0, "the bytes came back")


def test_large_answers_are_compared_in_a_thread(tmp_path: Path) -> None:
    first = build(
        [node("Identity", ["x"], ["y"])], [tensor("x", shape=("N", 20_000))], [tensor("y", shape=("N", 20_000))]
    )
    second = build(
        [node("Add", ["x", "one"], ["y"])],
        [tensor("x", shape=("N", 20_000))],
        [tensor("y", shape=("N", 20_000))],
        {"one": np.ones(1, np.float32)},
    )
    with gateway_with(tmp_path, first, second) as gateway:
        gateway.route(SHADOWED)
        rows = [{"x": np.full((1, 20_000), i, np.float32)} for i in range(20)]
        assert all(isinstance(answer, bytes) for answer in ask_all(gateway.inner.url, rows))
        counts = gateway.concluded()
        assert (counts.compared, counts.disagreed) == (20, 20)
        assert "compare" in {thread.name for thread in threading.enumerate()}
        (told,) = gateway.reports("disagreement")
        sample = told["worst"][0]
        assert sample["primary"][0]["is_cut"]
        assert sample["primary"][0]["summary"]["mean"] == pytest.approx(sample["shadow"][0]["summary"]["mean"] - 1)


def test_a_shadow_that_is_unloaded_while_it_works_is_seen_out(tmp_path: Path) -> None:
    with gateway_with(tmp_path, scaled(2), scaled(2)) as gateway:
        gateway.route(SHADOWED)
        inner = gateway.inner
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(lambda: [ask_all(inner.url) for _ in range(5)])
            for _ in range(3):
                inner.wait(inner.loader.load("m"))
            answers = asking.result()
        assert len({tuple(found) for found in answers}) == 1
        counts = gateway.concluded()
        assert counts.compared + sum(counts.dropped.values()) == counts.drawn == 5 * N


def test_a_stage_that_is_over_is_told_once_more_and_its_counters_stay(plain: Any) -> None:
    with plain(scaled(2.5)) as gateway:
        for _ in range(3):
            gateway.route(SHADOWED)
            ask_all(gateway.inner.url)
            gateway.concluded()
        counts = gateway.counts()
        assert (counts.drawn, counts.compared) == (3 * N, 3 * N)
        pairs = gateway.reports("pair")
        assert sorted(document["stage"] for document in pairs) == [1, 2, 3]
        assert gateway.inner.do(lambda: len(gateway.inner.hub.mirror.stats)) == 1
        total = merged(document["counts"] for document in pairs)
        assert total["both_answered"] == 3 * N
        assert gateway.counts() == counts


def test_what_has_not_changed_is_not_told_again(plain: Any) -> None:
    with plain(scaled(2.5)) as gateway:
        gateway.route(SHADOWED)
        ask_all(gateway.inner.url)
        gateway.concluded()
        assert {report.kind for report in gateway.inner.do(gateway.shadows.read)} == {"pair", "shadow", "disagreement"}
        assert gateway.inner.do(gateway.shadows.read) == []


def test_failures_of_the_primary_are_its_own(tmp_path: Path) -> None:
    rows = [row(i if i % 10 else 5000, 0) for i in range(N)]  # some are not in the table
    with gateway_with(tmp_path, patient(10), patient(10)) as gateway:
        gateway.route(PLAIN)
        expected = [answer for answer in ask_all(gateway.inner.url, rows) if isinstance(answer, tuple)]
        gateway.route(SHADOWED)
        got = [answer for answer in ask_all(gateway.inner.url, rows) if isinstance(answer, tuple)]
        assert [code for code, _ in got] == [code for code, _ in expected] == [grpc.StatusCode.INVALID_ARGUMENT] * 6
        gateway.concluded()
        (pairs,) = gateway.reports("pair")
        assert pairs["counts"]["both_failed"] == 6
