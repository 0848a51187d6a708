"""What a server says of a model: as a signature, and what of it has changed."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import pb
from gateway.backends.triton.described import Described, describe
from gateway.errors import LoadError

X, Y = ("x", "FP32", [-1, 4]), ("y", "INT64", [-1, 1])


def metadata(*, inputs: Any = (X,), outputs: Any = (Y,)) -> Any:
    def tensors(specs: Any) -> list[Any]:
        kind = pb.inference.ModelMetadataResponse.TensorMetadata
        return [kind(name=name, datatype=datatype, shape=shape) for name, datatype, shape in specs]

    return pb.inference.ModelMetadataResponse(
        name="m", versions=["1"], platform="python", inputs=tensors(inputs), outputs=tensors(outputs)
    )


def config(rows: int = 8, *, instances: int = 1, decoupled: bool = False) -> Any:
    return pb.model_config.ModelConfig(
        max_batch_size=rows,
        backend="python",
        instance_group=[{"count": instances}],
        model_transaction_policy={"decoupled": decoupled},
    )


def of(said: Any = None, setup: Any = None, wish: int | str = "auto") -> Described:
    return describe(said or metadata(), setup or config(), wish, "model 'm' on Triton at h:1")


def test_a_batched_model_has_the_rows_of_its_configuration() -> None:
    found = of(setup=config(8, instances=3))
    assert found.signature.batched
    assert (found.max_batch_size, found.instances, found.platform, found.backend) == (8, 3, "python", "python")
    assert found.signature.inputs[0].shape == (-1, 4)


def test_a_model_without_a_batch_dimension_is_not_batched() -> None:
    found = of(metadata(inputs=[("x", "FP32", [4])], outputs=[("y", "FP32", [-1])]), config(0))
    assert not found.signature.batched


def test_a_server_without_model_config_is_batched_where_the_operator_says_so() -> None:
    assert not describe(metadata(), None, "auto", "there").signature.batched
    found = describe(metadata(), None, 16, "there")
    assert (found.signature.batched, found.max_batch_size) == (True, 16)
    with pytest.raises(LoadError, match="max_batch_size is 16, expected at most 0"):
        describe(metadata(inputs=[("x", "FP32", [4])]), None, 16, "there")


@pytest.mark.parametrize(
    ("said", "setup", "wish", "text"),
    [
        (metadata(inputs=()), config(), "auto", "it names no inputs"),
        (metadata(outputs=()), config(), "auto", "it names no outputs"),
        (metadata(inputs=[("x", "INT4", [-1])]), config(), "auto", "input 'x' has datatype 'INT4', expected one of"),
        (metadata(inputs=[("x", "FP32", [-1] * 9)]), config(), "auto", "has 9 dimensions, expected at most 8"),
        (metadata(inputs=[("x", "FP32", [4])]), config(), "auto", "does not begin with -1"),
        (metadata(), config(8), 9, "batching.max_batch_size is 9, expected at most 8"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(said: Any, setup: Any, wish: int | str, text: str) -> None:
    with pytest.raises(LoadError, match=text) as caught:
        of(said, setup, wish)
    assert "on Triton at h:1" in str(caught.value)


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (of(), ""),
        (of(metadata(inputs=[X, ("w", "FP32", [-1])])), "input 'w' is new"),
        (of(metadata(inputs=[("w", "FP32", [-1, 4])])), "input 'w' is new; input 'x' is gone"),
        (of(metadata(outputs=[("y", "FP32", [-1, 1])])), "output 'y' has datatype FP32, and had INT64"),
        (of(metadata(inputs=[("x", "FP32", [-1, 5])])), "input 'x' has shape [-1, 5], and had [-1, 4]"),
        (of(setup=config(0)), "it is not batched, and was batched"),
        (of(setup=config(4)), "max_batch_size is 4, and was 8"),
        (of(setup=config(80)), ""),
        (of(setup=config(decoupled=True)), "a decoupled model"),
    ],
)
def test_a_difference_is_said_in_words(now: Described, text: str) -> None:
    assert of().difference(now).startswith(text) if text else of().difference(now) == ""


def test_the_order_of_tensors_is_no_difference() -> None:
    two = [X, ("w", "FP32", [-1])]
    assert of(metadata(inputs=two)).difference(of(metadata(inputs=two[::-1]))) == ""
