"""The native reader of JSON requests beside the Python one: what it takes, it takes to the very same message."""

from __future__ import annotations

import mmap
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import pb
from gateway.native import codec, decimal
from gateway.native.body import Body
from gateway.native.jsonanswer import json_of_answer
from gateway.native.jsonrequest import request_from_json
from tests.support.jsonrequests import pack, read_by_python, some_text, written_by_python


def read(text: bytes) -> tuple[bytes, str] | None:
    found = request_from_json(text, "m", "3")
    return found and (bytes(found[0]), found[1])


def check(text: bytes) -> bool:
    """Whether the native reader takes it; then it reads what the Python one reads."""
    found = read(text)
    if found is None:
        return False
    assert found == read_by_python(text, "m", "3"), text
    return True


def request(data: str, datatype: str = "FP32", shape: str = "[1,4]", more: str = "") -> bytes:
    return f'{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]{more}}}'.encode()


TAKEN = [
    request("[1,2,3,4]"),
    request(" [ [ 1 , 2.5 , -3e0 , 4E+1 ] ] "),
    request("[0.1,-0.0,1e-45,3.4028234663852886e38]"),
    request("[9007199254740993,1e23,123456789012345678901234567890,0.000000000000000000000000000000123456789]"),
    request("[[[1],[2]],[[3],[4]]]", shape="[2,2,1]"),
    request("[1,2,3,4]", shape="[2,2]"),
    request("[]", shape="[0,4]"),
    request("[[],[]]", shape="[2,0]"),
    request("[5]", shape="[]"),
    request("[-128,127,0,1]", "INT8"),
    request("[9223372036854775807,-9223372036854775808]", "INT64", "[2]"),
    request("[9999999999999999999]", "UINT64", "[1]"),
    request("[true,false,true,true]", "BOOL"),
    request('["","]","a, [b]","F\u00fc\u00dfe \u8a9e \U0001f600"]', "BYTES"),
    request('[["a"],["]]"]]', "BYTES", "[2,1]"),
    request("[1,2,3,4]", more=',"id":"q-7","outputs":[{"name":"y"},{"parameters":{},"name":"z"}]'.replace(
        '"parameters":{},"name":"z"', '"name":"z","parameters":{"binary_data":false}')),
    request("[1,2,3,4]", more=',"outputs":[],"parameters":{}'),
    request("[1,2,3,4]", more=',"parameters":{"priority":3,"timeout":100000,"binary_data_output":false}'),
    request("[1,2,3,4]", more=',"parameters":{"a":"b","c":true,"n":-5}'),
    b' {"inputs" : [ {"data":[1,2],"datatype":"FP64","name":"x","shape":[1,2]} , '
    b'{"data":["s"],"datatype":"BYTES","name":"t","shape":[1]} ] }\n',
]  # fmt: skip


@pytest.mark.parametrize("text", TAKEN)
def test_plain_requests_are_taken_and_mean_the_same(text: bytes) -> None:
    assert check(text)


