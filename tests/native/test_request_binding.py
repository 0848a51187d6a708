"""A request against its model's signature: what is accepted, and the words in which the rest is refused."""

import struct

import numpy as np
import pytest

from tests.support.lanes import INVALID_ARGUMENT, OK, Harness, raw

M = "of model 'm' version '1'"
CUT_SHORT = "is cut short in raw_input_contents, expected a 4-byte little-endian length and that many bytes"


def answer_to(change, *, inputs, arrays, outputs=None, batched=True, names=None):
    """The call of a request that `change` has edited."""
    with Harness() as plane:
        plane.lane(lambda given: list(given), inputs=inputs, outputs=outputs, batched=batched)
        message = plane.request(*arrays, names=names)
        if change:
            change(message)
        call = plane.send(message=message)
        plane.turn()
        plane.finish_all()
        return call


ONE = {"inputs": [("x", "FP32", (-1, 2))], "arrays": [np.ones((1, 2), np.float32)]}
TWO = {
    "inputs": [("x0", "FP32", (-1, 2)), ("x1", "INT32", (-1, -1))],
    "arrays": [np.ones((2, 2), np.float32), np.ones((2, 3), np.int32)],
}
TEXT = {"inputs": [("x", "BYTES", (-1, 2))], "arrays": [np.array([["a", "b"]], object)]}


def field(index, name, value):
    def change(message):
        setattr(message.inputs[index], name, value)

    return change


def shape(*dims, index=0):
    def change(message):
        message.inputs[index].shape[:] = dims

    return change


def data(*contents):
    def change(message):
        message.raw_input_contents[:] = contents

    return change


def ask(*names):
    def change(message):
        for name in names:
            message.outputs.add(name=name)

    return change


def drop_input(message):
    del message.inputs[1]
    del message.raw_input_contents[1]


def twice(message):
    message.inputs[1].CopyFrom(message.inputs[0])
    message.raw_input_contents[1] = message.raw_input_contents[0]


def both(message):
    message.inputs[0].contents.fp32_contents.extend([1, 1])


def neither(message):
    del message.raw_input_contents[:]


def typed(name, values, shape_=None):
    def change(message):
        del message.raw_input_contents[:]
        getattr(message.inputs[0].contents, name).extend(values)
        if shape_:
            message.inputs[0].shape[:] = shape_

    return change


def shared_memory(message):
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"


CASES = {
    "wrong name": (ONE, field(0, "name", "z"), f"inputs {M}: got 'z', expected 'x'"),
    "no name": (ONE, field(0, "name", ""), f"inputs {M}: got '', expected 'x'"),
    "longer name": (ONE, field(0, "name", "xx"), f"inputs {M}: got 'xx', expected 'x'"),
    "an input missing": (TWO, drop_input, f"input 'x1' {M} is missing, expected 'x0', 'x1'"),
    "an input twice": (TWO, twice, f"input 'x0' {M} comes twice, expected once"),
    "wrong datatype": (ONE, field(0, "datatype", "FP64"), f"input 'x' {M}: got datatype FP64, expected FP32"),
    "no datatype": (ONE, field(0, "datatype", ""), f"input 'x' {M}: got datatype none, expected FP32"),
    "rank too small": (ONE, shape(2), f"input 'x' {M}: got shape [2], expected [-1,2] (-1 is any)"),
    "rank too large": (ONE, shape(1, 2, 1), f"input 'x' {M}: got shape [1,2,1], expected [-1,2] (-1 is any)"),
    "wrong dimension": (ONE, shape(1, 3), f"input 'x' {M}: got shape [1,3], expected [-1,2] (-1 is any)"),
    "negative rows": (ONE, shape(-1, 2), f"input 'x' {M}: got shape [-1,2], expected [-1,2] (-1 is any)"),
    "rows differ": (
        {**TWO, "arrays": [np.ones((2, 2), np.float32), np.ones((3, 3), np.int32)]},
        None,
        f"input 'x1' {M}: got 3 rows, expected 2 as in input 'x0' {M}",
    ),
    "too many elements": (
        TWO,
        shape(2, 1 << 60, index=1),
        f"input 'x1' {M}: shape [2,1152921504606846976] has more elements than any message can carry",
    ),
    "elements that overflow": (
        {**TWO, "inputs": [("x0", "FP32", (-1, 2)), ("x1", "INT32", (-1, -1))]},
        shape(1 << 32, 1 << 32, index=1),
        f"input 'x1' {M}: shape [4294967296,4294967296] has more elements than any message can carry",
    ),
    "too few bytes": (
        ONE,
        data(b"1234567"),
        f"input 'x' {M}: got 7 bytes in raw_input_contents, expected 8 for shape [1,2] of FP32",
    ),
    "too many bytes": (
        ONE,
        data(b"123456789"),
        f"input 'x' {M}: got 9 bytes in raw_input_contents, expected 8 for shape [1,2] of FP32",
    ),
    "raw entries too few": (
        TWO,
        data(b"1234567812345678"),
        f"raw_input_contents {M}: got 1 entries, expected 2, one for each input",
    ),
    "raw entries too many": (
        ONE,
        data(b"12345678", b""),
        f"raw_input_contents {M}: got 2 entries, expected 1, one for each input",
    ),
    "raw and typed": (
        ONE,
        both,
        "contents field must not be specified when using raw_input_contents for 'x' for model 'm'",
    ),
    "neither": (
        ONE,
        neither,
        "unable to find data for input tensor 'x' for model 'm' in request: "
        "got neither contents nor raw_input_contents",
    ),
    "typed, too few": (
        ONE,
        typed("fp32_contents", [1.0]),
        f"input 'x' {M}: got 1 elements in contents, expected 2 for shape [1,2]",
    ),
    "typed, another field": (
        ONE,
        typed("int_contents", [1, 2]),
        f"input 'x' {M}: got int_contents, expected fp32_contents for datatype FP32",
    ),
    "wanted output unknown": (ONE, ask("z"), f"outputs {M}: got 'z', expected 'y'"),
    "wanted output twice": (ONE, ask("y", "y"), f"outputs {M}: 'y' is asked for twice, expected once"),
    "too few strings": (
        TEXT,
        data(raw(np.array(["a"], object))),
        f"input 'x' {M}: got 1 strings in raw_input_contents, expected 2 for shape [1,2]",
    ),
    "too many strings": (
        TEXT,
        data(raw(np.array(["a", "b", "c"], object))),
        f"input 'x' {M}: got 3 strings in raw_input_contents, expected 2 for shape [1,2]",
    ),
    "a string cut short": (
        TEXT,
        data(b"\1\0\0\0a\2\0\0\0b"),
        f"input 'x' {M}: element 1 {CUT_SHORT}",
    ),
    "a length cut short": (
        TEXT,
        data(b"\1\0\0\0a\2\0\0"),
        f"input 'x' {M}: element 1 {CUT_SHORT}",
    ),
    "a length beyond everything": (
        TEXT,
        data(struct.pack("<I", 0xFFFFFFFF) + b"a"),
        f"input 'x' {M}: element 0 {CUT_SHORT}",
    ),
    "not UTF-8": (
        TEXT,
        data(b"\1\0\0\0a\2\0\0\0\xff\xfe"),
        f"input 'x' {M}: element 1 is not valid UTF-8, expected text",
    ),
    "surrogate": (
        TEXT,
        data(b"\3\0\0\0\xed\xa0\x80\0\0\0\0"),
        f"input 'x' {M}: element 0 is not valid UTF-8, expected text",
    ),
}


