"""A model.onnx for MLServer, run by the environment `mlserver`, not by the gateway's: imported by nothing else here.

MLServer has no ONNX runtime of its own; this is the shortest that its documentation describes for a custom one.
"""

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        if tensor.datatype == "BYTES":
            rows = np.array(StringCodec.decode_input(tensor), object).reshape(tensor.shape)
        else:
            rows = NumpyCodec.decode_input(tensor)
        (answer,) = self._session.run(None, {"input": rows})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("output", answer)])
