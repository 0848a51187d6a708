"""A batch as another server's request and its answer as arrays, held to protobuf's own reading of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import pb
from gateway.native.batch import BatchMismatch
from gateway.native.remote import AnswerMismatch, Form
from gateway.native.signature import Signature
from tests.support.lanes import CANCELLED, DEADLINE_EXCEEDED, INTERNAL, INVALID_ARGUMENT, NUMPY, OK, Harness, raw, unraw

Array = np.ndarray[Any, Any]


def read(message: bytes) -> tuple[Any, dict[str, Array]]:
    """A ModelInferRequest, and its inputs."""
    request = pb.inference.ModelInferRequest.FromString(message)
    contents = zip(request.inputs, request.raw_input_contents, strict=True)
    return request, {spec.name: unraw(data, spec.datatype, list(spec.shape)) for spec, data in contents}


def answer(outputs: dict[str, Array], version: str = "7") -> Any:
    message = pb.inference.ModelInferResponse(model_name="there", model_version=version)
    for name, array in outputs.items():
        datatype = next(d for d, kind in NUMPY.items() if np.dtype(kind) == array.dtype)
        message.outputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_output_contents.append(raw(array))
    return message


def bounce(form: Form, batch: Any) -> dict[str, Array]:
    """There and back: every input comes out under its output's name."""
    request, inputs = read(form.request(batch, 0, batch.n_members))
    assert (request.model_name, request.model_version, request.id) == ("there", "7", "")
    named = {"y" + name[1:]: array for name, array in inputs.items()}
    assert batch.accept(0, batch.n_members, form.answer(answer(named).SerializeToString()))
    return inputs


def form_of(lane: Any) -> Form:
    return Form(lane.signature, "there", "7")


# --- out


@pytest.mark.parametrize("datatype", list(NUMPY))
def test_every_datatype_gets_there_and_back(datatype: str) -> None:
    random = np.random.default_rng(3)
    texts = np.array(["", "a", "grüße", "0" * 300], object)
    with Harness() as plane:
        lane = plane.lane(inputs=[("x", datatype, (-1, 2)), ("x1", "FP64", (-1,))], max_batch_size=16)
        form, calls, sent = form_of(lane), [], []
        for rows in (1, 3, 0, 2):
            values = (
                texts[random.integers(0, 4, (rows, 2))] if datatype == "BYTES" else random.integers(0, 2, (rows, 2))
            )
            sent.append((values.astype(NUMPY[datatype]), random.random(rows)))
            calls.append(plane.send(*sent[-1], names=["x", "x1"]))
        plane.turn()
        (batch,) = plane.batches
        batch.begin()
        inputs = bounce(form, batch)
        assert inputs["x"].shape == (6, 2)
        np.testing.assert_array_equal(inputs["x1"], np.concatenate([second for _, second in sent]))
        batch.end()
        plane.settle(plane.batches.pop())
        del batch
        for call, (first, second) in zip(calls, sent, strict=True):
            got = call.outputs["y"]
            expected = np.array([str(t).encode() for t in first.ravel()], object).reshape(first.shape)
            np.testing.assert_array_equal(got, expected if datatype == "BYTES" else first)
            np.testing.assert_array_equal(call.outputs["y1"], second)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 7), st.booleans())
def test_requests_cut_into_batches_are_whole_again(rows: list[int], max_rows: int, is_text: bool) -> None:
    kind = "BYTES" if is_text else "INT32"
    with Harness() as plane:
        lane = plane.lane(inputs=[("x", kind, (-1, 2))], max_batch_size=max_rows, instances=100)
        form, n, calls = form_of(lane), 0, []
        for count in rows:
            values = np.arange(n, n + 2 * count).reshape(count, 2)
            n += 2 * count
            values = values.astype(str).astype(object) if is_text else values.astype(np.int32)
            calls.append((plane.send(values), values))
        plane.turn()
        while plane.batches:
            batch = plane.batches.pop(0)
            batch.begin()
            assert len(bounce(form, batch)["x"]) == batch.n_rows <= max_rows
            batch.end()
            plane.settle(batch)
            del batch
        for call, values in calls:
            got = call.outputs["y"]
            np.testing.assert_array_equal(np.array([int(v) for v in got.ravel()]), values.ravel().astype(int))


def test_typed_contents_go_out_raw() -> None:
    with Harness() as plane:
        lane = plane.lane()
        message = pb.inference.ModelInferRequest(model_name="m")
        message.inputs.add(name="x", datatype="FP32", shape=[2, 1]).contents.fp32_contents.extend([1.5, 2.5])
        call = plane.send(message=message)
        plane.turn()
        batch = plane.batches.pop()
        assert bounce(form_of(lane), batch)["x"].ravel().tolist() == [1.5, 2.5]
        plane.settle(batch)
        del batch
        assert call.rows == [1.5, 2.5]