LEFT = [
    b"", b"{}", b"[]", b"null", b'{"inputs":[]}', b'{"inputs":[{}]}',
    request("[1,2,3]"), request("[1,2,3,4,5]"), request("[1,2,3,4"), request("[1,2,3,4]]"), request("[1,2,3,4]") + b"x",
    request("[1,2,3,4]") + b"\0", b"\xef\xbb\xbf" + request("[1,2,3,4]"),
    request("[NaN,2,3,4]"), request('["NaN",2,3,4]'), request("[null,2,3,4]"), request("[true,2,3,4]"),
    request("[{},2,3,4]"),
    request("[01,2,3,4]"), request("[1.,2,3,4]"), request("[.5,2,3,4]"), request("[+1,2,3,4]"), request("[1e,2,3,4]"),
    request("[-,2,3,4]"), request("[0x1,2,3,4]"), request("[1,2,3,4,]"), request("[1,,2,3]"), request("[1 2,3,4]"),
    request("[1e39,2,3,4]"), request("[1e400,2,3,4]"), request("[-0,2,3,4]"),
    request("[[1,2,3,4]]", shape="[4]"), request("[[1,2],[3,4]]"), request("[[1,2],3,4]", shape="[2,2]"),
    request("[[1,2],[3],[4]]", shape="[2,2]"), request("[[1,2,3],[4]]", shape="[2,2]"), request("[[[1,2,3,4]]]"),
    request("[128,0,0,0]", "INT8"), request("[-1,0,0,0]", "UINT8"), request("[1.0,0,0,0]", "INT32"),
    request("[1e0,0,0,0]", "INT32"), request("[9223372036854775808]", "INT64", "[1]"),
    request("[18446744073709551616]", "UINT64", "[1]"), request("[2147483648,0,0,0]", "INT32"),
    request("[1,0,1,0]", "BOOL"), request("[truth,false,true,true]", "BOOL"),
    request('["\\n","","",""]', "BYTES"), request('["\t","","",""]', "BYTES"), request("[1,2,3,4]", "BYTES"),
    request("[1,2,3,4]", "FP16"), request("[1,2,3,4]", "BF16"), request("[1,2,3,4]", "FP99"),
    request("[1,2,3,4]", "fp32"),
    request("[1,2,3,4]", shape="[-1,4]"), request("[1,2,3,4]", shape="[1.0,4]"), request("[1,2,3,4]", shape="[01,4]"),
    request("[1,2,3,4]", shape="[1,1,1,1,1,1,1,1,4]"), request("[1,2,3,4]", shape="[1099511627776,1099511627776]"),
    request("[1,2,3,4]", shape="[1,4"), request("[1,2,3,4]", shape="4"),
    request("[1,2,3,4]", more=',"id":7'), request("[1,2,3,4]", more=',"id":"\\u0041"'),
    request("[1,2,3,4]", more=',"id":"a","id":"b"'), request("[1,2,3,4]", more=',"x":1'),
    request("[1,2,3,4]", more=',"parameters":{"binary_data_output":true}'),
    request("[1,2,3,4]", more=',"parameters":{"priority":-1}'),
    request("[1,2,3,4]", more=',"parameters":{"timeout":1.5}'),
    request("[1,2,3,4]", more=',"parameters":{"a":1,"a":2}'), request("[1,2,3,4]", more=',"parameters":{"a":null}'),
    request("[1,2,3,4]", more=',"outputs":[{"name":"y"},{"name":"y"}]'), request("[1,2,3,4]", more=',"outputs":[{}]'),
    request("[1,2,3,4]", more=',"outputs":[{"name":"y","parameters":{"classification":2}}]'),
    request("[1,2,3,4]", more=',"outputs":[{"name":"y","parameters":{"binary_data":true}}]'),
    request("[1,2,3,4]").replace(b'"shape"', b'"parameters":{"binary_data_size":16},"shape"'),
    request("[1,2,3,4]").replace(b'"shape"', b'"parameters":{"shared_memory_region":"r"},"shape"'),
    request("[1,2,3,4]").replace(b'"shape"', b'"name":"y","shape"'),
    request("[1,2,3,4]").replace(b'"name":"x",', b""),
    request("[1,2,3,4]").replace(b'"x"', b'"\xff"'), request("[1,2,3,4]").replace(b'"x"', b'"\xed\xa0\x80"'),
    request("[1,2,3,4]").replace(b"1", b"\x0b1"),
    request("[" * 5000 + "]" * 5000),
]  # fmt: skip


@pytest.mark.parametrize("text", LEFT)
def test_everything_else_is_left_to_python(text: bytes) -> None:
    assert read(text) is None


@pytest.mark.parametrize("text", TAKEN)
def test_a_request_cut_anywhere_is_left_to_python(text: bytes) -> None:
    for n in range(len(text.rstrip())):
        assert read(text[:n]) is None
        assert request_from_json(memoryview(bytearray(text))[:n], "m", "") is None


def test_a_changed_byte_never_changes_the_meaning_alone() -> None:
    dice = random.Random(5)
    n_taken = 0
    for text in TAKEN:
        for _ in range(150):
            changed = bytearray(text)
            changed[dice.randrange(len(text))] = dice.choice(b'0123456789.-+eE,:[]{}" \\ntfx\x00\x80\xff')
            n_taken += check(bytes(changed))
    assert n_taken > 100


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_random_requests_mean_the_same(dice: random.Random) -> None:
    check(some_text(dice))


