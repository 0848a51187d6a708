"""The token of an answer: bit for bit what the twin writes, readable only as signed, and none where nobody asks."""

from __future__ import annotations

import base64
import math
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.native import receipt
from gateway.native.arm import Arm
from gateway.native.lane import Lane
from gateway.native.receipt import PARAMETER, Receipts, Signer, TokenError
from gateway.native.route import ON, Route, Target
from gateway.native.routetable import RouteTable
from tests.support.lanes import Harness, Model
from tests.support.receipttwin import KEY, Token, predicted, token

NAMES = ("id", "arrived_s", "unit", "model", "version", "arm", "stage", "weight", "answered", "n_rows", "predictions")


def read(text: str, key: bytes = KEY) -> dict[str, Any]:
    return dict(zip(NAMES, receipt.read(key, text), strict=True))


def with_receipts(lane: Lane, **wishes: Any) -> Lane:
    wishes = wishes or {"score_output": "y"}
    lane.stamp = Receipts(Signer(KEY), lane.signature, **wishes)
    return lane


def routed(h: Harness, lane: Lane, arm: Arm, **more: Any) -> None:
    h.plane.routes = RouteTable({"m": {"": Target(arm.version, lane, arm, Route("m", arm.stage, **more))}})


def answered(h: Harness, *arrays: Any, **wishes: Any) -> Any:
    call = h.send(*arrays, **wishes)
    h.turn()
    h.finish_all()
    return call.response


def token_of(response: Any) -> str:
    return str(response.parameters[PARAMETER].string_param)


def same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return a[0] == b[0] and (math.isclose(a[1], b[1], rel_tol=1e-6) or (math.isnan(a[1]) and math.isnan(b[1])))


def all_same(found: Any, wanted: Any) -> bool:
    return len(found) == len(wanted) and all(map(same, found, wanted))


def test_an_answer_carries_a_token_that_says_who_answered_what_and_with_what_probability() -> None:
    with Harness() as h:
        routed(h, with_receipts(h.lane(version="2")), Arm("m", "2", "candidate", 7, 500))
        response = answered(h, [0.1, 0.4], request_id="mine")
        assert response.id == "mine"
        assert [*response.parameters] == [PARAMETER]
        said = read(token_of(response))
        assert (said["model"], said["version"], said["answered"], said["arm"]) == ("m", "2", "2", "candidate")
        assert (said["stage"], said["weight"], said["unit"], said["n_rows"]) == (7, 500, None, 2)
        assert said["predictions"] == [(0, pytest.approx(0.8)), (1, pytest.approx(0.8))]
        ago_s = time.monotonic() - h.now_us / 1e6  # the harness's clock stands still
        assert said["arrived_s"] == pytest.approx(time.time() - ago_s, abs=5.0)


def test_no_two_tokens_are_equal() -> None:
    with Harness() as h:
        routed(h, with_receipts(h.lane()), Arm("m", "1", "stable", 1, 10_000))
        assert len({token_of(answered(h, 1)) for _ in range(50)}) == 50


def test_there_is_none_without_receipts_without_a_key_and_without_an_arm() -> None:
    with Harness() as h:
        lane = h.lane()
        routed(h, lane, Arm("m", "1", "stable"))
        assert not answered(h, 1).parameters
        lane.stamp = Receipts(Signer(), lane.signature, score_output="y")
        assert not answered(h, 1).parameters
        with_receipts(lane)
        assert PARAMETER in answered(h, 1).parameters
        h.plane.routes = RouteTable({"m": {"": lane}})
        assert not answered(h, 1).parameters


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=20),
    spoilt=st.sampled_from([None, math.nan, math.inf]),
    kind=st.sampled_from([np.float16, np.float32, np.float64]),
    stage=st.integers(0, 2**40),
    weight=st.integers(0, 10_000),
)
def test_the_token_is_the_twins_bit_for_bit(
    rows: list[list[float]], spoilt: float | None, kind: Any, stage: int, weight: int
) -> None:
    scores = np.array(rows, kind)
    if spoilt is not None:
        scores[0, 1] = spoilt
    elif len(rows) > 1:
        scores[-1] = (0.2, 0.7, 0.1)
    datatype = {np.float16: "FP16", np.float32: "FP32", np.float64: "FP64"}[kind]
    with Harness() as h:
        lane = h.lane(
            lambda inputs: inputs,
            inputs=[("x", datatype, (-1, 3))],
            outputs=[("y", datatype, (-1, 3))],
            max_batch_size=32,
        )
        routed(h, with_receipts(lane), Arm("m", "1", "stable", stage, weight))
        text = token_of(answered(h, scores))
    said = read(text)
    wanted = [predicted(row) for row in scores[:16]]
    assert all_same(said["predictions"], wanted), (said["predictions"], wanted)
    twin = Token(
        said["id"][:8], said["arrived_s"], stage=stage, weight=weight, n_rows=len(rows), predictions=said["predictions"]
    )
    assert twin.signed() == text


@pytest.mark.parametrize(
    ("values", "wishes", "told"),
    [
        ([0.3, 0.7], {"threshold": 0.5}, [(0, 0.7), (1, 0.7)]),
        ([0.3, 0.7], {"threshold": 0.2}, [(1, 0.3), (1, 0.7)]),
        ([-3.5, 1e30], {"is_value": True}, [(None, -3.5), (None, 1e30)]),
        ([3.5, math.nan], {}, [(1, math.nan), None]),
    ],
)
def test_one_score_a_row_is_a_probability_or_a_value(values: list[float], wishes: Any, told: Any) -> None:
    with Harness() as h:
        lane = h.lane(lambda inputs: inputs)
        routed(h, with_receipts(lane, score_output="y", **wishes), Arm("m", "1", "stable"))
        found = read(token_of(answered(h, values)))["predictions"]
        assert all_same(found, told), found