def test_a_forwarded_request_keeps_all_but_names_and_wishes() -> None:
    with Harness() as plane:
        lane = plane.lane(max_batch_size=0, outputs=[("y", "FP32", (-1, 1)), ("z", "FP32", (-1, 1))])
        form = form_of(lane)
        message = plane.request([1, 2], request_id="mine", outputs=["z"])
        message.model_version = "1"
        message.parameters["sequence_id"].int64_param = 42
        call = plane.send(message=message)
        plane.turn()
        batch = plane.batches.pop()
        request, inputs = read(form.forward(batch))
        assert (request.model_name, request.model_version, request.id) == ("there", "7", "mine")
        assert request.parameters["sequence_id"].int64_param == 42
        assert not request.outputs
        column = inputs["x"]
        given_back = answer({"z": column + 1, "y": column})
        assert batch.accept(0, 1, form.answer(given_back.SerializeToString()))
        plane.settle(batch)
        del batch
        assert list(call.outputs) == ["z"]
        assert call.rows == [2, 3]
        assert call.response.id == "mine"


def test_only_a_whole_request_is_forwarded() -> None:
    with Harness() as plane:
        lane = plane.lane()
        plane.send(1), plane.send(2)
        plane.turn()
        with pytest.raises(ValueError, match="whole request"):
            form_of(lane).forward(plane.batches[0])


# --- back

Y = [("y", "FP32", (-1, 3)), ("z", "BYTES", (-1,))]
FORM = Form(Signature("m", "1", [("x", "FP32", (-1, 3))], Y, True), "there", "7")
GOOD = {"y": np.ones((2, 3), np.float32), "z": np.array(["a", "bc"], object)}


def test_outputs_are_found_by_name_and_look_into_the_answer() -> None:
    message = answer({"z": GOOD["z"], "y": GOOD["y"]})
    for padding in range(8):  # whatever their alignment
        message.id = "i" * padding
        y, z = FORM.answer(message.SerializeToString())
        np.testing.assert_array_equal(y, GOOD["y"])
        assert not y.flags.owndata
        assert not y.flags.writeable
        assert z.tolist() == [b"a", b"bc"]


def test_typed_contents_of_other_servers_are_read() -> None:
    message = pb.inference.ModelInferResponse(model_name="there")
    message.outputs.add(name="y", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend([1, 2, 3])
    message.outputs.add(name="z", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"text")
    y, z = FORM.answer(message.SerializeToString())
    assert y.tolist() == [[1, 2, 3]]
    assert z.tolist() == [b"text"]


def spoil(**changes: Any) -> bytes:
    message = answer(GOOD)
    for path, value in changes.items():
        name, _, index = path.partition("_")
        if name == "raw":
            message.raw_output_contents[int(index)] = value
        elif name == "shape":
            message.outputs[int(index)].ClearField("shape")
            message.outputs[int(index)].shape.extend(value)
        elif name == "datatype":
            message.outputs[int(index)].datatype = value
        elif name == "name":
            message.outputs[int(index)].name = value
        elif name == "version":
            message.model_version = value
    data: bytes = message.SerializeToString()
    return data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (spoil(datatype_0="FP64"), "output 'y' of model 'm' version '1': got datatype FP64, expected FP32"),
        (spoil(shape_0=[2, 4]), r"output 'y' .*got shape \[2, 4\], expected \[-1, 3\]"),
        (spoil(shape_0=[2, 3, 1]), r"got shape \[2, 3, 1\]"),
        (spoil(shape_0=[-2, 3]), r"got shape \[-2, 3\]"),
        (spoil(shape_0=[2**62, 3]), "got shape"),
        (spoil(raw_0=b"\0" * 23), "got 23 bytes, expected 24"),
        (spoil(raw_1=b"\1\0\0\0a"), "element 1 of 2 is cut short"),
        (spoil(raw_1=b"\1\0\0\0a\xff\xff\xff\xff"), "element 1 of 2 is cut short"),
        (spoil(raw_1=b"\1\0\0\0a\0\0\0\0more"), "4 bytes came after its 2 elements"),
        (spoil(name_0="other"), "output 'y' .*is missing"),
        (spoil(name_1="y"), "output 'z' .*is missing"),
        (spoil(version="8"), "version '8' answered, expected '7'"),
        (answer({"y": GOOD["y"]}).SerializeToString(), "got 'y', expected 'y', 'z'"),
        (answer(GOOD | {"w": GOOD["y"]}).SerializeToString(), "got 'y', 'z', 'w'"),
        (b"", "got none, expected"),
        (b"\xff\xff", "no ModelInferResponse"),
    ],
)
def test_an_answer_that_is_not_as_promised_is_no_answer(data: bytes, text: str) -> None:
    with pytest.raises(AnswerMismatch, match=text):
        FORM.answer(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=8), st.integers(0, 200), st.integers(0, 200))
