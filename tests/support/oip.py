"""The Open Inference Protocol as a careful client speaks it: arrays into requests, answers into arrays, over plain
grpcio and the message classes of gateway.pb.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np

from gateway import pb
from tests.support.conditions import eventually, is_repeated, lasting

Array = np.ndarray[Any, Any]
Inputs = Mapping[str, "Array | Bits"]

SERVICE = "inference.GRPCInferenceService"
INFER = f"/{SERVICE}/ModelInfer"
STREAM_INFER = f"/{SERVICE}/ModelStreamInfer"

DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class Bits:
    """A BF16 tensor as its 16-bit patterns."""

    def __init__(self, values: Any) -> None:
        self.values = np.ascontiguousarray(values, np.uint16)


# --- arrays and bytes


def datatype_of(values: Array | Bits) -> str:
    if isinstance(values, Bits):
        return "BF16"
    return "BYTES" if values.dtype.kind in "OUS" else _NAMES[values.dtype]


def as_bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()


def packed(values: Array | Bits) -> bytes:
    """As raw_input_contents has it."""
    if isinstance(values, Bits):
        return values.values.astype("<u2").tobytes()
    if values.dtype.kind in "OUS":
        return b"".join(struct.pack("<I", len(raw)) + raw for raw in map(as_bytes, values.ravel()))
    return np.ascontiguousarray(values).tobytes()


def unpacked(raw: bytes, datatype: str, shape: Sequence[int]) -> Array:
    """The opposite. BYTES become an object array of bytes, BF16 its bits in uint16."""
    if datatype == "BYTES":
        texts, at = [], 0
        while at < len(raw):
            (length,) = struct.unpack_from("<I", raw, at)
            texts.append(raw[at + 4 : at + 4 + length])
            at += 4 + length
        values = np.empty(len(texts), object)
        values[:] = texts
    else:
        values = np.frombuffer(raw, np.uint16 if datatype == "BF16" else DTYPES[datatype])
    return values.reshape(tuple(shape))


# --- messages


def request(
    model: str,
    inputs: Inputs,
    *,
    version: str = "",
    id: str = "",
    outputs: Iterable[str] = (),
    parameters: Mapping[str, Any] | None = None,
    typed: bool = False,
) -> Any:
    """A ModelInferRequest; `typed` puts the values into `contents`, not into raw_input_contents."""
    message = pb.inference.ModelInferRequest(model_name=model, model_version=version, id=id)
    for name, values in inputs.items():
        datatype = datatype_of(values)
        array = values.values if isinstance(values, Bits) else values
        tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if typed:
            elements = map(as_bytes, array.ravel()) if datatype == "BYTES" else array.ravel().tolist()
            getattr(tensor.contents, _CONTENTS[datatype]).extend(elements)
        else:
            message.raw_input_contents.append(packed(values))
    for name in outputs:
        message.outputs.add(name=name)
    for key, value in (parameters or {}).items():
        set_parameter(message.parameters[key], value)
    return message


def set_parameter(parameter: Any, value: Any) -> None:
    kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
    setattr(parameter, kind, value)


def arrays(response: Any) -> dict[str, Array]:
    """Outputs by name, in the order of the answer. Insists on one raw entry for each and on no typed contents."""
    assert len(response.raw_output_contents) == len(response.outputs)
    assert not any(output.HasField("contents") for output in response.outputs)
    return {
        output.name: unpacked(raw, output.datatype, output.shape)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


class Client:
    """The service over one channel; `infer(...)` takes what `request` takes and gives arrays."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self._infer = self.unary("ModelInfer")

    def unary(self, method: str) -> Any:
        """A multi-callable of one of the service's unary methods."""
        return self.channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=getattr(pb.inference, f"{method}Response").FromString,
        )

    def infer(self, model: str, inputs: Inputs, *, timeout: float = 20, **wishes: Any) -> dict[str, Array]:
        return arrays(self._infer(request(model, inputs, **wishes), timeout=timeout))

    def send(self, message: Any, *, timeout: float | None = 20, **wishes: Any) -> Any:
        return self._infer(message, timeout=timeout, **wishes)

    def start(self, message: Any, *, timeout: float | None = 20, **wishes: Any) -> Any:
        """A call in the background: a grpc.Future that is also a call."""
        return self._infer.future(message, timeout=timeout, **wishes)

    def settle(self) -> None:
        """Returns when all that was sent on this connection before has arrived: a connection keeps its order."""
        self.unary("ServerLive")(pb.inference.ServerLiveRequest(), timeout=60)

    def hold(self, model: str, inputs: Inputs, *, timeout: float | None = 60, **wishes: Any) -> Any:
        """Start a call of `patient` that takes long, and return it once it runs: an idle executor takes it when it
        arrives. It takes longer in each attempt of a test that is `set_up_anew`.

        With `linger: false`, that is: by default an executor that has seen companions come may wait for them, and this
        call would then run together with what the test sends next.
        """
        self.settle()  # the connection is up
        if is_repeated():
            eventually(lambda: self._is_free(model, inputs), f"{model} is through with the attempt before", 60)
        inputs = {**inputs, "turns": lasting(1) * inputs["turns"]}
        call = self.start(request(model, inputs, **wishes), timeout=timeout)
        self.settle()
        return call

    def _is_free(self, model: str, inputs: Inputs) -> bool:
        try:
            self.infer(model, {**inputs, "turns": 0 * inputs["turns"]})
        except grpc.RpcError:
            return False
        return True

    def stream(self, messages: Iterator[Any], **wishes: Any) -> Any:
        return self.channel.stream_stream(
            STREAM_INFER,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.inference.ModelStreamInferResponse.FromString,
        )(messages, **wishes)

    def index(self) -> dict[tuple[str, str], tuple[str, str]]:
        """(state, reason) by (model, version)."""
        answer = self.unary("RepositoryIndex")(pb.inference.RepositoryIndexRequest(), timeout=60)
        return {(entry.name, entry.version): (entry.state, entry.reason) for entry in answer.models}


UNBOUNDED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
"""Channel options: grpcio's own limit of 4 MiB is not what is tested."""


def connect(url: str, *options: tuple[str, Any]) -> grpc.Channel:
    """A channel on a connection of its own, not one that grpcio shares among equal channels."""
    return grpc.insecure_channel(url, options=[("grpc.use_local_subchannel_pool", 1), *UNBOUNDED, *options])
