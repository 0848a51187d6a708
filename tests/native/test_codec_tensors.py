"""Tensors through the whole native path: every datatype, raw and typed, however it is written, echoed bit by bit.

What does not fit is refused by name.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import pb
from tests.support.exchange import INVALID_ARGUMENT, OK, UNIMPLEMENTED, Exchange, infer_response
from tests.support.frames import Answer
from tests.support.protowire import OddEncoder, delimited, tag

# datatype -> typed field (None: raw only), NumPy's type, smallest and largest number of the typed field's Python values
INTEGERS = {
    "UINT8": ("uint_contents", np.uint8),
    "UINT16": ("uint_contents", np.uint16),
    "UINT32": ("uint_contents", np.uint32),
    "UINT64": ("uint64_contents", np.uint64),
    "INT8": ("int_contents", np.int8),
    "INT16": ("int_contents", np.int16),
    "INT32": ("int_contents", np.int32),
    "INT64": ("int64_contents", np.int64),
}
FIELDS = {name: field for name, (field, _) in INTEGERS.items()} | {
    "BOOL": "bool_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
DTYPES = {name: dtype for name, (_, dtype) in INTEGERS.items()} | {
    "BOOL": np.bool_,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BF16": np.uint16,
    "BYTES": np.object_,
}
ALL = pytest.mark.parametrize("datatype", DTYPES)


def examples(datatype: str) -> list[Any]:
    """Six values, the extreme ones among them."""
    if datatype in INTEGERS:
        info = np.iinfo(DTYPES[datatype])
        return [0, 1, info.max, info.min, info.max - 1, 5]
    if datatype == "BOOL":
        return [True, False, False, True, True, False]
    if datatype == "BF16":
        return [0, 1, 0x7F80, 0xFF80, 0x3F80, 0xFFFF]
    if datatype == "BYTES":
        return [b"", b"a", "größer".encode(), b"\0", b"x" * 300, "模型".encode()]
    return [0.0, -1.5, float("inf"), float("-inf"), 6e-5, 2.0]


def raw(values: list[Any], datatype: str) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    return np.array(values, DTYPES[datatype]).tobytes()


def echo_of(datatype: str, shape: tuple[int, ...], batched: bool = True, cut: str = "whole") -> Exchange:
    """Model "e": one input `x`, echoed as `y`; it insists on what a backend may expect of an array."""

    def run(arrays: list[Any]) -> list[Any]:
        [array] = arrays
        assert array.dtype == DTYPES[datatype]
        assert array.flags.c_contiguous
        assert array.flags.aligned
        if datatype == "BYTES":
            assert all(isinstance(value, str) for value in array.ravel())
        return [array]

    exchange = Exchange(cut)
    exchange.serve("e", [("x", datatype, shape)], [("y", datatype, shape)], run, batched)
    return exchange


def request(
    datatype: str, shape: list[int], contents: Any = None, raws: list[bytes] | None = None, field: str = ""
) -> Any:
    message = pb.inference.ModelInferRequest(model_name="e", id="id", raw_input_contents=raws or [])
    tensor = message.inputs.add(name="x", datatype=datatype, shape=shape)
    if contents is not None:
        getattr(tensor.contents, field or FIELDS[datatype]).extend(contents)
    return message


def assert_echoed(answer: Answer, datatype: str, shape: list[int], values: list[Any]) -> None:
    assert answer.status == OK, answer.text
    response = infer_response(answer.messages[0])
    expected = pb.inference.ModelInferResponse(
        model_name="e", model_version="1", id="id", raw_output_contents=[raw(values, datatype)]
    )
    expected.outputs.add(name="y", datatype=datatype, shape=shape)
    assert response == expected


def refused(answer: Answer, *words: str, code: int = INVALID_ARGUMENT) -> None:
    assert answer.status == code, f"got {answer.status} {answer.text!r}"
    for word in words:
        assert word in answer.text, answer.text


@ALL
@pytest.mark.parametrize("shape", [[6, 1], [1, 6], [2, 3], [3, 2]])
def test_raw_contents_of_every_datatype_come_back_bit_by_bit(datatype: str, shape: list[int]) -> None:
    values = examples(datatype)
    with echo_of(datatype, (-1, -1)) as exchange:
        answer = exchange.ask(request(datatype, shape, raws=[raw(values, datatype)]).SerializeToString())
        assert_echoed(answer, datatype, shape, values)


@pytest.mark.parametrize("datatype", FIELDS)
@pytest.mark.parametrize("oddity", [0.0, 0.5, 0.9])
def test_typed_contents_of_every_datatype_come_back_as_raw_however_they_are_written(
    datatype: str, oddity: float
) -> None:
    values = examples(datatype)
    message = request(datatype, [6, 1], values)
    with echo_of(datatype, (-1, -1)) as exchange:
        for seed in range(15):
            stuff = OddEncoder(random.Random(seed), oddity).encode(message)
            answer = exchange.ask(stuff, stream=2 * seed + 1)
            assert_echoed(answer, datatype, [6, 1], values)


@pytest.mark.parametrize("datatype", FIELDS)
def test_a_request_for_every_datatype_survives_every_cut(cut: str, datatype: str) -> None:
    with echo_of(datatype, (-1, -1), cut=cut) as exchange:
        answer = exchange.ask(request(datatype, [2, 3], examples(datatype)).SerializeToString())
        assert_echoed(answer, datatype, [2, 3], examples(datatype))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_values_of_any_datatype_are_echoed_by_both_ways(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(sorted(FIELDS)))
    element = {
        "BOOL": st.booleans(),
        "BYTES": st.text(max_size=9).map(str.encode),
        "FP32": st.floats(width=32, allow_nan=False),
        "FP64": st.floats(allow_nan=False),
    }.get(datatype)
    if element is None:
        info = np.iinfo(DTYPES[datatype])
        element = st.integers(int(info.min), int(info.max))
    rows, columns = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 3))
    values = data.draw(st.lists(element, min_size=rows * columns, max_size=rows * columns))
    seed = data.draw(st.integers(0, 2**20))
    with echo_of(datatype, (-1, -1)) as exchange:
        typed = OddEncoder(random.Random(seed)).encode(request(datatype, [rows, columns], values))
        assert_echoed(exchange.ask(typed), datatype, [rows, columns], values)
        plain = request(datatype, [rows, columns], raws=[raw(values, datatype)]).SerializeToString()
        assert_echoed(exchange.ask(plain, stream=3), datatype, [rows, columns], values)


@ALL
def test_a_tensor_of_no_elements_needs_no_data(datatype: str) -> None:
    with echo_of(datatype, (-1, -1)) as exchange:
        for stream, raws in ((1, None), (3, [b""])):
            answer = exchange.ask(request(datatype, [2, 0], raws=raws).SerializeToString(), stream=stream)
            assert_echoed(answer, datatype, [2, 0], [])


@ALL
@pytest.mark.parametrize("shape", [(), (6,), (1, 2, 3), (1, 1, 1, 1, 1, 1, 2, 3)])
def test_models_without_a_batch_dimension_take_tensors_of_every_rank(datatype: str, shape: tuple[int, ...]) -> None:
    values = examples(datatype)[: int(np.prod(shape, dtype=int))]
    with echo_of(datatype, shape, batched=False) as exchange:
        answer = exchange.ask(request(datatype, list(shape), raws=[raw(values, datatype)]).SerializeToString())
        assert_echoed(answer, datatype, list(shape), values)


@pytest.mark.parametrize("datatype", ["INT8", "INT16", "UINT8", "UINT16"])
def test_a_number_that_does_not_fit_the_datatype_is_refused_by_its_index(datatype: str) -> None:
    info = np.iinfo(DTYPES[datatype])
    with echo_of(datatype, (-1, -1)) as exchange:
        for stream, number in ((1, int(info.max) + 1), (3, 2**31 - 1), (5, int(info.min) - 1)):
            if number < 0 and datatype.startswith("U"):
                continue
            refused(
                exchange.ask(request(datatype, [1, 3], [0, 1, number]).SerializeToString(), stream=stream),
                "element 2",
                FIELDS[datatype],
                datatype,
            )


def test_int_contents_in_ten_bytes_are_cut_to_32_bits_as_protobuf_cuts_them() -> None:
    """int32 -1 is written as ten bytes; other bits above 32 are dropped by every protobuf."""
    with echo_of("INT32", (-1, -1)) as exchange:
        stuff = (
            delimited(1, b"e")
            + delimited(3, b"id")
            + delimited(
                5,
                delimited(1, b"x")
                + delimited(2, b"INT32")
                + delimited(3, b"\1\2")
                + delimited(5, tag(2, 0) + b"\xff" * 9 + b"\1" + tag(2, 0) + b"\x85\x80\x80\x80\x80\x01"),
            )
        )
        assert list(pb.inference.ModelInferRequest.FromString(stuff).inputs[0].contents.int_contents) == [-1, 5]
        assert_echoed(exchange.ask(stuff), "INT32", [1, 2], [-1, 5])


@ALL
@pytest.mark.parametrize("surplus", [-1, 1])
def test_raw_contents_of_the_wrong_size_are_refused(datatype: str, surplus: int) -> None:
    stuff = raw(examples(datatype), datatype)
    wrong = stuff[:-1] if surplus < 0 else stuff + b"\0"
    with echo_of(datatype, (-1, -1)) as exchange:
        refused(exchange.ask(request(datatype, [6, 1], raws=[wrong]).SerializeToString()), "'x'", "raw_input_contents")


@pytest.mark.parametrize("datatype", FIELDS)
@pytest.mark.parametrize("n", [0, 5, 7])
def test_typed_contents_of_the_wrong_number_are_refused(datatype: str, n: int) -> None:
    message = request(datatype, [6, 1], (examples(datatype) * 2)[:n])
    message.inputs[0].contents.SetInParent()
    with echo_of(datatype, (-1, -1)) as exchange:
        refused(exchange.ask(message.SerializeToString()), f"got {n} elements", "expected 6")


@pytest.mark.parametrize("datatype", FIELDS)
def test_typed_contents_of_another_type_are_refused(datatype: str) -> None:
    field = "fp64_contents" if datatype != "FP64" else "fp32_contents"
    with echo_of(datatype, (-1, -1)) as exchange:
        answer = exchange.ask(request(datatype, [1, 1], [1.0], field=field).SerializeToString())
        refused(answer, field, FIELDS[datatype], datatype)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_has_no_typed_contents(datatype: str) -> None:
    with echo_of(datatype, (-1, -1)) as exchange:
        answer = exchange.ask(request(datatype, [1, 1], [1.0], field="fp32_contents").SerializeToString())
        refused(answer, datatype, "raw_input_contents")


@pytest.mark.parametrize(
    ("stuff", "words"),
    [
        (b"\1\0\0", "element 0 is cut short"),
        (b"\1\0\0\0", "element 0 is cut short"),
        (b"\1\0\0\0a\xff\xff\xff\xff", "element 1 is cut short"),
        (b"\1\0\0\0a", "got 1 strings"),
        (b"\1\0\0\0a\0\0\0\0\0\0\0\0", "got 3 strings"),
        (b"\1\0\0\0a\1\0\0\0\xff", "element 1 is not valid UTF-8"),
    ],
)
def test_raw_strings_that_are_no_strings_are_refused(stuff: bytes, words: str) -> None:
    with echo_of("BYTES", (-1, -1)) as exchange:
        refused(exchange.ask(request("BYTES", [1, 2], raws=[stuff]).SerializeToString()), "'x'", words)


def test_typed_strings_that_are_not_utf8_are_refused() -> None:
    with echo_of("BYTES", (-1, -1)) as exchange:
        refused(exchange.ask(request("BYTES", [1, 2], [b"a", b"\xff"]).SerializeToString()), "element 1", "UTF-8")


@pytest.mark.parametrize("shape", [[0, 2**62], [2**41, 0], [0, 2**63 - 1]])
def test_a_shape_of_no_elements_with_a_dimension_that_no_array_can_have_is_refused(shape: list[int]) -> None:
    """NumPy bounds the size without the zeros; a request that fails there would be the gateway's fault, and logged."""
    with echo_of("FP32", (-1, -1)) as exchange:
        refused(exchange.ask(request("FP32", shape).SerializeToString()), "'x'", "more elements")


