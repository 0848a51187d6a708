"""Two tensors beside each other: the native comparison says what the slow twin says."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.native.compare import compare_tensors, read_tensors
from tests.support import slowcompare
from tests.support.lanes import Harness

DATATYPES = (*slowcompare.NUMPY, "BF16")
SHAPES = st.sampled_from([(), (1,), (4,), (0,), (0, 3), (2, 1), (1, 2), (3, 2), (2, 7), (2, 2, 3), (1, 300), (600,)])
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-7, -1e-7, 3e38, float("inf"), float("-inf"), float("nan"), 5e-324, 6e-8, 65504.0]
WHOLE = [0, 1, 2, 127, 255, 2**15, 2**31, 2**53, 2**53 + 1, 2**62 + 3, 2**63, 2**64 - 1]


@st.composite
def tensors(draw, datatype, shape):
    """Raw bytes; many of them alike, so that equal blocks, ties and near misses come about."""
    n = int(np.prod(shape, dtype=np.int64))
    if datatype == "BF16":
        values = np.array(draw(st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=4)), np.float32)
        bits = (values.view(np.uint32) >> 16).astype(np.uint16)
        return np.resize(bits, n).tobytes() if n else b""
    kind = slowcompare.NUMPY[datatype]
    if datatype.startswith("FP"):
        numbers = draw(st.lists(st.one_of(st.sampled_from(SPECIAL), st.floats(-10, 10)), min_size=1, max_size=5))
    else:
        numbers = draw(st.lists(st.sampled_from(WHOLE), min_size=1, max_size=5))
        bits = 8 * np.dtype(kind).itemsize
        numbers = [
            number % 2**bits - (2**bits if datatype[0] == "I" and number % 2**bits >= 2 ** (bits - 1) else 0)
            for number in numbers
        ]
        numbers = [number % 2 for number in numbers] if datatype == "BOOL" else numbers
    with np.errstate(over="ignore"):
        return np.resize(np.array(numbers, kind), n).tobytes() if n else b""


@st.composite
def cases(draw):
    datatype = draw(st.sampled_from(DATATYPES))
    shape = draw(SHAPES)
    data = draw(tensors(datatype, shape))
    how = draw(st.sampled_from(["same", "near", "any", "any", "datatype", "shape"]))
    other, other_shape = datatype, shape
    if how == "same":
        return datatype, shape, data, other, shape, data
    if how == "near" and data:
        changed = bytearray(data)
        changed[draw(st.integers(0, len(data) - 1))] ^= 1
        if datatype == "BOOL":
            changed = bytearray(byte & 1 for byte in changed)
        return datatype, shape, data, other, shape, bytes(changed)
    if how == "datatype":
        other = draw(st.sampled_from(DATATYPES))
    if how == "shape":
        other_shape = draw(SHAPES)
    return datatype, shape, data, other, other_shape, draw(tensors(other, other_shape))


@settings(max_examples=600, deadline=None)
@given(cases(), st.sampled_from([(0.0, 0.0), (1e-6, 1e-3), (0.5, 0.0)]))
def test_any_two_tensors_differ_as_the_slow_twin_says(case, tolerance):
    with np.errstate(all="ignore"):
        expected = slowcompare.compare(*case, *tolerance)
    got = compare_tensors(*case, *tolerance)
    if expected["comparison"] == "different_shape":
        assert got["comparison"] == "different_shape"
        assert not got["agrees"]
        return
    for name in ("mean_absolute", "mean_relative"):
        assert got.pop(name) == pytest.approx(expected.pop(name), rel=1e-9, nan_ok=True)
    assert got == expected


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([(3,), (0,), (2, 2)]))
def test_strings_differ_as_the_slow_twin_says(data, shape):
    n = int(np.prod(shape))
    text = st.binary(max_size=5)
    left, right = (
        b"".join(struct.pack("<I", len(one)) + one for one in data.draw(st.lists(text, min_size=n, max_size=n)))
        for _ in range(2)
    )
    case = ("BYTES", shape, left, "BYTES", shape, right)
    assert compare_tensors(*case) == slowcompare.compare(*case, 0, 0)


def test_strings_beside_numbers_are_of_another_kind():
    found = compare_tensors("BYTES", (1,), struct.pack("<I", 0), "FP32", (1,), b"\0" * 4)
    assert (found["comparison"], found["agrees"]) == ("different_kind", False)


def test_a_tensor_with_too_few_bytes_for_its_shape_is_not_read():
    assert compare_tensors("FP32", (4,), b"\0" * 12, "FP32", (4,), b"\0" * 16)["comparison"] == "different_kind"


def test_every_short_float_is_read_as_numpy_reads_it():
    bits = np.arange(1 << 16, dtype=np.uint16).tobytes()
    wide = np.frombuffer(bits, np.float16).astype(np.float64)
    found = compare_tensors("FP16", (1 << 16,), bits, "FP64", (1 << 16,), wide.tobytes())
    assert (found["n_differ"], found["n_broken"]) == (0, 0)
    assert found["n_nan"] == (int(np.isnan(wide).sum()),) * 2
    assert found["n_inf"] == (2, 2)


def test_large_integers_that_are_equal_as_doubles_are_told_apart():
    found = compare_tensors(
        "INT64", (1,), np.int64(2**53).tobytes(), "INT64", (1,), np.int64(2**53 + 1).tobytes(), 1.0, 1.0
    )
    assert (found["n_differ"], found["n_beyond"], found["max_absolute"]) == (1, 1, 1.0)


def test_an_answer_of_ours_is_read_whole_also_inside_a_stream_message():
    with Harness() as plane:
        plane.lane()
        call = plane.send([1.0, 2.0], request_id="r1")
        plane.turn()
        plane.finish()
    expected = [("y", "FP32", [2, 1], np.array([2, 4], np.float32).tobytes())]
    assert read_tensors(call.body) == expected
    inner = call.body[5:]
    streamed = bytes([2 << 3 | 2, len(inner)]) + inner
    assert read_tensors(b"\0" + len(streamed).to_bytes(4) + streamed, True) == expected


@pytest.mark.parametrize("cut", range(5, 30))
def test_a_cut_answer_is_malformed_or_shorter_and_never_read_beyond(cut):
    with Harness() as plane:
        plane.lane()
        call = plane.send([1.0])
        plane.turn()
        plane.finish()
    assert read_tensors(call.body[:cut]) in (None, [])
