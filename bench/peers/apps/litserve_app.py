"""The models as LitServe APIs, one path each, batched. PORT REPOSITORY WORKERS SERVERS."""

import base64
import sys
from pathlib import Path

import litserve
import numpy as np
import onnxruntime

PORT, ROOT, WORKERS, SERVERS = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])


class Model(litserve.LitAPI):
    def __init__(self, name, **batching):
        super().__init__(api_path=f"/{name}", **batching)
        self.name = name

    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(ROOT / self.name / "1" / "model.onnx"), options)

    def decode_request(self, request):
        if "base64" in request:
            return np.frombuffer(base64.b64decode(request["base64"]), np.float32).reshape(request["shape"])
        return np.array(request["input"], object if self.name == "text" else np.float32)

    def batch(self, inputs):
        return np.concatenate(inputs)

    def predict(self, rows):
        return self.session.run(None, {"input": rows})[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"output": [output.tolist()]}


if __name__ == "__main__":
    apis = [Model(folder.name, max_batch_size=64, batch_timeout=0.001) for folder in sorted(ROOT.iterdir())]
    server = litserve.LitServer(apis, accelerator="cpu", workers_per_device=WORKERS, fast_queue=True, timeout=60)
    server.run(
        host="127.0.0.1", port=PORT, num_api_servers=SERVERS, generate_client_file=False, log_level="warning",
        access_log=False,
    )  # fmt: skip
