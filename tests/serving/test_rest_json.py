"""JSON tensors: every datatype, nested and flat, and what is refused by which words."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.gatewayprocess import GatewayProcess
from tests.support.oip import DTYPES, Client
from tests.support.rest import RestClient, arrays_of, one, tensor


@pytest.fixture(scope="module")
def rest(server: GatewayProcess) -> Iterator[RestClient]:
    with RestClient(server.rest_url) as client:
        yield client


VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, True, True],
    "FP32": [0.1, -3.4028235e38, 1e-45, 16777217],
    "FP64": [0.1, 1.7976931348623157e308, 5e-324, -7],
    **{
        name: [int(np.iinfo(dtype).min), int(np.iinfo(dtype).max), 0, 1]
        for name, dtype in DTYPES.items()
        if "INT" in name
    },
}


@pytest.mark.parametrize("datatype", VALUES)
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_every_datatype_comes_back_as_it_went(rest: RestClient, datatype: str, nested: bool) -> None:
    values = VALUES[datatype]
    data = [[value] * 4 for value in values] if nested else [value for value in values for _ in range(4)]
    answer = rest.infer(f"identity_{datatype.lower()}", one(datatype, (4, 4), data))
    wanted = np.array(values, DTYPES[datatype]).repeat(4).reshape(4, 4)
    (output,) = arrays_of(answer).values()
    assert output.tobytes() == wanted.tobytes()
    assert len(answer.json["outputs"][0]["data"]) == 16


def test_an_answer_equals_that_of_grpc_bit_for_bit(rest: RestClient, client: Client) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        x = (rng.standard_normal((3, 4)) * 10.0 ** rng.integers(-20, 20)).astype(np.float32)
        wanted = client.infer("linear", {"x": x})
        answer = arrays_of(rest.infer("linear", one("FP32", x.shape, x.tolist())))
        assert {name: array.tobytes() for name, array in answer.items()} == {
            name: array.tobytes() for name, array in wanted.items()
        }


def test_strings_come_back_as_they_went(rest: RestClient) -> None:
    texts = ["", "a\0b", "Füße 語 😀", '":{"a":1', "x" * 1000, "\\"]
    for data in (texts, [texts[:2], texts[2:4], texts[4:]]):
        answer = rest.infer("identity_bytes", one("BYTES", (3, 2), data))
        assert answer.json["outputs"][0]["data"] == texts


def test_nan_and_infinities_are_strings_both_ways(rest: RestClient) -> None:
    for datatype in ("FP32", "FP64"):
        answer = rest.infer(f"identity_{datatype.lower()}", one(datatype, data=["NaN", "Infinity", "-Infinity", 0.1]))
        assert answer.json["outputs"][0]["data"] == ["NaN", "Infinity", "-Infinity", 0.1]


def test_numbers_and_other_objects_named_null_stay(rest: RestClient) -> None:
    assert rest.infer("identity_fp32", one(id="null")).json["outputs"][0]["data"] == [1, 2, 3, 4]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_floats_are_refused_with_the_cure(rest: RestClient, datatype: str) -> None:
    model = {"FP16": "identity_fp16", "BF16": "bf16_double"}[datatype]
    answer = rest.infer(model, one(datatype))
    assert answer.status == 400
    assert "binary" in answer.error
    width = 4 if datatype == "FP16" else 2
    body = json.dumps({"inputs": [tensor("x", datatype, [1, width], parameters={"binary_data_size": 2 * width})]})
    headers = {"Inference-Header-Content-Length": str(len(body))}
    answer = rest.infer(model, body.encode() + bytes(2 * width), **headers)
    assert answer.status == 400
    assert "binary_data" in answer.error


def test_an_empty_batch_is_answered_as_grpc_does(rest: RestClient, client: Client) -> None:
    wanted = client.infer("identity_fp32", {"x": np.empty((0, 4), np.float32)})["y"]
    answer = rest.infer("identity_fp32", one(shape=(0, 4), data=[]))
    assert arrays_of(answer)["y"].shape == wanted.shape == (0, 4)


def test_requested_outputs_come_in_their_order(rest: RestClient) -> None:
    inputs = [tensor(name, "INT32", [1, 16], list(range(16))) for name in ("INPUT0", "INPUT1")]
    metadata = rest.get("/v2/models/sum_and_difference").json
    names = [output["name"] for output in metadata["outputs"]]
    inputs = [tensor(spec["name"], "INT32", [1, 16], list(range(16))) for spec in metadata["inputs"]]
    body = {"inputs": inputs, "outputs": [{"name": name} for name in reversed(names)]}
    answer = rest.infer("sum_and_difference", body)
    assert [output["name"] for output in answer.json["outputs"]] == names[::-1]
    del body["outputs"]
    assert [output["name"] for output in rest.infer("sum_and_difference", body).json["outputs"]] == names


def test_versions_are_chosen_by_the_path(rest: RestClient) -> None:
    for version, width in (("1", 2), ("3", 5)):
        answer = rest.post(f"/v2/models/versions/versions/{version}/infer", one())
        assert answer.json["model_version"] == version
        assert answer.json["outputs"][0]["shape"] == [1, width]
    assert rest.infer("versions", one()).json["model_version"] == "3"


def test_unknown_fields_are_ignored(rest: RestClient) -> None:
    body = one(unknown={"a": [{"b": 1, "c": {"d": ": : :"}}]}, parameters={"mine": 1.5, "other": {"x": 1}})
    assert rest.infer("identity_fp32", body).status == 200


def without(field: str) -> Any:
    body = one()
    del body["inputs"][0][field]
    return body


def raw(text: str) -> bytes:
    return text.encode()


X = '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":%s}]}'

REFUSED: list[tuple[str, Any, str]] = [
    ("nothing", b"", "is no JSON"),
    ("garbage", b"\xff\xfe\x00", "is no JSON"),
    ("a list", [1], "got a list, expected a JSON object"),
    ("bare NaN", raw(X % "[NaN,1,2,3]"), 'write the string "NaN"'),
    ("bare infinity", raw(X % "[1,-Infinity,2,3]"), 'write the string "-Infinity"'),
    ("a key twice", raw('{"id":"a","id":"b","inputs":[]}'), "the key 'id' comes twice"),
    ("a key twice inside", raw(X.replace('"shape"', '"name":"y","shape"') % "[1]"), "the key 'name' comes twice"),
    ("a key twice beside a colon in text", raw('{"id":":","id":"b","inputs":[]}'), "'id' comes twice"),
    ("no inputs", {}, "inputs: missing"),
    ("inputs is no list", {"inputs": {}}, "inputs: got an object, expected a list"),
    ("an input is no object", {"inputs": [3]}, "inputs[0]: expected an object"),
    ("no name", without("name"), "inputs[0].name: missing"),
    ("no shape", without("shape"), "inputs[0].shape: missing"),
    ("no datatype", without("datatype"), "inputs[0].datatype: missing"),
    ("no data", without("data"), "inputs[0].data: missing"),
    ("null data", raw(X % "null"), "inputs[0].data: got null"),
    ("a number as id", one(id=7), "id: got a whole number, expected a string"),
    ("a negative size", one(shape=(-1, 4)), "inputs[0].shape[0]: got -1"),
    ("a size with a fraction", one(shape=(1.5, 4)), "inputs[0].shape[0]: got 1.5"),
    ("a boolean size", one(shape=(True, 4)), "inputs[0].shape[0]"),
    ("a huge size", one(shape=(2**70, 4)), "inputs[0].shape[0]"),
    ("sizes whose product is huge", one(shape=(2**40, 2**40)), "inputs[0].data: got 4 elements"),
    ("no such datatype", one("FP99"), "inputs[0].datatype: got 'FP99'"),
    ("another datatype", one("INT32"), "expected FP32"),
    ("too few", one(data=[1, 2, 3]), "inputs[0].data: got 3 elements, expected 4"),
    ("another shape than the model's", one(shape=(2, 2)), "got shape [2,2], expected"),
    ("a string among numbers", one(data=[1, "2", 3, 4]), "element 1 is a string"),
    ("null among numbers", one(data=[1, None, 3, 4]), "element 1 is null"),
    ("true among numbers", one(data=[1, True, 3, 4]), "element 1 is true or false (True)"),
    ("an object among numbers", one(data=[1, {}, 3, 4]), "element 1 is an object"),
    ("more than FP32 holds", one(data=[1, 2, 1e39, 4]), "element 2 is 1e+39, which FP32 cannot hold"),
    ("a number of 400 digits", raw(X % ("[1,2,3," + "9" * 400 + "]")), "400"),
    ("a row too short", one(data=[[1, 2, 3]]), "inputs[0].data[0]: got 3 elements, expected a list of 4"),
    ("rows among numbers", one(shape=(2, 2), data=[[1, 2], 3]), "inputs[0].data[1]: got a whole number"),
    ("numbers among rows", one(data=[1, [2], 3, 4]), "element 1 is a list"),
    ("too deep", one(data=[[[[1]]]] * 4), "inputs[0].data"),
    ("too many rows", one(data=[[1, 2, 3, 4]] * 2), "inputs[0].data: got 2 elements, expected 1"),
    ("a negative timeout", one(parameters={"timeout": -1}), "parameters.timeout: got -1"),
    ("a text as priority", one(parameters={"priority": "high"}), "parameters.priority: got a string"),
    ("no such output", one(outputs=[{"name": "z"}]), "got 'z', expected"),
    ("an output twice", one(outputs=[{"name": "y"}] * 2), "outputs[1].name: 'y' is asked for twice"),
    ("binary without header", one() | {"inputs": [tensor("x", "FP32", [1, 4], parameters={"binary_data_size": 16})]},
     "came without the header"),
    ("no such input", {"inputs": [tensor("z", "FP32", [1, 4], [1, 2, 3, 4])]}, "got 'z'"),
]  # fmt: skip

OVERFLOWS: list[tuple[str, Any]] = [("INT8", 128), ("UINT8", -1), ("INT64", 2**63), ("UINT64", 2**64), ("INT32", 1.0)]


@pytest.mark.parametrize(("body", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_wrong_request_is_400_and_names_the_field(rest: RestClient, body: Any, words: str) -> None:
    answer = rest.infer("identity_fp32", body)
    assert answer.status == 400, answer.body
    if words != "400":
        assert words in answer.error
    assert rest.infer("identity_fp32", one()).status == 200


@pytest.mark.parametrize(("datatype", "value"), OVERFLOWS)
def test_whole_numbers_out_of_range_are_refused(rest: RestClient, datatype: str, value: Any) -> None:
    answer = rest.infer(f"identity_{datatype.lower()}", one(datatype, data=[0, 0, value, 0]))
    assert answer.status == 400
    assert "element 2 is" in answer.error


def test_one_overflow_among_many_is_found(rest: RestClient) -> None:
    answer = rest.infer("identity_fp32", one(shape=(50, 4), data=[1.0] * 150 + [-1e39] + [1.0] * 49))
    assert "element 150 is -1e+39" in answer.error


def test_a_boolean_is_true_or_false(rest: RestClient) -> None:
    assert (
        "element 0 is a whole number (1), expected true or false"
        in rest.infer("identity_bool", one("BOOL", data=[1, 0, 1, 0])).error
    )


def test_an_error_carries_the_id_of_its_request(rest: RestClient) -> None:
    assert rest.infer("identity_fp32", one("INT8", id="q-7")).json["id"] == "q-7"
    assert rest.infer("identity_fp32", b"{", X_Request_Id="h-9").json["id"] == "h-9"
    assert rest.infer("missing", one(id="q-8")).json["id"] == "q-8"


def test_statuses_follow_the_table(rest: RestClient) -> None:
    assert rest.infer("missing", one()).status == 404
    assert rest.post("/v2/models/versions/versions/2/infer", one()).status == 404
    memory = one() | {"inputs": [tensor("x", "FP32", [1, 4], parameters={"shared_memory_region": "r"})]}
    assert rest.infer("identity_fp32", memory).status == 501


ATTACKS: list[tuple[str, Callable[[], bytes]]] = [
    ("depth bomb", lambda: b"[" * 5_000_000),
    ("balanced depth", lambda: b"[" * 500_000 + b"]" * 500_000),
    ("depth in data", lambda: raw(X % ("[" * 900 + "1" + "]" * 900))),
    ("objects", lambda: raw(X % ("[" + "{}," * 3_000_000 + "{}]"))),
    ("lists", lambda: raw(X % ("[" + "[]," * 3_000_000 + "[]]"))),
    ("garbage", lambda: bytes(range(256)) * 40_000),
    ("quotes", lambda: b'"' * 10_000_000),
    (
        "a long name",
        lambda: raw('{"inputs":[{"name":"%s","shape":[1],"datatype":"FP32","data":[1]}]}' % ("x" * 9_000_000)),
    ),
    ("many keys", lambda: raw("{" + ",".join(f'"{i}":0' for i in range(500_000)) + "}")),
    ("one key often", lambda: raw("{" + '"k":0,' * 1_000_000 + '"k":1}')),
    ("escaped quotes", lambda: raw('{"a":"' + '\\"' * 4_000_000 + ':","a":1}')),
    ("huge integers", lambda: raw(X % ("[" + "9" * 9_000_000 + "]"))),
]


@pytest.mark.slow
@pytest.mark.parametrize("make", [make for _, make in ATTACKS], ids=[name for name, _ in ATTACKS])
def test_megabytes_of_nonsense_are_refused_briefly(rest: RestClient, make: Callable[[], bytes]) -> None:
    answer = rest.infer("identity_fp32", make())
    assert answer.status == 400
    assert len(answer.body) < 2000
    assert rest.infer("identity_fp32", one()).status == 200


@pytest.mark.slow
@pytest.mark.leak
def test_memory_stays_flat_under_nonsense(server: GatewayProcess, rest: RestClient) -> None:
    bodies = [make() for _, make in ATTACKS]

    def growth_bytes() -> int:
        before = server.rss_bytes()
        for body in bodies:
            rest.infer("identity_fp32", body)
        return server.rss_bytes() - before

    growth_bytes()
    assert any(growth_bytes() < 33 * 2**20 for _ in range(3))  # what is lost is lost each time


def test_json_beyond_its_limit_is_413(rest: RestClient) -> None:
    answer = rest.infer("identity_fp32", b" " * (16 * 2**20 + 1))
    assert answer.status == 413
    assert "binary" in answer.error


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
def test_compressed_requests_are_read(rest: RestClient, coding: str) -> None:
    body = json.dumps(one()).encode()
    machine = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gzip.compress(body[:9]) + gzip.compress(body[9:]),
        "deflate": zlib.compress(body),
        "raw deflate": machine.compress(body) + machine.flush(),
    }[coding]
    assert rest.infer("identity_fp32", packed, Content_Encoding=coding.split()[-1]).status == 200


@pytest.mark.parametrize(
    ("body", "coding", "status", "words"),
    [
        (b"no gzip", "gzip", 400, "damaged gzip"),
        (gzip.compress(b"{}")[:-3], "gzip", 400, "ends too early"),
        (gzip.compress(b"{}") + b"more", "gzip", 400, "follow the gzip data"),
        (zlib.compress(b"{}") + b"more", "deflate", 400, "follow the deflate data"),
        (b"x", "br", 415, "expected gzip, deflate"),
        (gzip.compress(bytes(80 * 2**20), 9), "gzip", 413, "after gzip decompression"),
        (b"", "gzip", 400, "is no JSON"),
    ],
    ids=lambda value: "body" if isinstance(value, bytes) else None,  # gzip writes the time into it
)
def test_bad_compression_is_refused(rest: RestClient, body: bytes, coding: str, status: int, words: str) -> None:
    answer = rest.infer("identity_fp32", body, Content_Encoding=coding)
    assert answer.status == status
    assert words in answer.error


def test_answers_are_compressed_for_who_asks(rest: RestClient) -> None:
    large = one(shape=(1000, 4), data=[0.5] * 4000)
    plain = rest.infer("identity_fp32", large)
    assert "content-encoding" not in plain.headers
    for accept, coding in (("gzip", "gzip"), ("deflate;q=0.5, br", "deflate"), ("gzip;q=0, *;q=0", None)):
        answer = rest.infer("identity_fp32", large, Accept_Encoding=accept)
        assert answer.headers.get("content-encoding") == coding
        body = zlib.decompress(answer.body, 47) if coding else answer.body
        assert body == plain.body
    assert "content-encoding" not in rest.infer("identity_fp32", one(), Accept_Encoding="gzip").headers
    assert "content-encoding" not in rest.get("/v2/openapi.json", Accept_Encoding="gzip").headers


def test_floats_survive_the_shortest_digits() -> None:
    from gateway.serving.rest import jsontensors

    bits = np.random.default_rng(3).integers(0, 2**32, 20_000, np.uint32)
    values = bits.view(np.float32)
    listed = jsontensors.with_special_values(jsontensors.decode("y", "FP32", memoryview(values.tobytes())))
    back = np.frombuffer(jsontensors.encode("x", "FP32", [len(values)], listed), np.float32)
    same = (back.view(np.uint32) == bits) | (np.isnan(values) & np.isnan(back))
    assert same.all()
    assert any(math.isnan(value) for value in values)