@pytest.mark.parametrize("datatype", ["INT64", "INT32", "INT16", "INT8", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL"])
def test_an_output_of_whole_numbers_names_the_class(datatype: str) -> None:
    from tests.support.lanes import NUMPY

    highest = 1 if datatype == "BOOL" else int(np.iinfo(NUMPY[datatype]).max) & (2**62 - 1)
    lowest = 0 if datatype[0] in "UB" else int(np.iinfo(NUMPY[datatype]).min)
    classes = np.array([[highest], [lowest]], NUMPY[datatype])
    scores = np.array([[0.1, 0.9], [0.75, 0.25]], np.float32)
    with Harness() as h:
        lane = h.lane(lambda inputs: [classes, scores], outputs=[("label", datatype, (-1, 1)), ("p", "FP32", (-1, 2))])
        routed(h, with_receipts(lane, class_output="label", score_output="p"), Arm("m", "1", "stable"))
        found = read(token_of(answered(h, [1, 2])))["predictions"]
        assert found == [(highest, pytest.approx(0.9)), (lowest, pytest.approx(0.75))]


@pytest.mark.parametrize(("datatype", "kind"), [("INT64", np.longlong), ("UINT64", np.ulonglong), ("INT64", np.int_)])
def test_a_class_is_told_whichever_of_numpys_types_of_that_size_a_backend_gives(datatype: str, kind: Any) -> None:
    with Harness() as h:
        lane = h.lane(lambda inputs: [np.array([[7], [3]], kind)], outputs=[("label", datatype, (-1, 1))])
        routed(h, with_receipts(lane, class_output="label"), Arm("m", "1", "stable"))
        assert [each[0] for each in read(token_of(answered(h, [1, 2])))["predictions"]] == [7, 3]


def test_a_class_by_name_is_told_unless_it_is_long() -> None:
    names = np.array([["cat"], ["müde"], ["x" * 65]], object)
    with Harness() as h:
        lane = h.lane(lambda inputs: [names], outputs=[("label", "BYTES", (-1, 1))])
        routed(h, with_receipts(lane, class_output="label"), Arm("m", "1", "stable"))
        found = read(token_of(answered(h, [1, 2, 3])))["predictions"]
        assert [each and each[0] for each in found] == ["cat", "müde", None]


def test_a_request_that_was_split_over_batches_has_one_token_for_all_its_rows() -> None:
    with Harness() as h:
        lane = h.lane(lambda inputs: inputs, max_batch_size=4)
        routed(h, with_receipts(lane), Arm("m", "1", "stable"))
        call = h.send([0.01 * i for i in range(20)])
        for _ in range(8):
            h.turn()
            h.finish_all()
        said = read(token_of(call.response))
        assert said["n_rows"] == 20
        assert [round(1.0 - score, 2) for _, score in said["predictions"]] == [round(0.01 * i, 2) for i in range(16)]


def test_what_a_fallback_answered_is_said_to_be_drawn_for_the_first_and_answered_by_the_second() -> None:
    with Harness() as h:
        first = with_receipts(h.lane(Model(poison={7.0}), version="2"))
        second = with_receipts(h.lane(version="1"))
        fallback = Target("1", second, Arm("m", "1", "fallback", 3))
        routed(h, first, Arm("m", "2", "candidate", 3, 500), fallback=fallback, fallback_on=ON["error"])
        response = answered(h, 7)
        assert sorted(response.parameters) == ["gateway_fallback_from", PARAMETER]
        said = read(token_of(response))
        assert (said["arm"], said["version"], said["answered"], said["weight"]) == ("candidate", "2", "1", 500)
        h.expect_faults(RuntimeError)


def test_a_version_that_does_not_serve_is_still_the_one_that_was_drawn() -> None:
    with Harness() as h:
        second = with_receipts(h.lane(version="1"))
        fallback = Target("1", second, Arm("m", "1", "fallback", 3))
        route = Route("m", 3, fallback=fallback, fallback_on=ON["error"])
        drawn = Target("2", "it is loading", Arm("m", "2", "candidate", 3, 500), route)
        h.plane.routes = RouteTable({"m": {"": drawn}})
        said = read(token_of(answered(h, 1)))
        assert (said["arm"], said["version"], said["answered"]) == ("candidate", "2", "1")


def test_every_bit_of_a_token_is_signed() -> None:
    text = token(stage=300, unit=b"u" * 8, answered="2", predictions=[(3, 0.5), ("cat", 0.25), None])
    assert read(text)["unit"] == b"u" * 8
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    for bit in range(len(raw) * 8):
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TokenError) as error:
            read(base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("="))
        assert error.value.reason == ("malformed" if bit < 4 else "unknown" if 8 <= bit < 16 else "forged"), bit
        raw[bit // 8] ^= 1 << bit % 8
    for n in range(len(text)):
        with pytest.raises(TokenError):
            read(text[:n])


def test_a_token_of_another_key_is_unknown() -> None:
    with pytest.raises(TokenError, match="another gateway") as error:
        read(token(key=b"another key, 16b"))
    assert error.value.reason == "unknown"


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=80), st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
def test_no_text_at_all_is_taken_for_a_token(text: str) -> None:
    with pytest.raises(TokenError):
        read(text)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_what_is_signed_and_makes_no_sense_is_malformed(tail: bytes) -> None:
    class Odd(Token):
        def raw(self) -> bytes:
            return b"\1\0" + bytes(14) + tail

    with suppress(TokenError):  # and nothing else
        read(Odd(b"", 0.0).signed())
