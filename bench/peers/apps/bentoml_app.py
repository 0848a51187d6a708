"""The models as one BentoML service; each API is batchable, so that adaptive batching is on.

REPOSITORY and WORKERS are in the environment.
"""

import os
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime

ROOT = Path(os.environ["REPOSITORY"])
BATCH = {"batchable": True, "max_batch_size": 128, "max_latency_ms": 1000}


@bentoml.service(
    workers=int(os.environ["WORKERS"]),
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Models:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = {
            folder.name: onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"), options)
            for folder in ROOT.iterdir()
        }

    def _run(self, name: str, rows: np.ndarray) -> np.ndarray:
        return self._sessions[name].run(None, {"input": rows})[0]

    @bentoml.api(**BATCH)
    def small(self, input: np.ndarray) -> np.ndarray:
        return self._run("small", input.astype(np.float32, copy=False))

    @bentoml.api(**BATCH)
    def large(self, input: np.ndarray) -> np.ndarray:
        return self._run("large", input.astype(np.float32, copy=False))

    @bentoml.api(**BATCH)
    def image(self, input: np.ndarray) -> np.ndarray:
        return self._run("image", input.astype(np.float32, copy=False))

    @bentoml.api(**BATCH)
    def text(self, input: list[list[str]]) -> np.ndarray:
        return self._run("text", np.array(input, object))
