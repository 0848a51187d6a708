"""A real gRPC server (grpcio) that speaks ModelMetadata and ModelInfer over a function in the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from gateway import pb

Tensors = list[tuple[str, str, list[int]]]  # name, datatype, shape
Answers = list[tuple[str, str, list[int], bytes]]  # the same, with raw bytes


@dataclass
class OipServer:
    """One model named `m`. `run` gets each ModelInferRequest and gives its outputs."""

    inputs: Tensors
    outputs: Tensors
    run: Callable[[Any], Answers]
    url: str = ""
    requests: list[Any] = field(default_factory=list)

    def metadata(self, request: Any, context: Any) -> Any:
        if request.name != "m":
            context.abort(grpc.StatusCode.NOT_FOUND, f"model {request.name!r} not found; models here: 'm'")
        answer = pb.inference.ModelMetadataResponse(name="m", versions=["1", "3"], platform="test")
        for target, tensors in ((answer.inputs, self.inputs), (answer.outputs, self.outputs)):
            for name, datatype, shape in tensors:
                target.add(name=name, datatype=datatype, shape=shape)
        return answer

    def infer(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        answer = pb.inference.ModelInferResponse(model_name="m", model_version=request.model_version or "3")
        for name, datatype, shape, raw in self.run(request):
            answer.outputs.add(name=name, datatype=datatype, shape=shape)
            answer.raw_output_contents.append(raw)
        return answer


@contextmanager
def serving(server: OipServer) -> Iterator[OipServer]:
    """The server with its `url` set, on a free port."""
    handlers = {}
    for method, behaviour in (("ModelMetadata", server.metadata), ("ModelInfer", server.infer)):
        handlers[method] = grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=getattr(pb.inference, f"{method}Request").FromString,
            response_serializer=getattr(pb.inference, f"{method}Response").SerializeToString,
        )
    with ThreadPoolExecutor(2) as threads:
        listener = grpc.server(threads)
        listener.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
        )
        server.url = f"127.0.0.1:{listener.add_insecure_port('127.0.0.1:0')}"
        listener.start()
        try:
            yield server
        finally:
            listener.stop(None).wait()
