"""The benchmark's own encoder against protobuf's, in both directions."""

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from bench import payloads


def test_protobuf_reads_what_the_encoder_wrote():
    row = np.linspace(0, 1, 30, dtype=np.float32)[np.newaxis]
    image = np.ones((1, 3, 224, 224), np.float32)
    message = payloads.infer_request(
        "m", {"a": row, "b": image}, version="2", request_id="abc", outputs=["output", "other"]
    )
    request = service_pb2.ModelInferRequest.FromString(message)
    assert (request.model_name, request.model_version, request.id) == ("m", "2", "abc")
    assert [(i.name, i.datatype, list(i.shape)) for i in request.inputs] == [
        ("a", "FP32", [1, 30]),
        ("b", "FP32", [1, 3, 224, 224]),
    ]
    assert [output.name for output in request.outputs] == ["output", "other"]
    assert list(request.raw_input_contents) == [row.tobytes(), image.tobytes()]


def test_the_decoder_reads_what_protobuf_wrote():
    response = service_pb2.ModelInferResponse(model_name="m", model_version="1", id="x")
    response.parameters["gateway_request"].string_param = "token"
    response.parameters["n"].int64_param = 7
    scores, labels = np.array([[0.25, 0.75]], np.float32), np.array([300], np.int64)
    for name, datatype, tensor in (("scores", "FP32", scores), ("labels", "INT64", labels)):
        response.outputs.add(name=name, datatype=datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensor.tobytes())
    outputs = payloads.infer_outputs(response.SerializeToString())
    assert list(outputs) == ["scores", "labels"]
    np.testing.assert_array_equal(outputs["scores"], scores)
    np.testing.assert_array_equal(outputs["labels"], labels)


def test_an_answer_that_is_cut_off_is_refused():
    response = service_pb2.ModelInferResponse(model_name="a long enough name")
    with pytest.raises(ValueError, match="wants 18 bytes"):
        payloads.infer_outputs(response.SerializeToString()[:-3])


def test_a_frame_is_a_flag_a_length_and_the_message():
    assert payloads.grpc_frame(b"abc") == b"\0\0\0\0\x03abc"
