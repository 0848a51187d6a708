"""The native reader of ModelInferRequest beside protobuf's own: same verdict, same content.

That holds for all that clients may and may not write.

It differs in five ways, each stated by a test below. On purpose it refuses ranks above 8 and more than 1024 tensors.
Where protobuf's own parsers differ among themselves it goes with the lenient ones (Java, Go) and not with the C one
used here: tags may take ten bytes, not five; a map entry with an unknown field in it is an entry all the same; groups
count their depth from where they begin.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import pb
from gateway.native import codec
from gateway.native.refusal import Refusal
from tests.support.protowire import (
    BYTES,
    END_GROUP,
    FIXED32,
    FIXED64,
    GROUP,
    VARINT,
    OddEncoder,
    delimited,
    mutated,
    tag,
    varint,
)

Request = pb.inference.ModelInferRequest

TEXT = st.text(max_size=12)
KEYS = st.sampled_from(["priority", "timeout", "sequence_id", "shared_memory_region", "", "ö"])
INT64, UINT64 = st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1)
PARAMETERS = st.dictionaries(
    KEYS,
    st.one_of(
        st.fixed_dictionaries({"int64_param": INT64}),
        st.fixed_dictionaries({"uint64_param": UINT64}),
        st.fixed_dictionaries({"bool_param": st.booleans()}),
        st.fixed_dictionaries({"string_param": TEXT}),
        st.fixed_dictionaries({"double_param": st.floats(allow_nan=False)}),
        st.just({}),
    ),
    max_size=3,
)
CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "bool_contents": st.lists(st.booleans(), max_size=4),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        "int64_contents": st.lists(INT64, max_size=4),
        "uint_contents": st.lists(st.integers(0, 2**32 - 1), max_size=4),
        "uint64_contents": st.lists(UINT64, max_size=4),
        "fp32_contents": st.lists(st.floats(width=32, allow_nan=False), max_size=4),
        "fp64_contents": st.lists(st.floats(allow_nan=False), max_size=4),
        "bytes_contents": st.lists(st.binary(max_size=6), max_size=4),
    },
)
INPUTS = st.fixed_dictionaries(
    {"name": TEXT, "datatype": st.sampled_from(["FP32", "BYTES", "", "INT8", "what"])},
    optional={"shape": st.lists(INT64, max_size=8), "parameters": PARAMETERS, "contents": CONTENTS},
)
REQUESTS = st.builds(
    Request,
    model_name=TEXT,
    model_version=TEXT,
    id=TEXT,
    parameters=PARAMETERS,
    inputs=st.lists(INPUTS, max_size=3),
    outputs=st.lists(st.fixed_dictionaries({"name": TEXT}, optional={"parameters": PARAMETERS}), max_size=3),
    raw_input_contents=st.lists(st.binary(max_size=20), max_size=3),
)


def expected(message: Any) -> dict[str, Any]:
    """What codec.parse must say of a message that protobuf has read."""

    def number(key: str) -> int:
        if key not in message.parameters:
            return 0
        parameter = message.parameters[key]
        kind = parameter.WhichOneof("parameter_choice")
        return getattr(parameter, kind) % 2**64 if kind in ("int64_param", "uint64_param") else 0

    return {
        "model_name": message.model_name,
        "model_version": message.model_version,
        "id": message.id,
        "priority": number("priority"),
        "timeout_us": number("timeout") if number("timeout") <= 2**62 else 0,
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "has_contents": tensor.HasField("contents"),
                "in_shared_memory": "shared_memory_region" in tensor.parameters,
            }
            for tensor in message.inputs
        ],
        "raw_input_contents": list(message.raw_input_contents),
        "outputs": [output.name for output in message.outputs],
    }


def reference(stuff: bytes) -> Any:
    """protobuf's verdict: the message, or None."""
    try:
        return Request.FromString(stuff)
    except (DecodeError, UnicodeDecodeError):
        return None


def native(stuff: bytes) -> dict[str, Any] | None:
    try:
        return codec.parse(stuff)
    except Refusal as refusal:
        return None if refusal.code == 3 else {"code": refusal.code}


def assert_same_verdict(stuff: bytes) -> None:
    message, found = reference(stuff), native(stuff)
    if message is None:
        assert found is None or has_overlong_tag(stuff), f"protobuf refuses {stuff.hex()}"
    elif any(len(tensor.shape) > 8 for tensor in message.inputs):
        assert found is None
    elif not sets_entries_aside(message):
        assert found == expected(message), stuff.hex()


def has_overlong_tag(stuff: bytes) -> bool:
    """Whether it may hold one: a run of six bytes that could be a varint."""
    return any(all(byte >= 0x80 for byte in stuff[at : at + 5]) for at in range(len(stuff) - 5))


def sets_entries_aside(message: Any) -> bool:
    """Whether protobuf's C parser took a `parameters` entry for an unknown field."""
    return any(unknown.field_number == 4 for part in (message, *message.inputs) for unknown in UnknownFieldSet(part))


@settings(max_examples=300, deadline=None)
@given(REQUESTS)
def test_what_protobuf_writes_is_read_as_protobuf_reads_it(message: Any) -> None:
    assert codec.parse(message.SerializeToString()) == expected(message)