@pytest.mark.parametrize(
    "shape", [[], [6], [1, 2, 3], [-1, 6], [6, -1], [2**62, 4], [3, 2**40], [2**63 - 1, 2**63 - 1]]
)
def test_a_shape_that_does_not_fit_is_refused(shape: list[int]) -> None:
    with echo_of("FP32", (-1, -1)) as exchange:
        refused(exchange.ask(request("FP32", shape, raws=[bytes(24)]).SerializeToString()), "'x'")


def test_a_datatype_that_is_not_the_models_is_refused() -> None:
    with echo_of("FP32", (-1, -1)) as exchange:
        for stream, datatype in ((1, "FP64"), (3, ""), (5, "fp32"), (7, "FP32 ")):
            message = request(datatype, [1, 1], raws=[bytes(8)])
            refused(exchange.ask(message.SerializeToString(), stream=stream), "datatype", "FP32")


def test_raw_and_typed_contents_together_are_refused() -> None:
    with echo_of("FP32", (-1, -1)) as exchange:
        answer = exchange.ask(request("FP32", [1, 1], [1.0], raws=[bytes(4)]).SerializeToString())
        refused(answer, "contents field must not be specified when using raw_input_contents")


@pytest.mark.parametrize("n", [0, 2, 5])
def test_raw_contents_that_are_not_one_for_each_input_are_refused(n: int) -> None:
    with echo_of("FP32", (-1, -1)) as exchange:
        answer = exchange.ask(request("FP32", [1, 1], raws=[bytes(4)] * n).SerializeToString())
        refused(answer, *(["raw_input_contents", f"got {n}"] if n else ["'x'"]))


