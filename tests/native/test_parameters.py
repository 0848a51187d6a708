"""Parameters of an answer: written as protobuf writes them, read as protobuf reads them, any cut of them refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import pb
from gateway.native.body import Body
from gateway.native.exchange import decode_answer
from gateway.native.parameters import encoded

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
parameters = st.dictionaries(texts, st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts, max_size=5)


def framed(message: bytes) -> Body:
    return Body.copy_of(b"\0" + len(message).to_bytes(4) + message)


@given(parameters)
def test_protobuf_reads_what_is_written(values: dict[str, bool | int | str]) -> None:
    response = pb.inference.ModelInferResponse.FromString(encoded(values))
    found = {
        name: getattr(parameter, parameter.WhichOneof("parameter_choice"))
        for name, parameter in response.parameters.items()
    }
    assert found == values
    assert {name: type(value) for name, value in found.items()} == {name: type(value) for name, value in values.items()}


@given(parameters, texts)
def test_what_protobuf_writes_is_read(values: dict[str, bool | int | str], request_id: str) -> None:
    response = pb.inference.ModelInferResponse(model_name="m", model_version="1", id=request_id)
    for name, value in values.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(response.parameters[name], kind, value)
    assert decode_answer(framed(response.SerializeToString())) == ("m", "1", request_id, [], values)


def test_a_parameter_that_is_cut_short_is_refused_and_never_read_beyond() -> None:
    message = encoded({"gateway_fallback_from": "2"})
    for n in range(1, len(message)):
        with pytest.raises(ValueError, match="malformed"):
            decode_answer(framed(message[:n]))
    inner = b"\x0a\x01a\x12\x03\x1a\x09x"  # a string of nine bytes that has one
    with pytest.raises(ValueError, match="malformed parameter"):
        decode_answer(framed(b"\x22" + bytes([len(inner)]) + inner))


def test_a_value_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="parameter 'x': got float, expected bool, int or str"):
        encoded({"x": 1.5})  # type: ignore[dict-item]
