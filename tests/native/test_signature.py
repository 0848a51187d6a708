"""What a version may look like, and what is refused by name."""

import pytest

from gateway.native.signature import Signature
from tests.support.lanes import NUMPY

X, Y = [("x", "FP32", (-1, 2))], [("y", "FP32", (-1,))]
ALL = (*NUMPY, "BF16")


def test_it_says_whose_it_is():
    signature = Signature("m", "1", X, Y, True)
    assert (signature.model, signature.version, signature.batched) == ("m", "1", True)


@pytest.mark.parametrize("datatype", ALL)
def test_every_datatype_of_the_protocol_is_known(datatype):
    Signature("m", "1", [("x", datatype, (-1,))], [("y", datatype, (-1,))], True)


@pytest.mark.parametrize("role", ["input", "output"])
@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (("t", "FLOAT", (-1,)), "has datatype FLOAT, expected one of BOOL, UINT8"),
        (("t", "INVALID", (-1,)), "has datatype INVALID, expected one of"),
        (("t", "FP32", (-1,) * 9), "has rank 9, expected at most 8"),
        (("t", "FP32", ()), r"has shape \[\], expected a leading -1 for the batch"),
        (("t", "FP32", (4, 2)), r"has shape \[4, 2\], expected a leading -1 for the batch"),
    ],
)
def test_a_tensor_that_cannot_be_served_is_named(role, spec, text):
    inputs, outputs = ([spec], Y) if role == "input" else (X, [spec])
    with pytest.raises(ValueError, match=f"{role} 't' of model 'm' version '1' {text}"):
        Signature("m", "1", inputs, outputs, True)


@pytest.mark.parametrize(("inputs", "outputs"), [([], Y), (X, [])])
def test_no_inputs_or_no_outputs_is_no_model(inputs, outputs):
    with pytest.raises(ValueError, match="model 'm' version '1' needs at least one input and one output"):
        Signature("m", "1", inputs, outputs, True)


@pytest.mark.parametrize("shape", [(), (3,), (-1, -1), (0, 2), (2,) * 8])
def test_without_a_batch_dimension_any_shape_up_to_rank_eight_is_fine(shape):
    Signature("m", "1", [("x", "FP32", shape)], [("y", "FP32", shape)], False)


@pytest.mark.parametrize(
    "arguments",
    [
        (None, "1", X, Y, True),
        ("m", None, X, Y, True),
        ("m", "1", None, Y, True),
        ("m", "1", [("x", "FP32")], Y, True),
        ("m", "1", [(b"x", "FP32", (-1,))], Y, True),
        ("m", "1", [("x", "FP32", ("N",))], Y, False),
    ],
)
def test_arguments_of_the_wrong_kind_raise_and_do_not_crash(arguments):
    with pytest.raises((TypeError, ValueError)):
        Signature(*arguments)


def test_long_and_odd_names_are_kept_as_they_are():
    name = "日本 é\0" * 100
    with_names = Signature(name, name, [(name, "FP32", (-1,))], [(name, "BYTES", (-1,))], True)
    assert (with_names.model, with_names.version) == (name, name)