@pytest.mark.parametrize(("model", "change", "text"), CASES.values(), ids=CASES.keys())
def test_what_does_not_fit_is_refused_in_these_words(model, change, text):
    call = answer_to(change, **model)
    assert (call.code, call.text) == (INVALID_ARGUMENT, text)


def test_shared_memory_is_refused_as_not_offered():
    call = answer_to(shared_memory, **ONE)
    assert (call.code, call.text) == (12, f"input 'x' {M}: shared memory is not offered here, send raw_input_contents")


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (ONE, None),
        (ONE, ask("y")),
        (TWO, None),
        (TEXT, None),
        (ONE, typed("fp32_contents", [1.0, 1.0])),
        (TEXT, typed("bytes_contents", [b"a", b"b"])),
        (ONE, typed("fp32_contents", [], [0, 2])),
        (TEXT, typed("bytes_contents", [], [0, 2])),
    ],
)
def test_what_fits_is_answered(model, change):
    assert answer_to(change, **model).code == OK


def test_a_tensor_of_no_elements_needs_no_data_at_all():
    call = answer_to(lambda message: (neither(message), shape(0, 2)(message)), **ONE)
    assert call.outputs["y"].shape == (0, 2)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_inputs_may_come_in_any_order(order):
    arrays = [np.full((1, 1), i, np.float32) for i in range(3)]
    call = answer_to(
        None,
        inputs=[(f"x{i}", "FP32", (-1, 1)) for i in range(3)],
        arrays=[arrays[i] for i in order],
        names=[f"x{i}" for i in order],
    )
    assert [call.outputs[f"y{i}"].item() for i in range(3)] == [0, 1, 2]


def test_a_model_without_batch_dimension_is_held_to_its_own_shape():
    model = {"inputs": [("x", "FP32", (2, 3))], "batched": False}
    assert answer_to(None, arrays=[np.ones((2, 3), np.float32)], **model).code == OK
    call = answer_to(None, arrays=[np.ones((1, 3), np.float32)], **model)
    assert call.text == f"input 'x' {M}: got shape [1,3], expected [2,3]"


def test_after_a_refusal_the_next_request_is_bound_afresh():
    with Harness() as plane:
        plane.lane(inputs=[(f"x{i}", "FP32", (-1, 1)) for i in range(5)])
        bad = plane.request(*[[1.0]] * 5)
        bad.inputs[4].datatype = "INT32"
        calls = [plane.send(message=bad), plane.send(*[[1.0]] * 5)]
        plane.turn()
        plane.finish_all()
        assert [call.code for call in calls] == [INVALID_ARGUMENT, OK]
        assert plane.plane.n_refused == 1
        assert plane.plane.n_requests == 2
