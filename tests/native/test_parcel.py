"""A batch in shared memory: the message says where its rows lie, and outputs are read from where they were put."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import pb
from gateway.native.parcel import NotWritten, Parcel
from gateway.native.remote import AnswerMismatch, Form
from tests.support.lanes import NUMPY, Harness, raw, unraw

Array = np.ndarray[Any, Any]
REGION = b"gateway-triton-1-ab"


class Lease:
    """Tells when nobody looks into the memory any more."""

    def __init__(self, gone: list[str]) -> None:
        self.gone = gone

    def __del__(self) -> None:
        self.gone.append("gone")


def placed(parameters: Any) -> slice | None:
    if "shared_memory_region" not in parameters:
        return None
    assert parameters["shared_memory_region"].string_param == REGION.decode()
    offset = parameters["shared_memory_offset"].int64_param
    assert offset % 64 == 0
    return slice(offset, offset + parameters["shared_memory_byte_size"].int64_param)


class Server:
    """Reads a request's inputs from `memory`, and puts the outputs there that are to be there; `write` of them."""

    def __init__(self, memory: bytearray, message: bytes) -> None:
        self.memory, self.request = memory, pb.inference.ModelInferRequest.FromString(message)
        assert not self.request.raw_input_contents
        self.inputs = {
            each.name: unraw(bytes(memory[placed(each.parameters)]), each.datatype, list(each.shape))  # type: ignore[index]
            for each in self.request.inputs
        }

    def answer(self, outputs: dict[str, Array], *, write: bool = True) -> bytes:
        answer = pb.inference.ModelInferResponse(model_name="there", model_version="7")
        assert [each.name for each in self.request.outputs] == [*outputs]
        for wanted in self.request.outputs:
            array, place = outputs[wanted.name], placed(wanted.parameters)
            datatype = next(d for d, kind in NUMPY.items() if np.dtype(kind) == array.dtype)
            answer.outputs.add(name=wanted.name, datatype=datatype, shape=array.shape)
            data = raw(array)
            if place is not None and write:
                self.memory[place.start : place.start + len(data)] = data
            answer.raw_output_contents.append(b"" if place is not None else data)
        return bytes(answer.SerializeToString())


def form_of(lane: Any) -> Form:
    return Form(lane.signature, "there", "7")


def filled(form: Form, batch: Any, gone: list[str]) -> tuple[Parcel, Server]:
    parcel = Parcel(form, batch, 0, batch.n_members)
    memory = bytearray(parcel.n_bytes + 7)
    return parcel, Server(memory, parcel.fill(REGION, memory, Lease(gone)))


@pytest.mark.parametrize("datatype", list(NUMPY))
def test_every_datatype_gets_there_and_back(datatype: str) -> None:
    random = np.random.default_rng(3)
    texts = np.array(["", "a", "grüße", "0" * 300], object)
    with Harness() as plane:
        lane = plane.lane(inputs=[("x", datatype, (-1, 12)), ("x1", "FP64", (-1,))], max_batch_size=16)
        form, calls, sent, gone = form_of(lane), [], [], []
        for rows in (1, 3, 2):
            kind = random.integers(0, 4, (rows, 12)) if datatype == "BYTES" else random.integers(0, 2, (rows, 12))
            values = texts[kind] if datatype == "BYTES" else kind.astype(NUMPY[datatype])
            sent.append((values, random.random(rows)))
            calls.append(plane.send(*sent[-1], names=["x", "x1"]))
        plane.turn()
        (batch,) = plane.batches
        batch.begin()
        parcel, server = filled(form, batch, gone)
        assert server.inputs["x"].shape == (6, 12)
        np.testing.assert_array_equal(server.inputs["x1"], np.concatenate([second for _, second in sent]))
        data = server.answer({"y" + name[1:]: array for name, array in server.inputs.items()})
        outputs = parcel.answer(data)
        assert all(not array.flags.writeable for array in outputs if array.dtype != object)
        assert batch.accept(0, batch.n_members, outputs)
        del parcel, server
        assert gone == []  # somebody looks into it
        del outputs
        assert gone == ["gone"]
        batch.end()
        plane.settle(plane.batches.pop())
        del batch
        for call, (first, second) in zip(calls, sent, strict=True):
            expected = np.array([str(t).encode() for t in first.ravel()], object).reshape(first.shape)
            np.testing.assert_array_equal(call.outputs["y"], expected if datatype == "BYTES" else first)
            np.testing.assert_array_equal(call.outputs["y1"], second)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 7))
def test_requests_cut_into_batches_are_whole_again(rows: list[int], max_rows: int) -> None:
    with Harness() as plane:
        lane = plane.lane(inputs=[("x", "INT32", (-1, 2))], max_batch_size=max_rows, instances=100)
        form, n, calls, gone = form_of(lane), 0, [], []
        for count in rows:
            values = np.arange(n, n + 2 * count, dtype=np.int32).reshape(count, 2)
            n += 2 * count
            calls.append((plane.send(values), values))
        plane.turn()
        n_batches = len(plane.batches)
        while plane.batches:
            batch = plane.batches.pop(0)
            batch.begin()
            parcel, server = filled(form, batch, gone)
            assert len(server.inputs["x"]) == batch.n_rows == parcel.n_rows <= max_rows
            assert batch.accept(0, batch.n_members, parcel.answer(server.answer({"y": server.inputs["x"]})))
            del parcel
            server.memory[:] = bytes(len(server.memory))  # what is still to be answered looks into what it kept alive
            server.answer({"y": server.inputs["x"]})
            batch.end()
            plane.settle(batch)
            del batch
        for call, values in calls:
            np.testing.assert_array_equal(call.outputs["y"], values)
        assert len(gone) == n_batches