@settings(max_examples=400, deadline=None)
@given(REQUESTS, st.integers(0, 2**32), st.sampled_from([0.1, 0.4, 0.9]))
def test_every_legal_liberty_is_read_as_protobuf_reads_it(message: Any, seed: int, oddity: float) -> None:
    stuff = OddEncoder(random.Random(seed), oddity).encode(message)
    again = Request.FromString(stuff)
    assert codec.parse(stuff) == expected(again)
    assert expected(again) == expected(message), "the odd encoder itself is wrong"


@settings(max_examples=600, deadline=None)
@given(REQUESTS, st.integers(0, 2**32), st.integers(1, 4))
def test_damaged_bytes_are_refused_by_both_or_read_alike_by_both(message: Any, seed: int, n: int) -> None:
    dice = random.Random(seed)
    stuff = mutated(OddEncoder(dice, 0.2).encode(message), dice, n)
    assert_same_verdict(stuff)


@settings(max_examples=100, deadline=None)
@given(REQUESTS)
def test_every_cut_is_refused_by_both_or_read_alike_by_both(message: Any) -> None:
    stuff = message.SerializeToString()
    for end in range(len(stuff)):
        assert_same_verdict(stuff[:end])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_noise_is_refused_by_both_or_read_alike_by_both(stuff: bytes) -> None:
    assert_same_verdict(stuff)


# --- single rules ----------------------------------------

TENSOR = delimited(1, b"x") + delimited(2, b"FP32") + delimited(3, b"\1\2")