def test_most_requests_are_taken() -> None:
    dice = random.Random(1)
    taken = [check(some_text(dice)) for _ in range(800)]
    assert 200 < sum(taken) < 780


def test_a_long_request_is_read_without_the_gil_and_means_the_same() -> None:
    values = np.random.default_rng(2).standard_normal((100, 100))
    for data in (values.tolist(), values.ravel().tolist()):
        assert check(orjson.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [100, 100], "data": data}]}))


def test_the_message_is_one_that_the_codec_reads() -> None:
    found = request_from_json(request("[[1,2,3,4]]", more=',"id":"q","outputs":[{"name":"y"}]'), "modell\u00e4", "")
    assert found is not None
    message = codec.parse(found[0])
    assert (message["model_name"], message["model_version"], message["id"]) == ("modell\u00e4", "", "q")
    assert message["raw_input_contents"] == [struct.pack("<4f", 1, 2, 3, 4)]
    assert message["outputs"] == ["y"]


# --- answers ----------------------------------------


def answer_of(tensors: list[tuple[str, str, list[int], bytes]], **fields: str) -> Body:
    message = pb.inference.ModelInferResponse(model_name="m", model_version="1", **fields)
    for name, datatype, shape, raw in tensors:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_output_contents.append(raw)
    wire = message.SerializeToString()
    return Body.copy_of(b"\0" + len(wire).to_bytes(4, "big") + wire)


def check_answer(answer: Body) -> bool:
    text = json_of_answer(answer)
    if text is None:
        return False
    assert text == written_by_python(answer)
    return True


VALUES: dict[str, Any] = {
    "BOOL": np.array([True, False]),
    "FP32": np.array([0, -0.0, 1, 0.1, 1e-45, -3.4028235e38, 1e13, 1e12, 1e-6, 1e-7, 16777217], np.float32),
    "FP64": np.array([0, -0.0, 1, 0.1, 5e-324, -1.7976931348623157e308, 1e15, 1e16, 1e-5, 1e-6]),
    **{
        f"{sign}INT{bits}": np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, 0, 1], dtype)
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
        for dtype in [np.dtype(f"{sign.lower()}int{bits}")]
    },
}


@pytest.mark.parametrize("datatype", VALUES)
def test_answers_of_every_datatype_have_the_same_text(datatype: str) -> None:
    for values in (VALUES[datatype], VALUES[datatype][:1], VALUES[datatype][:0], np.tile(VALUES[datatype], 10_000)):
        assert check_answer(answer_of([("y", datatype, [len(values), 1], values.tobytes())], id="q"))


def test_strings_shapes_and_several_outputs_have_the_same_text() -> None:
    texts = pack(["", "a, b]", "Füße 語 😀", "\x7f"])
    one = ("y", "FP32", [1], struct.pack("<f", 0.5))
    for tensors in ([], [one], [one] * 3, [("ü", "BYTES", [2, 2], texts), one], [("y", "BYTES", [0], b"")]):
        assert check_answer(answer_of(tensors))
    assert check_answer(answer_of([("y", "INT8", [], b"\5")], id="語"))
    assert check_answer(answer_of([("y", "INT8", [1, 2**40], b"\5")]))


ODD_ANSWERS = [
    answer_of([("y", "FP32", [1], struct.pack("<f", value))]) for value in (float("nan"), float("inf"), float("-inf"))
] + [
    answer_of([("y", "FP64", [2], struct.pack("<2d", 1, float("nan")))]),
    answer_of([("y", "FP16", [1], b"\0\0")]),
    answer_of([("y", "BF16", [1], b"\0\0")]),
    *(answer_of([("y", "BYTES", [1], pack([text]))]) for text in ('"', "\\", "\n", "\0")),
    answer_of([("y", "BYTES", [1], b"\1\0\0\0\xff")]),
    answer_of([("y", "BYTES", [1], b"\2\0\0\0a")]),
    answer_of([("y", "BYTES", [1], b"\2\0")]),
    answer_of([("y", "FP32", [1], b"abc")]),
    answer_of([("y", "FP99", [1], b"abcd")]),
    answer_of([('"', "INT8", [1], b"a")]),
    answer_of([("y", "INT8", [1], b"a")], id="\n"),
    answer_of([("y", "INT8", [1], b"a")] * 65),
]  # fmt: skip


