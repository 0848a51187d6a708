"""A plain grpc.aio server over ONNX Runtime, with uvloop. PORT REPOSITORY DESCRIPTORS PROCESSES.

Several processes share the port (SO_REUSEPORT), as gRPC's own multiprocessing example does it.
"""

import os
import sys
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import uvloop
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PORT, ROOT, DESCRIPTORS, PROCESSES = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])


def messages():
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.Add(file)
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.ModelInfer{kind}"))
        for kind in ("Request", "Response")
    ]


def texts(raw):
    found, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        found.append(raw[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return np.array(found, object)


def load():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return {
        folder.name: onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"), options)
        for folder in ROOT.iterdir()
    }


async def serve(sessions):
    request_class, response_class = messages()

    async def infer(request, context):
        tensor, raw = request.inputs[0], request.raw_input_contents[0]
        array = texts(raw) if tensor.datatype == "BYTES" else np.frombuffer(raw, np.float32)
        (output,) = sessions[request.model_name].run(None, {tensor.name: array.reshape(tensor.shape)})
        answer = response_class(model_name=request.model_name, model_version="1")
        answer.outputs.add(name="output", datatype="FP32", shape=output.shape)
        answer.raw_output_contents.append(output.tobytes())
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        infer, request_deserializer=request_class.FromString, response_serializer=response_class.SerializeToString
    )
    unlimited = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 1),
    ]
    server = grpc.aio.server(options=unlimited)
    handlers = {"ModelInfer": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),))
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    await server.start()
    await server.wait_for_termination()


for _ in range(PROCESSES - 1):
    if os.fork() == 0:
        break
uvloop.run(serve(load()))
