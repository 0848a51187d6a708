"""ModelInfer by plain grpcio stubs: every datatype, every way to send it, each answer equal to ONNX Runtime's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from gateway import pb
from tests.support import reference
from tests.support.gatewayprocess import GatewayProcess, free_port
from tests.support.oip import DTYPES, Array, Bits, Client, arrays, connect, request
from tests.support.reference import assert_same

pytestmark = pytest.mark.conformance


def extremes(datatype: str, rows: int = 3) -> Array:
    """[rows, 4] of the values where an encoding breaks first."""
    dtype = np.dtype(DTYPES[datatype])
    if datatype == "BOOL":
        edge = [True, False, False, True]
    elif dtype.kind == "f":
        edge = [float("nan"), float("-inf"), -0.0, float(np.finfo(dtype).smallest_subnormal)]
    else:
        edge = [np.iinfo(dtype).min, np.iinfo(dtype).max, 0, 1]
    return np.array([edge[turn:] + edge[:turn] for turn in range(rows)], dtype).reshape(rows, 4)


TEXTS = np.array([["", "Füße"], ["語" * 100, "a\0b"], ["\U0001f377", "  "]], object)


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
@pytest.mark.parametrize("datatype", DTYPES)
def test_each_datatype_comes_back_bit_for_bit(client: Client, served_models: Path, datatype: str, typed: bool) -> None:
    if typed and datatype == "FP16":
        pytest.skip("FP16 exists only raw")
    model, inputs = f"identity_{datatype.lower()}", {"x": extremes(datatype)}
    got = client.infer(model, inputs, typed=typed)
    assert_same(got, reference.answer(served_models, model, inputs))
    assert_same(got, {"y": inputs["x"]})


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
def test_text_comes_back_as_it_was_whatever_is_in_it(client: Client, typed: bool) -> None:
    assert_same(client.infer("identity_bytes", {"x": TEXTS}, typed=typed), {"y": TEXTS})


def test_text_that_the_model_makes_itself_comes_whole(client: Client) -> None:
    got = client.infer("named", {"x": np.array(["in"], object)})
    assert list(got["z"]) == [b"", b"a\0b", "Füße 語".encode()]


def test_bf16_travels_as_its_bits(client: Client) -> None:
    bits = Bits([[0x3FC0, 0xBF80], [0x0000, 0x7F80], [0x8000, 0x4049]])  # 1.5, -1, 0, inf, -0, 3.140625
    got = client.infer("bf16_double", {"x": bits})
    assert got["y"].tolist() == [[0x4040, 0xC000], [0x0000, 0x7F80], [0x8000, 0x40C9]]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("model", ["breast_cancer", "digits", "wine"])
def test_demo_models_answer_as_onnx_runtime_does(client: Client, served_models: Path, model: str, version: int) -> None:
    with np.load(served_models / model / str(version) / "golden.npz") as golden:
        inputs = {name.removeprefix("input:"): golden[name] for name in golden.files if name.startswith("input:")}
        labels = golden["output:label"]
    got = client.infer(model, inputs, version=str(version))
    assert_same(got, reference.answer(served_models, model, inputs, version))
    assert [str(text, "utf-8") if isinstance(text, bytes) else text for text in got["label"]] == labels.tolist()
    for at in range(3):  # a row alone, too
        row = {name: values[at : at + 1] for name, values in inputs.items()}
        got = client.infer(model, row, version=str(version))
        assert_same(got, reference.answer(served_models, model, row, version))


def test_an_unversioned_request_gets_the_highest_version_and_is_told_which(client: Client) -> None:
    x = np.ones((2, 4), np.float32)
    answer = client.send(request("versions", {"x": x}))
    assert (answer.model_name, answer.model_version) == ("versions", "3")
    assert arrays(answer)["y"].shape == (2, 5)
    assert client.infer("versions", {"x": x}, version="1")["y"].shape == (2, 2)


# --- inputs and outputs


def six(rows: int = 2) -> dict[str, Array]:
    return {f"x{i}": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2) + 10 * i for i in range(6)}


def test_inputs_may_come_in_any_order(client: Client, served_models: Path) -> None:
    inputs = six()
    shuffled = {name: inputs[name] for name in ("x3", "x0", "x5", "x1", "x4", "x2")}
    assert_same(client.infer("wide", shuffled), reference.answer(served_models, "wide", inputs))
    a, b = np.full((1, 16), 7, np.int32), np.full((1, 16), 5, np.int32)
    got = client.infer("sum_and_difference", {"b": b, "a": a})
    assert_same(got, {"sum": a + b, "difference": a - b})


@pytest.mark.parametrize(
    "wanted", [["y5"], ["y4", "y0"], ["y1", "y0", "y5", "y2"], ["y5", "y4", "y3", "y2", "y1", "y0"]]
)
def test_outputs_come_as_asked_for_in_any_order_and_number(
    client: Client, served_models: Path, wanted: list[str]
) -> None:
    inputs = six()
    expected = reference.answer(served_models, "wide", inputs)
    assert_same(client.infer("wide", inputs, outputs=wanted), {name: expected[name] for name in wanted})


@pytest.mark.parametrize("id", ["", "42", "ünï-☂" * 50])
def test_the_id_is_echoed(client: Client, id: str) -> None:
    answer = client.send(request("linear", {"x": np.ones((1, 4), np.float32)}, id=id))
    assert answer.id == id


def test_unknown_parameters_are_ignored(client: Client) -> None:
    x = np.ones((1, 4), np.float32)
    message = request(
        "identity_fp32", {"x": x}, parameters={"binary_data_output": True, "share": 0.5, "name": "me", "sequence_id": 7}
    )
    message.inputs[0].parameters["binary_data_size"].int64_param = 16
    message.outputs.add(name="y").parameters["classification"].int64_param = 0
    assert_same(arrays(client.send(message)), {"y": x})


def test_typed_contents_may_be_split_and_unpacked(client: Client) -> None:
    """proto3 allows repeated numbers one by one, and a message field in pieces; gateway.pb would write neither."""
    shape, datatype, name = b"\x18\x02\x18\x04", b"\x12\x05INT32", b"\x0a\x01x"
    pieces = [
        b"\x2a" + bytes([len(piece)]) + piece
        for piece in (b"\x10\x01\x10\x02", b"\x12\x05\x03\x04\x05\x06\x07\x10\x08")
    ]
    tensor = name + datatype + shape + b"".join(pieces)
    head = pb.inference.ModelInferRequest(model_name="identity_int32").SerializeToString()
    infer = client.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer", response_deserializer=pb.inference.ModelInferResponse.FromString
    )
    answer = infer(head + b"\x2a" + bytes([len(tensor)]) + tensor, timeout=10)
    assert_same(arrays(answer), {"y": np.arange(1, 9, dtype=np.int32).reshape(2, 4)})


# --- shapes


@pytest.mark.parametrize(
    ("model", "x"),
    [
        ("identity_fp32", np.empty((0, 4), np.float32)),
        ("identity_int64", np.empty((0, 4), np.int64)),
        ("linear", np.empty((0, 4), np.float32)),
        ("row_sums", np.empty((2, 0), np.float32)),
        ("row_sums", np.empty((0, 5), np.float32)),
        ("total", np.empty((0, 4), np.float32)),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.shape),
)
def test_tensors_without_elements_get_their_answer(client: Client, served_models: Path, model: str, x: Array) -> None:
    for typed in (False, True):
        got = client.infer(model, {"x": x}, typed=typed)
        assert_same(got, reference.answer(served_models, model, {"x": x}))


def test_no_texts_at_all_get_their_answer(client: Client) -> None:
    x = np.empty((0, 2), object)
    assert_same(client.infer("identity_bytes", {"x": x}), {"y": x})


@pytest.mark.parametrize(
    ("model", "x"),
    [
        ("no_batch", np.arange(6, dtype=np.float32).reshape(2, 3)),
        ("scalar", np.array(2.5, np.float32)),
        ("fixed_batch", np.arange(12, dtype=np.float32).reshape(3, 4)),
        ("total", np.arange(12, dtype=np.float32).reshape(3, 4)),
        ("row_sums", np.arange(12, dtype=np.float32).reshape(3, 4)),
        ("lookup", np.array([3, 0, 7], np.int64)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_models_with_and_without_rows_answer_as_onnx_runtime_does(
    client: Client, served_models: Path, model: str, x: Array
) -> None:
    assert_same(client.infer(model, {"x": x}), reference.answer(served_models, model, {"x": x}))


def test_probabilities_of_a_zipmap_come_as_a_matrix(client: Client, served_models: Path) -> None:
    x = np.array([[0, 1], [4, 4], [2, 2]], np.float32)
    got = client.infer("zipmap", {"x": x})
    expected = reference.answer(served_models, "zipmap", {"x": x})
    maps: Any = expected["output_probability"]
    assert got["output_label"].tolist() == expected["output_label"].tolist() == [3, 8, got["output_label"][2]]
    assert got["output_probability"].tolist() == [[row[3], row[8]] for row in maps]


# --- the call itself


def test_metadata_and_user_agent_are_no_matter(client: Client) -> None:
    x = np.ones((1, 4), np.float32)
    pairs = (("authorization", "Bearer " + "x" * 2000), ("trace-bin", b"\x00\xff"), ("x-empty", ""))
    answer, call = client._infer.with_call(request("identity_fp32", {"x": x}), metadata=pairs, timeout=10)
    assert_same(arrays(answer), {"y": x})
    assert call.code() is grpc.StatusCode.OK
    assert call.details() == ""


def test_wait_for_ready_bridges_the_start_of_the_server(served_models: Path, tmp_path: Path) -> None:
    port = free_port()
    quick = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200))
    message = request("linear", {"x": np.ones((1, 4), np.float32)})
    with connect(f"127.0.0.1:{port}", *quick) as channel:
        client = Client(channel)
        early = client.start(message, wait_for_ready=True, timeout=50)
        with GatewayProcess(served_models, tmp_path, "--grpc-port", str(port), wait=False) as server:
            answer = early.exception(50)
            if answer is not None:  # it listens before the model is loaded, and says so
                assert answer.code() is grpc.StatusCode.UNAVAILABLE
                assert "model 'linear' does not serve" in answer.details()
            server.wait_ready()
            assert arrays(client.send(message, wait_for_ready=True))["y"].shape == (1, 3)


@pytest.mark.parametrize("rows", [1, 10_240])
def test_forty_megabytes_go_both_ways(client: Client, rows: int) -> None:
    x = np.random.default_rng(0).random((rows, 10_485_760 // rows), np.float32)
    assert x.nbytes == 40 * 2**20
    assert_same(client.infer("identity_wide", {"x": x}, timeout=50), {"y": x})


def test_a_hundred_calls_on_one_connection_each_get_their_own_answer(client: Client) -> None:
    inputs = [np.full((1 + i % 5, 4), i, np.float32) for i in range(100)]
    futures = [client.start(request("identity_fp32", {"x": x}, id=str(i))) for i, x in enumerate(inputs)]
    for i, (x, future) in enumerate(zip(inputs, futures, strict=True)):
        answer = future.result()
        assert answer.id == str(i)
        assert_same(arrays(answer), {"y": x})