def test_shared_memory_is_not_offered() -> None:
    message = request("FP32", [1, 1])
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    with echo_of("FP32", (-1, -1)) as exchange:
        refused(exchange.ask(message.SerializeToString()), "shared memory", code=UNIMPLEMENTED)


def test_a_priority_or_timeout_asked_of_an_output_is_not_the_requests() -> None:
    message = request("FP32", [1, 1], [1.0])
    message.outputs.add(name="y").parameters["timeout"].int64_param = 1
    with echo_of("FP32", (-1, -1)) as exchange:
        exchange.hold = True
        exchange.run(exchange.peer.call(1, message.SerializeToString()))
        exchange.turn(1_000_000)
        exchange.release()
        assert_echoed(exchange[1], "FP32", [1, 1], [1.0])


# --- several tensors ----------------------------------------


def two(cut: str = "whole") -> Exchange:
    exchange = Exchange(cut)
    inputs = [("a", "INT32", (-1, 2)), ("b", "BYTES", (-1,)), ("c", "FP16", (-1, -1))]
    exchange.serve(
        "t", inputs, [(name.upper(), datatype, shape) for name, datatype, shape in inputs], lambda arrays: arrays
    )
    return exchange


def two_request(order: str = "abc", outputs: str = "", typed: str = "") -> Any:
    message = pb.inference.ModelInferRequest(model_name="t")
    tensors = {
        "a": ("INT32", [2, 2], raw([1, 2, 3, 4], "INT32")),
        "b": ("BYTES", [2], raw([b"p", b"qq"], "BYTES")),
        "c": ("FP16", [2, 1], raw([0.5, 2.0], "FP16")),
    }
    for name in order:
        datatype, shape, stuff = tensors[name]
        message.inputs.add(name=name, datatype=datatype, shape=shape)
        if not typed:
            message.raw_input_contents.append(stuff)
    for name in outputs:
        message.outputs.add(name=name)
    return message


