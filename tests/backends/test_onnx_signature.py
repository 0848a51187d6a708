"""What a model's signature says, above all whether requests may share a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from gateway.backends.base import DATATYPES, Backend, TensorSpec
from gateway.backends.onnx import UNMEASURED_ROWS, load
from gateway.config.model import Batching, ModelConfig
from tests.support import onnxmodels
from tests.support.onnxmodels import build, identity, node, tensor


def loaded(folder: Path, content: bytes, max_batch_size: int | str = "auto") -> Backend:
    settings = ModelConfig(batching=Batching(max_batch_size=max_batch_size))
    return load(onnxmodels.store(folder, "fraud", 3, content), settings)


def noise() -> bytes:
    """Adds random numbers: no run repeats."""
    return build([node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"], ["y"])], [tensor("x")], [tensor("y")])


def running_total() -> bytes:
    """Row n answers for rows 0 to n."""
    return build([node("CumSum", ["x", "axis"], ["y"])], [tensor("x")], [tensor("y")], {"axis": np.array(0, np.int64)})


def pairs() -> bytes:
    """Two inputs whose free first dimensions are not the same one."""
    return build(
        [node("Identity", ["a"], ["y"]), node("Identity", ["b"], ["z"])],
        [tensor("a", shape=("N", 2)), tensor("b", shape=("M", 2))],
        [tensor("y", shape=("N", 2)), tensor("z", shape=("M", 2))],
    )


def padded() -> bytes:
    """Output without a declared shape: text of any length, by rows."""
    return build([node("Identity", ["x"], ["y"])], [tensor("x", shape=("N", "L"))], [tensor("y", shape=None)])


def only_size(size: int) -> bytes:
    """A free dimension that must in truth be `size`."""
    return build(
        [node("Add", ["x", "c"], ["y"])],
        [tensor("x", shape=("N", "L"))],
        [tensor("y", shape=("N", "L"))],
        {"c": np.zeros(size, np.float32)},
    )


def refuses_all() -> bytes:
    """Looks up in an empty table: no index is right."""
    return build(
        [
            node("Cast", ["x"], ["n"], to=TensorProto.FLOAT),
            node("Gather", ["t", "i"], ["g"]),
            node("Add", ["n", "g"], ["y"]),
        ],
        [tensor("x", "BYTES", ("N", 1)), tensor("i", "INT64", ("N", 1))],
        [tensor("y", shape=("N", 1))],
        {"t": np.zeros(0, np.float32)},
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(identity(shape=(2, 4)), 'input "x" has 2 as its first dimension, not a free one', id="fixed"),
        pytest.param(identity(shape=()), 'input "x" is a scalar', id="scalar"),
        pytest.param(identity(shape=("N", "N")), 'input "x" has its first dimension N a second time', id="square"),
        pytest.param(pairs(), "the first dimensions of its inputs differ: M, N", id="pairs"),
        pytest.param(onnxmodels.total(), 'output "y" has shape [] for 1 row(s)', id="scalar answer"),
        pytest.param(onnxmodels.flattened(), 'output "y" has shape [4] for 1 row(s)', id="rows lost"),
        pytest.param(onnxmodels.mean_of_rows(), 'output "y" of a row changes with the rows beside it', id="mean"),
        pytest.param(running_total(), 'output "y" of a row changes with the rows beside it', id="running total"),
    ],
)
def test_a_model_that_must_not_be_batched_is_not_and_says_why(tmp_path: Path, content: bytes, why: str) -> None:
    backend = loaded(tmp_path, content)
    assert not backend.signature.batched
    assert backend.max_batch_size == 0
    backend.warm_up()
    assert backend.max_batch_size == 0
    assert [rows for rows, _ in backend.costs_us] == [1]
    assert backend.notes == [f"not batched: {why}"]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_free_first_dimension_is_a_batch_dimension(tmp_path: Path, datatype: str) -> None:
    signature = loaded(tmp_path, identity(datatype)).signature
    assert signature.batched
    assert signature.inputs == (TensorSpec("x", datatype, (-1, 4)),)
    assert signature.outputs == (TensorSpec("y", datatype, (-1, 4)),)


def test_a_dimension_without_a_name_is_free(tmp_path: Path) -> None:
    assert loaded(tmp_path, identity(shape=(None, 4))).signature.batched


def test_a_fixed_shape_is_kept_exactly(tmp_path: Path) -> None:
    signature = loaded(tmp_path, identity(shape=(2, 4))).signature
    assert signature.inputs[0].shape == (2, 4)
    assert signature.outputs[0].shape == (2, 4)


def test_eight_dimensions_are_served(tmp_path: Path) -> None:
    backend = loaded(tmp_path, identity(shape=("N", 1, 1, 1, 1, 1, 1, 2)))
    assert len(backend.signature.inputs[0].shape) == 8
    assert backend.run([np.ones((3, 1, 1, 1, 1, 1, 1, 2), np.float32)])[0].shape == (3, 1, 1, 1, 1, 1, 1, 2)


def test_free_inner_dimensions_stay_free(tmp_path: Path) -> None:
    backend = loaded(tmp_path, identity(shape=("N", "H", 3, "W")))
    assert backend.signature.inputs[0].shape == (-1, -1, 3, -1)
    assert backend.run([np.ones((2, 5, 3, 7), np.float32)])[0].shape == (2, 5, 3, 7)


@pytest.mark.parametrize("size", [1, 8, 32, 224])
def test_a_free_inner_dimension_that_is_none_is_found_by_trying(tmp_path: Path, size: int) -> None:
    backend = loaded(tmp_path, only_size(size))
    backend.warm_up()
    assert backend.costs_us
    assert backend.notes == []


def test_an_output_without_a_shape_gets_the_rank_that_runs_show(tmp_path: Path) -> None:
    signature = loaded(tmp_path, padded()).signature
    assert signature.batched
    assert signature.outputs[0].shape == (-1, -1)


def test_a_model_that_draws_random_numbers_may_be_batched(tmp_path: Path) -> None:
    assert loaded(tmp_path, noise()).signature.batched


def test_a_model_that_refuses_made_up_inputs_loads_with_a_note(tmp_path: Path) -> None:
    backend = loaded(tmp_path, refuses_all())
    backend.warm_up()
    assert backend.signature.batched
    assert backend.max_batch_size == UNMEASURED_ROWS
    assert backend.costs_us == []
    assert len(backend.notes) == 2
    assert "made-up inputs are refused, so its batch dimension is taken on trust" in backend.notes[0]
    assert "Gather" in backend.notes[0]
    assert backend.notes[1] == "not warmed up: its first requests may be slow"


def test_a_text_model_that_wants_numbers_is_warmed_with_digits(tmp_path: Path) -> None:
    backend = loaded(tmp_path, onnxmodels.parse_number())
    backend.warm_up()
    assert backend.costs_us
    assert backend.notes == []


def test_batching_can_be_switched_off(tmp_path: Path) -> None:
    backend = loaded(tmp_path, identity(), max_batch_size=0)
    backend.warm_up()
    assert not backend.signature.batched
    assert backend.max_batch_size == 0
    assert backend.notes == []


def test_one_row_at_most_is_a_fine_wish_for_any_model(tmp_path: Path) -> None:
    assert loaded(tmp_path, identity(shape=(2, 4)), max_batch_size=1).max_batch_size == 0
    assert loaded(tmp_path, identity(), max_batch_size=1).max_batch_size == 1