@pytest.mark.parametrize("answer", ODD_ANSWERS)
def test_odd_answers_are_left_to_python(answer: Body) -> None:
    assert json_of_answer(answer) is None


def test_a_changed_byte_of_an_answer_is_read_within_its_bounds() -> None:
    dice = random.Random(6)
    for answer in (answer_of([("y", "BYTES", [2], pack(["ab", "c"])), ("z", "FP64", [1], bytes(8))]), ODD_ANSWERS[0]):
        for _ in range(500):
            changed = bytearray(answer)
            changed[dice.randrange(5, len(changed))] = dice.randrange(256)
            json_of_answer(Body.copy_of(changed))
            json_of_answer(Body.copy_of(changed[: dice.randrange(5, len(changed))]))


# --- numbers ----------------------------------------


def some_number(dice: random.Random) -> str:
    kind = dice.randrange(5)
    if kind == 0:
        return repr(struct.unpack("d", dice.randbytes(8))[0])
    if kind == 1:
        return repr(struct.unpack("f", dice.randbytes(4))[0])
    if kind == 2:
        return str(dice.randrange(-(2**65), 2**65) >> dice.randrange(64))
    if kind == 3:  # between two doubles, or just beside
        return (
            f"{dice.randrange(2**53, 2**54)}{dice.choice(['.5', '.50000000000000000001', '.4999', 'e0', 'e-5', 'E+3'])}"
        )
    whole = dice.randrange(10 ** dice.randrange(1, 25))
    fraction = dice.choice(["", f".{dice.randrange(10**9):0{dice.randrange(1, 30)}}"])
    return f"{dice.choice(['', '-'])}{whole}{fraction}{dice.choice(['', '', f'e{dice.randrange(-340, 320)}'])}"


def test_numbers_are_read_as_orjson_reads_them() -> None:
    dice = random.Random(3)
    n_read = 0
    for text in (some_number(dice) for _ in range(30_000)):
        value = decimal.read(text.encode())
        if value is not None:
            n_read += 1
            assert struct.pack("d", value) == struct.pack("d", float(orjson.loads(text))), text
    assert n_read > 25_000


def test_numbers_are_written_as_orjson_writes_them() -> None:
    rng = np.random.default_rng(4)
    doubles = [
        rng.integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64),
        rng.standard_normal(20_000),
        rng.integers(-(2**53), 2**53, 10_000).astype(np.float64),
        np.array([2.0**k for k in range(-1074, 1024)]),
        np.array([float(f"{d}e{k}") for k in range(-323, 309) for d in (1, -9.5)]),
        np.array([0.0, -0.0, 5e-324, 1.7976931348623157e308]),
    ]
    with np.errstate(all="ignore"):
        floats = [values.astype(np.float32) for values in doubles]
    floats.append(rng.integers(0, 2**32, 50_000, dtype=np.uint32).view(np.float32))
    for values in (*doubles, *floats):
        finite = values[np.isfinite(values)]
        write = decimal.write_floats if values.dtype == np.float32 else decimal.write_doubles
        wanted = orjson.dumps(finite, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].replace(b",", b"\n")
        assert write(finite) == wanted


@pytest.mark.leak
def test_nothing_is_left_behind() -> None:
    texts = [*TAKEN, *LEFT, request(f"[{','.join(['0.1'] * 20_000)}]", shape="[20000]")]
    answers = [*ODD_ANSWERS, answer_of([("y", "FP64", [3000], bytes(24_000))])]

    def work() -> int:
        for _ in range(150):
            for text in texts:
                request_from_json(text, "m", "3")
            for answer in answers:
                json_of_answer(answer)
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    work()
    before = work()
    assert work() < before + 2 * 2**20  # one lost Body a round of the long one were 12 MB
