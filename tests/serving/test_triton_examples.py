"""What Triton's own Python examples do with its models `simple`, `simple_string` and `simple_identity`: the same calls
with the same arguments, and what the examples themselves insist on.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpcclient_aio
import tritonclient.http as httpclient
import tritonclient.http.aio as httpclient_aio
from onnx import TensorProto
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.conftest import Serve
from tests.support.gatewayprocess import GatewayProcess
from tests.support.oip import Array
from tests.support.onnxmodels import build, node, store, tensor

pytestmark = [
    pytest.mark.conformance,
    # gevent and geventhttpclient leave sockets and greenlets to the collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SHAPE = ("N", 16)
INPUT0 = np.arange(16, dtype=np.int32)[np.newaxis]
ONES = np.ones((1, 16), np.int32)
MINUS_ONES = np.full((1, 16), -1, np.int32)
TRITON: dict[str, Any] = {"grpc": grpcclient, "http": httpclient}


def simple(datatype: str = "INT32") -> bytes:
    return build(
        [node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]), node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"])],
        [tensor("INPUT0", datatype, SHAPE), tensor("INPUT1", datatype, SHAPE)],
        [tensor("OUTPUT0", datatype, SHAPE), tensor("OUTPUT1", datatype, SHAPE)],
    )


def simple_string() -> bytes:
    """The same on numbers spelled as text."""
    return build(
        [
            node("Cast", ["INPUT0"], ["a"], to=TensorProto.INT32),
            node("Cast", ["INPUT1"], ["b"], to=TensorProto.INT32),
            node("Add", ["a", "b"], ["sum"]),
            node("Sub", ["a", "b"], ["difference"]),
            node("Cast", ["sum"], ["OUTPUT0"], to=TensorProto.STRING),
            node("Cast", ["difference"], ["OUTPUT1"], to=TensorProto.STRING),
        ],
        [tensor("INPUT0", "BYTES", SHAPE), tensor("INPUT1", "BYTES", SHAPE)],
        [tensor("OUTPUT0", "BYTES", SHAPE), tensor("OUTPUT1", "BYTES", SHAPE)],
    )


@pytest.fixture(scope="module")
def gateway(serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    root = tmp_path_factory.mktemp("models")
    store(root, "simple", 1, simple())
    store(root, "simple_int8", 1, simple("INT8"))
    store(root, "simple_string", 1, simple_string())
    identity = build(
        [node("Identity", ["INPUT0"], ["OUTPUT0"])],
        [tensor("INPUT0", "BYTES", SHAPE)],
        [tensor("OUTPUT0", "BYTES", SHAPE)],
    )
    store(root, "simple_identity", 1, identity)
    return serve_for_module(root)


def url_of(gateway: GatewayProcess, protocol: str) -> str:
    return gateway.grpc_url if protocol == "grpc" else gateway.rest_url


@pytest.fixture(params=["grpc", "http"])
def triton(request: pytest.FixtureRequest, gateway: GatewayProcess) -> Iterator[tuple[Any, Any]]:
    """(module, client) of one protocol."""
    module = TRITON[request.param]
    client = module.InferenceServerClient(url=url_of(gateway, request.param), verbose=False)
    yield module, client
    client.close()


def inputs_of(module: Any, *values: Array, datatype: str = "INT32", binary: tuple[bool, ...] = ()) -> list[Any]:
    found = []
    for i, array in enumerate(values):
        tensor = module.InferInput(f"INPUT{i}", list(array.shape), datatype)
        tensor.set_data_from_numpy(array, **({"binary_data": binary[i]} if binary else {}))
        found.append(tensor)
    return found


def outputs_of(module: Any, *binary: bool) -> list[Any]:
    if binary:
        return [module.InferRequestedOutput(f"OUTPUT{i}", binary_data=wish) for i, wish in enumerate(binary)]
    return [module.InferRequestedOutput("OUTPUT0"), module.InferRequestedOutput("OUTPUT1")]


def check(result: Any, input0: Array = INPUT0, input1: Array = ONES) -> None:
    assert np.array_equal(result.as_numpy("OUTPUT0").astype(np.int32), input0 + input1)
    assert np.array_equal(result.as_numpy("OUTPUT1").astype(np.int32), input0 - input1)


# --- simple_http_infer_client, simple_grpc_infer_client


@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_http_infer_with_json_and_binary_side_by_side(gateway: GatewayProcess, coding: str | None) -> None:
    with httpclient.InferenceServerClient(url=gateway.rest_url) as client:
        wishes: dict[str, Any] = {
            "query_params": {"test_1": 1, "test_2": 2},
            "headers": {"x-tenant": "a"},
            "request_compression_algorithm": coding,
            "response_compression_algorithm": coding,
        }
        mixed = partial(inputs_of, httpclient, INPUT0, MINUS_ONES, binary=(False, True))
        result = client.infer("simple", mixed(), outputs=outputs_of(httpclient, True, False), **wishes)
        check(result, input1=MINUS_ONES)
        assert result.get_response()["model_name"] == "simple"
        assert len(client.get_inference_statistics(model_name="simple")["model_stats"]) == 1
        check(client.infer("simple", mixed(), outputs=None, **wishes), input1=MINUS_ONES)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("wrong_model_name", mixed(), outputs=outputs_of(httpclient, True, False), **wishes)
        assert caught.value.message().startswith("Request for unknown model")
        with pytest.raises(InferenceServerException) as caught:
            client.get_model_metadata("wrong_model_name")
        assert "Request for unknown model" in caught.value.message()


@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_grpc_infer_with_and_without_named_outputs(gateway: GatewayProcess, coding: str | None) -> None:
    with grpcclient.InferenceServerClient(url=gateway.grpc_url) as client:
        inputs = inputs_of(grpcclient, INPUT0, MINUS_ONES)
        result = client.infer(
            model_name="simple",
            inputs=inputs,
            outputs=outputs_of(grpcclient),
            client_timeout=20,
            headers={"test": "1"},
            compression_algorithm=coding,
        )
        check(result, input1=MINUS_ONES)
        assert len(client.get_inference_statistics(model_name="simple").model_stats) == 1
        result = client.infer(model_name="simple", inputs=inputs, outputs=None, compression_algorithm=coding)
        check(result, input1=MINUS_ONES)


def test_health_and_metadata(triton: tuple[Any, Any]) -> None:
    module, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple")
    if module is httpclient:
        assert client.is_server_live(query_params={"test_1": 1, "test_2": 2})
        assert client.get_model_metadata("simple", query_params={"test_1": 1, "test_2": 2})["name"] == "simple"
    else:
        assert client.get_model_metadata("simple").name == "simple"
        assert client.get_model_config("simple").config.name == "simple"
    with pytest.raises(InferenceServerException, match="Request for unknown model"):
        client.get_model_metadata("wrong_model_name")


# --- simple_*_async_infer_client


def test_http_async_infer_hands_out_results_later(gateway: GatewayProcess) -> None:
    with httpclient.InferenceServerClient(url=gateway.rest_url, concurrency=2) as client:
        inputs = inputs_of(httpclient, INPUT0, ONES, binary=(True, True))
        pending = [client.async_infer("simple", inputs, outputs=outputs_of(httpclient, True, True)) for _ in range(8)]
        for request in pending:
            check(request.get_result())


def test_grpc_async_infer_calls_back(gateway: GatewayProcess) -> None:
    heard: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with grpcclient.InferenceServerClient(url=gateway.grpc_url) as client:
        for _ in range(8):
            client.async_infer(
                model_name="simple",
                inputs=inputs_of(grpcclient, INPUT0, ONES),
                callback=lambda result, error: heard.put((result, error)),
                outputs=outputs_of(grpcclient),
                client_timeout=20,
            )
        for _ in range(8):
            result, error = heard.get(timeout=20)
            assert error is None
            check(result)


# --- simple_*_aio_infer_client


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_aio_infer(gateway: GatewayProcess, protocol: str) -> None:
    module = TRITON[protocol]
    client_module: Any = grpcclient_aio if protocol == "grpc" else httpclient_aio
    async with client_module.InferenceServerClient(url=url_of(gateway, protocol)) as client:
        for outputs in (outputs_of(module), None):
            check(await client.infer("simple", inputs_of(module, INPUT0, ONES), outputs=outputs))
        statistics = await client.get_inference_statistics(model_name="simple")
        assert len(statistics["model_stats"] if protocol == "http" else statistics.model_stats) == 1
        texts = spelled(INPUT0), spelled(ONES)
        check(await client.infer("simple_string", inputs_of(module, *texts, datatype="BYTES")))


# --- simple_*_string_infer_client


def spelled(values: Array) -> Array:
    texts = np.array([str(value).encode() for value in values.ravel()], np.object_)
    return texts.reshape(values.shape)


def test_strings_of_numbers(triton: tuple[Any, Any]) -> None:
    module, client = triton
    inputs = inputs_of(module, spelled(INPUT0), spelled(ONES), datatype="BYTES")
    check(client.infer(model_name="simple_string", inputs=inputs, outputs=outputs_of(module)))


@pytest.mark.parametrize("binary", [True, False])
def test_http_strings_as_json_and_as_binary(gateway: GatewayProcess, binary: bool) -> None:
    with httpclient.InferenceServerClient(url=gateway.rest_url) as client:
        texts = spelled(INPUT0), spelled(ONES)
        inputs = inputs_of(httpclient, *texts, datatype="BYTES", binary=(not binary, binary))
        check(client.infer("simple_string", inputs, outputs=outputs_of(httpclient, binary, not binary)))


@pytest.mark.parametrize(
    "values",
    [np.array([[b"he\0llo"] * 16], np.object_), np.array([[b"\0\1\2\3"] * 16], np.bytes_)],
    ids=["a NUL inside", "numpy's fixed width bytes"],
)
def test_bytes_come_back_as_they_went(triton: tuple[Any, Any], values: Array) -> None:
    module, client = triton
    inputs = inputs_of(module, values, datatype="BYTES")
    result = client.infer("simple_identity", inputs, outputs=[module.InferRequestedOutput("OUTPUT0")])
    assert result.as_numpy("OUTPUT0").ravel().tolist() == values.ravel().tolist()


# --- reuse_infer_objects_client, without shared memory


def test_the_same_objects_serve_several_requests(triton: tuple[Any, Any]) -> None:
    module, client = triton
    inputs, outputs = inputs_of(module, INPUT0, ONES), outputs_of(module)
    check(client.infer(model_name="simple", inputs=inputs, outputs=outputs))
    inputs[1].set_data_from_numpy(ONES * 2)
    check(client.infer(model_name="simple", inputs=inputs, outputs=outputs), input1=ONES * 2)


# --- simple_grpc_keepalive_client, simple_grpc_custom_args_client


@pytest.mark.parametrize(
    "settings",
    [
        {"keepalive_options": grpcclient.KeepAliveOptions(keepalive_time_ms=200, keepalive_timeout_ms=20_000)},
        {"channel_args": [("grpc.primary_user_agent", "custom"), ("grpc.lb_policy_name", "pick_first")]},
    ],
)
def test_channels_with_settings_of_their_own(gateway: GatewayProcess, settings: dict[str, Any]) -> None:
    with grpcclient.InferenceServerClient(url=gateway.grpc_url, **settings) as client:
        check(client.infer("simple", inputs_of(grpcclient, INPUT0, ONES)))


# --- grpc_explicit_int_content_client and its kin: the stubs alone, with typed contents


def explicit(model: str, datatype: str, fill: Callable[[Any, Array], None]) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, model_version="")
    for name, values in (("INPUT0", INPUT0), ("INPUT1", ONES)):
        given = service_pb2.ModelInferRequest().InferInputTensor()
        given.name, given.datatype = name, datatype
        given.shape.extend([1, 16])
        fill(given.contents, values)
        request.inputs.extend([given])
    for name in ("OUTPUT0", "OUTPUT1"):
        wanted = service_pb2.ModelInferRequest().InferRequestedOutputTensor()
        wanted.name = name
        request.outputs.extend([wanted])
    return request


def ints(contents: Any, values: Array) -> None:
    contents.int_contents[:] = values.ravel().tolist()


def texts(contents: Any, values: Array) -> None:
    contents.bytes_contents[:] = [str(value).encode() for value in values.ravel()]


@pytest.mark.parametrize(
    ("model", "datatype", "fill"),
    [("simple", "INT32", ints), ("simple_int8", "INT8", ints), ("simple_string", "BYTES", texts)],
)
def test_explicit_contents(
    gateway: GatewayProcess, model: str, datatype: str, fill: Callable[[Any, Array], None]
) -> None:
    with grpc.insecure_channel(gateway.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = explicit(model, datatype, fill)
        response = stub.ModelInfer(request, timeout=20)
        check(grpcclient.InferResult(response))
        # More of a tensor beside its contents is an error, and says so in the words that the example looks for.
        request.raw_input_contents.extend([INPUT0[0, :8].tobytes()])
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request, timeout=20)
        assert (
            "contents field must not be specified when using raw_input_contents for 'INPUT0' "
            f"for model '{model}'" in str(caught.value.details())
        )
