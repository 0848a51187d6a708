"""Requests that run together: who joins whom, what is split, and that each caller still gets its own rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Serve
from tests.support import reference
from tests.support.conditions import set_up_anew, still_held
from tests.support.oip import Client, arrays, connect, request
from tests.support.onnxmodels import store
from tests.support.reference import assert_close, assert_same
from tests.support.servedmodels import patient, row, runs

BUSY_TURNS = 300_000
"""Holds the only executor for some 0.5 s: what comes meanwhile waits in the queue and forms one batch."""


@pytest.fixture(scope="module")
def own(serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client of a server whose models have one executor each and tell who ran together."""
    root = tmp_path_factory.mktemp("batches")
    store(root, "patient", 1, patient(), "batching: {max_batch_size: 4, instances: 1, linger: false}")
    store(root, "ragged", 1, patient(is_ragged=True), "batching: {max_batch_size: 16, instances: 1, linger: false}")
    return Client(connect(serve_for_module(root).grpc_url))


@set_up_anew
def test_requests_that_wait_together_run_together(own: Client) -> None:
    busy = own.hold("patient", row(0, BUSY_TURNS))
    mates = [own.start(request("patient", row(index))) for index in (1, 2, 3)]
    own.settle()
    still_held(busy)
    answers = [arrays(future.result()) for future in (busy, *mates)]
    assert [answer["y"].tolist() for answer in answers] == [[0], [1], [2], [3]]
    found = [runs(answer)[0] for answer in answers]
    assert found[1] == found[2] == found[3] != found[0]


@set_up_anew
def test_a_batch_ends_at_the_cap_and_keeps_the_order_of_arrival(own: Client) -> None:
    busy = own.hold("patient", row(0, BUSY_TURNS))
    mates = [own.start(request("patient", row([10 * i, 10 * i + 1]))) for i in range(1, 6)]
    own.settle()
    still_held(busy)
    answers = [arrays(future.result()) for future in mates]
    busy.result()
    assert [answer["y"].tolist() for answer in answers] == [[10 * i, 10 * i + 1] for i in range(1, 6)]
    found = [runs(answer)[0] for answer in answers]
    assert found[0] == found[1] != found[2] == found[3] != found[4]


def test_a_request_larger_than_the_cap_is_split_and_comes_back_in_order(own: Client) -> None:
    answer = own.infer("patient", row(range(11)))
    assert answer["y"].tolist() == list(range(11))
    found = runs(answer)
    assert [found[0]] * 4 + [found[4]] * 4 + [found[8]] * 3 == found
    assert len(set(found)) == 3


@set_up_anew
def test_rows_of_neighbours_stay_apart_when_a_large_request_is_split_among_them(own: Client) -> None:
    busy = own.hold("patient", row(999, BUSY_TURNS))
    wanted = [[1], list(range(100, 109)), [2, 3], list(range(200, 205)), [4]]
    futures = [own.start(request("patient", row(indexes))) for indexes in wanted]
    own.settle()
    still_held(busy)
    assert [arrays(future.result())["y"].tolist() for future in futures] == wanted
    busy.result()


@set_up_anew
def test_different_shapes_never_join_and_each_answer_is_right(own: Client) -> None:
    def ragged(index: int, length: int) -> dict[str, np.ndarray]:
        return {**row(index), "x": np.full((1, length), index, np.float32)}

    busy = own.hold("ragged", {**row(0, BUSY_TURNS), "x": np.zeros((1, 1), np.float32)})
    lengths = [2, 3, 2, 5, 3, 2, 0]
    futures = [own.start(request("ragged", ragged(i, length))) for i, length in enumerate(lengths)]
    own.settle()
    still_held(busy)
    answers = [arrays(future.result()) for future in futures]
    busy.result()
    assert [answer["y"].tolist() for answer in answers] == [[i + i * length] for i, length in enumerate(lengths)]
    found: dict[int, set[float]] = {}
    for length, answer in zip(lengths, answers, strict=True):
        found.setdefault(length, set()).update(runs(answer))
    assert {length: len(some) for length, some in found.items()} == {2: 1, 3: 1, 5: 1, 0: 1}
    assert len(set.union(*found.values())) == 4


def test_a_split_request_answers_as_onnx_runtime_does(client: Client, served_models: Path) -> None:
    x = np.random.default_rng(1).normal(size=(1003, 4)).astype(np.float32)
    got = client.infer("linear_of_8", {"x": x})
    assert_close(got, reference.answer(served_models, "linear_of_8", {"x": x}))


def test_a_split_request_of_text_keeps_every_word(client: Client) -> None:
    x = np.array([[f"{i}", "ü" * (i % 7)] for i in range(1000)], object)
    assert_same(client.infer("identity_bytes", {"x": x}), {"y": x})


def test_mixed_lengths_from_many_callers_are_each_answered_right(client: Client, served_models: Path) -> None:
    random = np.random.default_rng(2)
    inputs = [random.normal(size=(1 + i % 3, i % 7)).astype(np.float32) for i in range(200)]
    futures = [client.start(request("row_sums", {"x": x})) for x in inputs]
    for x, future in zip(inputs, futures, strict=True):
        assert_close(arrays(future.result()), reference.answer(served_models, "row_sums", {"x": x}))