def test_bytes_cut_and_changed_anywhere_are_refused_or_read_as_protobuf_reads_them(
    noise: bytes, at: int, end: int
) -> None:
    data = answer(GOOD).SerializeToString()
    data = (data[: at % len(data)] + noise + data[at % len(data) + len(noise) :])[: len(data) - end % 3]
    try:
        arrays = FORM.answer(data)
    except AnswerMismatch:
        return
    try:
        message = pb.inference.ModelInferResponse.FromString(data)
    except DecodeError:  # it minds names that are no UTF-8, also where they mean nothing
        return
    by_name = {spec.name: raw_ for spec, raw_ in zip(message.outputs, message.raw_output_contents, strict=True)}
    assert arrays[0].tobytes() == by_name["y"]


# --- how it goes on


def test_rows_that_are_missing_are_nobodys() -> None:
    with Harness() as plane:
        lane = plane.lane()
        calls = [plane.send([1, 2]), plane.send(3)]
        plane.turn()
        batch = plane.batches.pop()
        few = answer({"y": np.ones((2, 1), np.float32)}).SerializeToString()
        assert not batch.accept(0, 2, form_of(lane).answer(few))
        plane.settle(batch)
        del batch
        assert [call.code for call in calls] == [INTERNAL, INTERNAL]
        plane.expect_faults(BatchMismatch)


def test_halves_are_accepted_and_refused_on_their_own() -> None:
    with Harness() as plane:
        lane = plane.lane()
        calls = [plane.send(number) for number in (1, 2, 3)]
        plane.turn()
        batch, form = plane.batches.pop(), form_of(lane)
        _, inputs = read(form.request(batch, 0, 2))
        assert inputs["x"].ravel().tolist() == [1, 2]
        assert batch.accept(0, 2, form.answer(answer({"y": inputs["x"]}).SerializeToString()))
        batch.refuse(2, 3, INVALID_ARGUMENT, "three is too many")
        batch.end()
        plane.settle(batch)
        del batch
        assert [call.code for call in calls] == [OK, OK, INVALID_ARGUMENT]
        assert calls[2].text == "three is too many"


def test_a_batch_whose_last_caller_has_left_says_so() -> None:
    with Harness() as plane:
        lane = plane.lane()
        told = []
        lane.on_left = lambda: told.append(1)
        calls = [plane.send(1), plane.send(2)]
        plane.turn()
        (batch,) = plane.batches
        plane.cancel(calls[0])
        assert (len(told), batch.is_abandoned) == (1, False)
        plane.cancel(calls[1])
        assert (len(told), batch.is_abandoned) == (2, True)
        plane.settle(plane.batches.pop())
        del batch


def test_a_deadline_that_passes_while_it_is_away_is_told_too() -> None:
    with Harness() as plane:
        lane = plane.lane()
        told = []
        lane.on_left = lambda: told.append(1)
        call = plane.send(1, grpc_timeout="10m")
        plane.turn()
        (batch,) = plane.batches
        assert batch.deadline_us == plane.now_us + 10_000
        plane.turn(after_us=11_000)
        assert (call.code, told, batch.is_abandoned) == (DEADLINE_EXCEEDED, [1], True)
        plane.settle(plane.batches.pop())
        del batch


def test_the_deadline_of_a_batch_is_its_most_patient_callers() -> None:
    with Harness() as plane:
        plane.lane()
        plane.send(1, grpc_timeout="10m"), plane.send(2, grpc_timeout="30m")
        plane.turn()
        assert plane.batches[0].deadline_us == plane.now_us + 30_000
        plane.finish_all()
        plane.send(1, grpc_timeout="10m"), plane.send(2)
        plane.turn()
        assert plane.batches[0].deadline_us == 0
        plane.finish_all()


def test_ranges_that_are_none_are_refused() -> None:
    with Harness() as plane:
        lane = plane.lane()
        plane.send(1)
        plane.turn()
        (batch,) = plane.batches
        for low, high in ((0, 0), (1, 2), (-1, 1), (0, 2)):
            with pytest.raises(ValueError, match="members"):
                form_of(lane).request(batch, low, high)
            with pytest.raises(ValueError, match="members"):
                batch.accept(low, high, [])
            with pytest.raises(ValueError, match="members"):
                batch.refuse(low, high, INTERNAL, "x")
        with pytest.raises(ValueError, match="code"):
            batch.refuse(0, 1, OK, "x")
        del batch
    assert CANCELLED == 1
