"""The models as Ray Serve applications, one route each, with `serve.batch`. PORT REPOSITORY FOLDER REPLICAS."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

PORT, ROOT, FOLDER, REPLICAS = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])


@serve.deployment(
    num_replicas=REPLICAS,
    max_ongoing_requests=2048,
    ray_actor_options={"num_cpus": 0},
    logging_config=serve.schema.LoggingConfig(enable_access_log=False),
)
class Model:
    def __init__(self, name):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(ROOT / name / "1" / "model.onnx"), options)
        self.is_text = name == "text"

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0)
    async def infer(self, rows):
        return list(self.session.run(None, {"input": np.concatenate(rows)})[0])

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        if request.headers["content-type"] == "application/octet-stream":
            row = np.frombuffer(body, np.float32).reshape(1, 3, 224, 224)
        else:
            row = np.array(json.loads(body)["input"], object if self.is_text else np.float32)
        return Response(json.dumps({"output": [(await self.infer(row)).tolist()]}), media_type="application/json")


ray.init(
    address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=FOLDER,
    object_store_memory=100 << 20, configure_logging=False,
)  # fmt: skip
serve.start(http_options={"host": "127.0.0.1", "port": PORT})
serve.run_many(
    [
        serve.RunTarget(Model.bind(each.name), name=each.name, route_prefix=f"/{each.name}")
        for each in sorted(ROOT.iterdir())
    ]
)
print("everything is ready", flush=True)
while True:
    time.sleep(3600)