@pytest.mark.parametrize(
    "stuff",
    {
        "nothing": b"",
        "last name wins": delimited(1, b"a") + delimited(1, b"b"),
        "empty name wins": delimited(1, b"a") + delimited(1, b""),
        "unpacked shape": delimited(5, delimited(1, b"x") + tag(3, VARINT) + b"\1" + tag(3, VARINT) + b"\2"),
        "mixed shape": delimited(5, tag(3, VARINT) + b"\1" + delimited(3, b"\2\3") + tag(3, VARINT) + b"\4"),
        "negative dimension": delimited(5, delimited(3, varint(-1))),
        "split contents": delimited(
            5, TENSOR + delimited(5, delimited(6, bytes(4))) + delimited(5, delimited(6, bytes(4)))
        ),
        "empty contents": delimited(5, TENSOR + delimited(5, b"")),
        "value before key": delimited(4, delimited(2, tag(2, VARINT) + b"\5") + delimited(1, b"priority")),
        "key without value": delimited(4, delimited(1, b"priority")),
        "value without key": delimited(4, delimited(2, tag(2, VARINT) + b"\5")),
        "value in two pieces": delimited(
            4, delimited(1, b"timeout") + delimited(2, tag(2, VARINT) + b"\5") + delimited(2, tag(1, VARINT) + b"\1")
        ),
        "last member of a oneof wins": delimited(
            4, delimited(1, b"timeout") + delimited(2, tag(2, VARINT) + b"\5" + delimited(3, b"x"))
        ),
        "same key twice": delimited(4, delimited(1, b"timeout") + delimited(2, tag(2, VARINT) + b"\5"))
        + delimited(4, delimited(1, b"timeout")),
        "priority on an output": delimited(
            6, delimited(2, delimited(1, b"priority") + delimited(2, tag(2, VARINT) + b"\5"))
        ),
        "timeout on an input": delimited(
            5, TENSOR + delimited(4, delimited(1, b"timeout") + delimited(2, tag(2, VARINT) + b"\5"))
        ),
        "group": tag(9, GROUP) + tag(1, VARINT) + b"\1" + tag(9, END_GROUP) + delimited(1, b"m"),
        "group in a group": tag(9, GROUP) + tag(8, GROUP) + tag(8, END_GROUP) + tag(9, END_GROUP),
        "group under a known number": tag(1, GROUP) + tag(1, END_GROUP),
        "known number, wrong type": tag(1, VARINT) + b"\1" + tag(5, FIXED64) + bytes(8) + tag(7, FIXED32) + bytes(4),
        "idle bytes in a length": tag(1, BYTES) + varint(1, idle=4) + b"m",
        "surplus bits in the tenth byte": delimited(
            5, delimited(3, b"\xff" * 9 + b"\x7f" + b"\x81" + b"\x80" * 8 + b"\x10")
        ),
        "idle bytes in a dimension": delimited(5, delimited(3, varint(5, idle=9))),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_legal_oddity_is_read_as_protobuf_reads_it(stuff: tuple[str, bytes]) -> None:
    message = reference(stuff[1])
    assert message is not None
    assert codec.parse(stuff[1]) == expected(message)


@pytest.mark.parametrize(
    "stuff",
    {
        "field 0": b"\2\0",
        "wire type 6": b"\x0e",
        "wire type 7": b"\x0f",
        "end of no group": tag(1, END_GROUP),
        "group that does not end": tag(9, GROUP),
        "group that ends as another": tag(9, GROUP) + tag(8, END_GROUP),
        "length past the end": tag(1, BYTES) + b"\5abc",
        "length of 2^63": tag(1, BYTES) + varint(2**63) + b"abc",
        "length of 2^64 - 1": tag(1, BYTES) + varint(2**64 - 1) + b"abc",
        "varint of eleven bytes": tag(9, VARINT) + b"\x80" * 10 + b"\0",
        "varint cut": tag(9, VARINT) + b"\x80",
        "name not UTF-8": delimited(1, b"\xff"),
        "name with a surrogate": delimited(1, b"\xed\xa0\x80"),
        "name overlong": delimited(1, b"\xc0\x80"),
        "version not UTF-8": delimited(2, b"\x80"),
        "id not UTF-8": delimited(3, b"a\xc3"),
        "key not UTF-8": delimited(4, delimited(1, b"\xff")),
        "string parameter not UTF-8": delimited(4, delimited(1, b"k") + delimited(2, delimited(3, b"\xff"))),
        "tensor name not UTF-8": delimited(5, delimited(1, b"\xff")),
        "datatype not UTF-8": delimited(5, delimited(2, b"\xff")),
        "output name not UTF-8": delimited(6, delimited(1, b"\xff")),
        "shape cut inside a dimension": delimited(5, delimited(3, b"\x80")),
        "contents of 3 bytes of FP32": delimited(5, delimited(5, delimited(6, b"abc"))),
        "contents of 12 bytes of FP64": delimited(5, delimited(5, delimited(7, bytes(12)))),
        "contents cut inside a varint": delimited(5, delimited(5, delimited(3, b"\x80"))),
        "contents that are no message": delimited(5, delimited(5, b"\x0f")),
        "tensor that is no message": delimited(5, b"\x0f"),
        "output that is no message": delimited(6, b"\x0f"),
        "parameter that is no message": delimited(4, b"\x0f"),
        "parameter of an output that is no message": delimited(6, delimited(2, b"\x0f")),
        "parameter value that is no message": delimited(4, delimited(2, b"\x0f")),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_malformed_message_is_refused_by_both(stuff: tuple[str, bytes]) -> None:
    assert reference(stuff[1]) is None
    with pytest.raises(Refusal, match="malformed protobuf near byte"):
        codec.parse(stuff[1])


def test_an_error_names_the_message_and_the_byte() -> None:
    good = delimited(1, b"model")
    with pytest.raises(Refusal, match=rf"^InferInputTensor: malformed protobuf near byte {len(good) + 2},"):
        codec.parse(good + delimited(5, delimited(1, b"\xff")))
    with pytest.raises(Refusal, match=r"^ModelInferRequest\.id: "):
        codec.parse(good + delimited(3, b"\xff"))


# --- differences on purpose ----------------------------------------


def test_a_rank_above_eight_is_refused() -> None:
    assert codec.parse(delimited(5, delimited(3, b"\1" * 8)))["inputs"][0]["shape"] == [1] * 8
    with pytest.raises(Refusal, match="shape: more than 8 dimensions"):
        codec.parse(delimited(5, delimited(3, b"\1" * 9)))
    with pytest.raises(Refusal, match="shape: more than 8 dimensions"):
        codec.parse(delimited(5, (tag(3, VARINT) + b"\1") * 9))


@pytest.mark.parametrize("number", [5, 6, 7])
def test_more_than_1024_tensors_are_refused(number: int) -> None:
    codec.parse(delimited(number, b"") * 1024)
    with pytest.raises(Refusal, match=r"more than 1024 entries"):
        codec.parse(delimited(number, b"") * 1025)


def test_groups_are_followed_to_the_depth_of_protobuf_and_no_further() -> None:
    def nested(depth: int) -> bytes:
        return tag(9, GROUP) * depth + tag(9, END_GROUP) * depth

    for depth in (1, 50, 99):
        assert native(nested(depth)) is not None
        assert reference(nested(depth)) is not None
    for depth in (101, 5000, 200_000):
        assert native(nested(depth)) is None
        assert reference(nested(depth)) is None


def test_a_tag_of_more_than_five_bytes_is_read_though_protobufs_c_parser_refuses_it() -> None:
    for idle in (3, 4, 5, 9):
        stuff = varint(1 << 3 | BYTES, idle) + b"\1m"
        assert codec.parse(stuff)["model_name"] == "m"
        assert (reference(stuff) is None) == (idle > 4)


def test_a_parameter_with_an_unknown_field_beside_it_counts_though_protobufs_c_parser_sets_it_aside() -> None:
    stuff = delimited(4, delimited(1, b"priority") + tag(9, VARINT) + b"\1" + delimited(2, tag(2, VARINT) + b"\5"))
    assert codec.parse(stuff)["priority"] == 5
    assert dict(reference(stuff).parameters) == {}
    assert sets_entries_aside(reference(stuff))


def test_the_reader_takes_any_buffer_and_leaves_it_alone() -> None:
    stuff = Request(model_name="m", raw_input_contents=[struct.pack("<f", 1)]).SerializeToString()
    for buffer in (stuff, bytearray(stuff), memoryview(b"?" + stuff + b"?")[1:-1]):
        assert codec.parse(buffer) == codec.parse(stuff)