def test_outputs_of_unknown_size_and_small_ones_come_in_the_answer() -> None:
    outputs = [
        ("y", "FP32", (-1, 4)),
        ("free", "FP32", (-1, -1)),
        ("words", "BYTES", (-1, 1)),
        ("flag", "BOOL", (-1, 1)),
    ]
    with Harness() as plane:
        lane = plane.lane(inputs=[("x", "FP32", (-1, 4))], outputs=outputs, max_batch_size=8)
        call = plane.send(np.ones((2, 4), np.float32))
        plane.turn()
        batch, gone = plane.batches.pop(), []
        parcel, server = filled(form_of(lane), batch, gone)
        assert [placed(each.parameters) is not None for each in server.request.outputs] == [True, False, False, False]
        given_back = {
            "y": server.inputs["x"] * 3,
            "free": np.arange(6, dtype=np.float32).reshape(2, 3),
            "words": np.array([[b"a"], [b""]], object),
            "flag": np.array([[True], [False]]),
        }
        assert batch.accept(0, 1, parcel.answer(server.answer(given_back)))
        plane.settle(batch)
        del batch, parcel
        for name, array in given_back.items():
            np.testing.assert_array_equal(call.outputs[name], array)


def test_an_answer_that_is_not_there_is_none() -> None:
    with Harness() as plane:
        lane = plane.lane(inputs=[("x", "FP32", (-1, 4))], max_batch_size=8)
        plane.send(np.ones((2, 4), np.float32))
        plane.turn()
        batch, form, gone = plane.batches.pop(), form_of(lane), []
        right = {"y": np.ones((2, 4), np.float32)}
        parcel, server = filled(form, batch, gone)
        with pytest.raises(NotWritten, match="not in the shared memory"):
            parcel.answer(server.answer(right, write=False))
        parcel, server = filled(form, batch, gone)
        data = server.answer(right)
        place = placed(server.request.outputs[0].parameters)
        assert place
        _, other = filled(form, batch, gone)
        server.memory[place.stop - 8 : place.stop] = other.memory[place.stop - 8 : place.stop]
        parcel.answer(data)  # the seal of another is none
        parcel, server = filled(form, batch, gone)
        data = server.answer(right, write=False)
        server.memory[place.start : place.stop - 8] = bytes(place.stop - 8 - place.start)  # cut short
        with pytest.raises(NotWritten):
            parcel.answer(data)
        batch.refuse(0, 1, 13, "enough")
        plane.settle(batch)
        del batch


@pytest.mark.parametrize(
    ("outputs", "fault"),
    [
        ({"y": np.ones((2, 4), np.float64)}, "got datatype FP64, expected FP32"),
        ({"y": np.ones((2, 3), np.float32)}, r"got shape \[2, 3\], expected \[-1, 4\]"),
        ({"y": np.ones((1, 4), np.float32)}, "got 32 bytes, expected 16 for shape"),
    ],
)
def test_an_answer_that_does_not_fit_the_signature_is_none(outputs: dict[str, Array], fault: str) -> None:
    with Harness() as plane:
        lane = plane.lane(inputs=[("x", "FP32", (-1, 4))], max_batch_size=8)
        plane.send(np.ones((2, 4), np.float32))
        plane.turn()
        batch, gone = plane.batches.pop(), []
        parcel, server = filled(form_of(lane), batch, gone)
        place = placed(server.request.outputs[0].parameters)
        assert place
        server.memory[place] = bytes(32)
        with pytest.raises(AnswerMismatch, match=fault) as caught:
            parcel.answer(server.answer(outputs, write=False))
        assert caught.type is AnswerMismatch
        batch.refuse(0, 1, 13, "enough")
        plane.settle(batch)
        del batch


def test_a_region_that_is_too_small_or_used_twice_is_refused() -> None:
    with Harness() as plane:
        lane = plane.lane(inputs=[("x", "FP32", (-1, 4))], max_batch_size=8)
        plane.send(np.ones((2, 4), np.float32))
        plane.turn()
        batch, form = plane.batches.pop(), form_of(lane)
        parcel = Parcel(form, batch, 0, 1)
        with pytest.raises(ValueError, match=f"for {parcel.n_bytes}"):
            parcel.fill(REGION, bytearray(parcel.n_bytes - 1), None)
        with pytest.raises(ValueError, match="not sent"):
            Parcel(form, batch, 0, 1).answer(b"")
        with pytest.raises(ValueError, match=r"members 0\.\.2 of 1"):
            Parcel(form, batch, 0, 2)
        parcel, _ = filled(form, batch, [])
        with pytest.raises(ValueError, match="once"):
            parcel.fill(REGION, bytearray(1000), None)
        batch.refuse(0, 1, 13, "enough")
        plane.settle(batch)
        del batch
