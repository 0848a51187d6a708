"""The binary tensor extension, raw binary requests, and classification."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.gatewayprocess import GatewayProcess
from tests.support.oip import DTYPES, Array, Bits, Client
from tests.support.onnxmodels import identity, linear, store
from tests.support.rest import LENGTH, RestClient, arrays_of, binary_body, one, tensor


@pytest.fixture(scope="module")
def rest(server: GatewayProcess) -> Iterator[RestClient]:
    with RestClient(server.rest_url) as client:
        yield client


def bits(array: Array) -> bytes:
    return b"".join(array.ravel().tolist()) if array.dtype == object else array.tobytes()


@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES", "BF16"])
def test_binary_in_and_out_equals_grpc_bit_for_bit(rest: RestClient, client: Client, datatype: str) -> None:
    rng = np.random.default_rng(5)
    values: Array | Bits
    if datatype == "BYTES":
        model, values = "identity_bytes", np.array([["", "ü"], ["a\0", "x" * 300]], object)
    elif datatype == "BF16":
        model, values = "bf16_double", Bits(rng.integers(0, 0x7000, (3, 2)))
    elif datatype == "BOOL":
        model, values = "identity_bool", rng.integers(0, 2, (3, 4)).astype(np.bool_)
    else:
        dtype = np.dtype(DTYPES[datatype])
        model = f"identity_{datatype.lower()}"
        values = np.frombuffer(rng.bytes(12 * dtype.itemsize), dtype).reshape(3, 4)
    body, headers = binary_body({"x": values})
    answer = rest.infer(model, body, **headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    got, wanted = arrays_of(answer), client.infer(model, {"x": values})
    assert {name: (a.shape, bits(a)) for name, a in got.items()} == {
        name: (a.shape, bits(a)) for name, a in wanted.items()
    }


def test_large_tensors_pass_whole(rest: RestClient) -> None:
    values = np.random.default_rng(1).standard_normal((300, 4000)).astype(np.float32)
    body, headers = binary_body({"x": values})
    for _ in range(3):
        (output,) = arrays_of(rest.infer("identity_wide", body, **headers)).values()
        assert output.tobytes() == values.tobytes()


def test_json_and_binary_mix_in_one_request_and_answer(rest: RestClient) -> None:
    left, right = np.arange(16, dtype=np.int32).reshape(1, 16), np.ones((1, 16), np.int32)
    names = [spec["name"] for spec in rest.get("/v2/models/sum_and_difference").json["inputs"]]
    outputs = [spec["name"] for spec in rest.get("/v2/models/sum_and_difference").json["outputs"]]
    document = {
        "inputs": [
            tensor(names[0], "INT32", [1, 16], left.tolist()),
            tensor(names[1], "INT32", [1, 16], parameters={"binary_data_size": 64}),
        ],
        "outputs": [{"name": outputs[0], "parameters": {"binary_data": True}}, {"name": outputs[1]}],
    }
    head = json.dumps(document).encode()
    answer = rest.infer("sum_and_difference", head + right.tobytes(), **{LENGTH: str(len(head))})
    assert "data" in json.loads(answer.body[: int(answer.headers[LENGTH.lower()])])["outputs"][1]
    found = arrays_of(answer)
    assert found[outputs[0]].tolist() == (left + right).tolist()
    assert found[outputs[1]].tolist() == (left - right).tolist()


def test_an_outputs_own_wish_wins_over_the_requests(rest: RestClient) -> None:
    body = one(parameters={"binary_data_output": True}, outputs=[{"name": "y", "parameters": {"binary_data": False}}])
    answer = rest.infer("identity_fp32", body)
    assert LENGTH.lower() not in answer.headers
    assert answer.json["outputs"][0]["data"] == [1, 2, 3, 4]


def test_compressed_binary_both_ways(rest: RestClient) -> None:
    values = np.zeros((100, 400), np.float32)
    body, headers = binary_body({"x": values})
    answer = rest.infer(
        "identity_wide", zlib.compress(body), Content_Encoding="deflate", Accept_Encoding="gzip", **headers
    )
    assert answer.headers["content-encoding"] == "gzip"
    answer.body = zlib.decompress(answer.body, 47)
    assert arrays_of(answer)["y"].tobytes() == values.tobytes()
    several = rest.infer("identity_wide", body, Accept_Encoding="gzip, deflate, br", **headers)
    assert "content-encoding" not in several.headers


def test_a_body_without_json_is_the_one_input(rest: RestClient) -> None:
    for model, body, shape in (
        ("linear", np.arange(4, dtype=np.float32).tobytes(), [1, 3]),
        ("identity_wide", bytes(40), [1, 10]),
        ("no_batch", bytes(24), [2, 3]),
    ):
        answer = rest.infer(model, body, **{LENGTH: "0"})
        (output,) = arrays_of(answer).values()
        assert list(output.shape) == shape
        assert LENGTH.lower() in answer.headers


def test_a_raw_body_is_one_string(rest: RestClient) -> None:
    answer = rest.infer("named", "any bytes ü".encode(), **{LENGTH: "0"})
    assert arrays_of(answer)["y"].tolist() == ["any bytes ü".encode()]


FOUR = [tensor("x", "FP32", [1, 4], parameters={"binary_data_size": 16})]


@pytest.mark.parametrize(
    ("model", "document", "tail", "length", "words"),
    [
        ("identity_fp32", {"inputs": FOUR}, bytes(15), None, "got 16, but 15 bytes are left"),
        ("identity_fp32", {"inputs": FOUR}, bytes(17), None, "1 bytes follow the last tensor"),
        ("identity_fp32", {"inputs": FOUR}, bytes(16), "99999", "got '99999', expected the bytes of JSON"),
        ("identity_fp32", {"inputs": FOUR}, bytes(16), "-1", "got '-1'"),
        ("identity_fp32", {"inputs": FOUR}, bytes(16), "9" * 30, "expected the bytes of JSON"),
        ("identity_fp32", {"inputs": FOUR}, bytes(16), "7", "is no JSON"),
        ("identity_fp32", {"inputs": [{**FOUR[0], "data": [1]}]}, bytes(16), None, "together with binary_data_size"),
        ("identity_fp32", {"inputs": [tensor("x", "FP32", [1, 4], parameters={"binary_data_size": 12})]}, bytes(12),
         None, "got 12 bytes"),
        ("identity_fp32", {"inputs": [tensor("x", "FP32", [1, 4], parameters={"binary_data_size": True})]}, b"",
         None, "got true or false, expected a whole number"),
        ("identity_fp32", None, bytes(15), "0", "got 15 bytes, expected 16"),
        ("identity_wide", None, bytes(15), "0", "expected a multiple of 4"),
        ("sum_and_difference", None, bytes(64), "0", "2 inputs"),
        ("identity_bytes", None, b"text", "0", "one string cannot fill it"),
        ("identity_bytes", {"inputs": [tensor("x", "BYTES", [1, 2], parameters={"binary_data_size": 6})]},
         b"\xff\0\0\0ab", None, "cut short"),
    ],
)  # fmt: skip
def test_wrong_binary_is_400_and_says_why(
    rest: RestClient, model: str, document: Any, tail: bytes, length: str | None, words: str
) -> None:
    head = b"" if document is None else json.dumps(document).encode()
    answer = rest.infer(model, head + tail, **{LENGTH: length or str(len(head))})
    assert answer.status == 400, answer.body
    assert words in answer.error


# --- classification


@pytest.fixture(scope="module")
def labelled(serve_for_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestClient]:
    root = tmp_path_factory.mktemp("labelled")
    store(root, "identity", 1, identity("FP32", ("N", 4)))
    store(root, "identity", 2, identity("FP32", ("N", 4)))
    store(root, "linear", 1, linear())
    store(root, "whole", 1, identity("INT64", ("N", 3)))
    (root / "identity" / "2" / "labels.txt").write_text("ant\nbee\n\ncat\n")
    (root / "linear" / "1" / "labels.y.txt").write_text("only\n")
    (root / "linear" / "1" / "labels.txt").write_text("never\n")
    with RestClient(serve_for_module(root).rest_url) as client:
        yield client


def classes(n: int, **parameters: Any) -> dict[str, Any]:
    return {"outputs": [{"name": "y", "parameters": {"classification": n, **parameters}}]}


def test_the_top_n_of_each_row_come_as_value_index_label(labelled: RestClient) -> None:
    data = [[0.5, 0.25, 0.125, 0.1], [1, 1, 3, 1]]
    (output,) = labelled.infer("identity", one(shape=(2, 4), data=data, **classes(3))).json["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 3])
    assert output["data"] == ["0.5:0:ant", "0.25:1:bee", "0.125:2", "3.0:2", "1.0:0:ant", "1.0:1:bee"]


def test_without_labels_there_are_values_and_indexes(labelled: RestClient) -> None:
    answer = labelled.post("/v2/models/identity/versions/1/infer", one(data=[0.1, "NaN", "Infinity", -2], **classes(9)))
    assert answer.json["outputs"][0]["shape"] == [1, 4]
    assert answer.json["outputs"][0]["data"] == ["inf:2", "0.1:0", "-2.0:3", "nan:1"]
    whole = labelled.infer("whole", one("INT64", (1, 3), [5, -7, 2**53 + 1], **classes(1)))
    assert whole.json["outputs"][0]["data"] == [f"{2**53 + 1}:2"]


def test_classes_can_come_as_binary(labelled: RestClient) -> None:
    answer = labelled.infer("identity", one(data=[4, 3, 2, 1], **classes(2, binary_data=True)))
    assert arrays_of(answer)["y"].tolist() == [[b"4.0:0:ant", b"3.0:1:bee"]]


def test_an_outputs_own_label_file_wins(labelled: RestClient) -> None:
    (output,) = labelled.infer("linear", one(**classes(3))).json["outputs"]
    assert sorted(text.split(":")[1:] for text in output["data"]) == [["0", "only"], ["1"], ["2"]]


def test_text_cannot_be_classified(rest: RestClient) -> None:
    answer = rest.infer("identity_bytes", one("BYTES", (1, 2), ["a", "b"], **classes(1)))
    assert answer.status == 400
    assert "BYTES" in answer.error


def test_label_files_stay_inside_their_folder(tmp_path: Path) -> None:
    from gateway.serving.rest.classification import Labels

    store(tmp_path, "m", 1, linear())
    (tmp_path / "m" / "1" / "labels.txt").write_text("a\n")
    (tmp_path / "labels.txt").write_text("b\n")
    labels = Labels(tmp_path)
    assert labels.of("m", "1", "../../labels") == labels.of("m", "1", "y\0") == ["a"]
    (tmp_path / "m" / "1" / "labels.txt").write_text("changed\n")
    assert labels.of("m", "1", "y") == ["changed"]