@pytest.mark.parametrize("order", ["abc", "cba", "bac", "cab"])
@pytest.mark.parametrize("outputs", ["", "A", "CB", "CAB", "B"])
def test_inputs_in_any_order_and_outputs_as_they_are_asked_for(cut: str, order: str, outputs: str) -> None:
    with two(cut) as exchange:
        answer = exchange.ask(two_request(order, outputs).SerializeToString())
        assert answer.status == OK, answer.text
        response = infer_response(answer.messages[0])
        assert [output.name for output in response.outputs] == list(outputs or "ABC")
        found = dict(zip((output.name for output in response.outputs), response.raw_output_contents, strict=True))
        whole = {"A": raw([1, 2, 3, 4], "INT32"), "B": raw([b"p", b"qq"], "BYTES"), "C": raw([0.5, 2.0], "FP16")}
        assert found == {name: whole[name] for name in outputs or "ABC"}


@pytest.mark.parametrize("order", ["ab", "", "aab", "abcc", "abca"])
def test_inputs_that_are_missing_or_come_twice_are_refused(order: str) -> None:
    with two() as exchange:
        refused(exchange.ask(two_request(order).SerializeToString()), "'t'")


def test_outputs_that_do_not_exist_or_come_twice_are_refused() -> None:
    with two() as exchange:
        refused(exchange.ask(two_request(outputs="AZ").SerializeToString()), "'Z'", "'A', 'B', 'C'")
        refused(exchange.ask(two_request(outputs="ABA").SerializeToString(), stream=3), "'A'", "twice")


def test_requests_of_different_inner_shapes_answer_alike_though_they_cannot_join() -> None:
    with echo_of("INT16", (-1, -1)) as exchange:
        exchange.hold = True
        for stream in range(1, 21, 2):
            columns = stream % 3 + 1
            message = request("INT16", [1, columns], raws=[raw(list(range(columns)), "INT16")])
            exchange.run(exchange.peer.call(stream, message.SerializeToString()))
        exchange.release()
        for stream in range(1, 21, 2):
            columns = stream % 3 + 1
            assert_echoed(exchange[stream], "INT16", [1, columns], list(range(columns)))
