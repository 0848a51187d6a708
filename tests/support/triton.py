"""Real tritonservers for tests, and small models that behave in one odd way each."""

from __future__ import annotations

from pathlib import Path

from demo.triton.repository import TritonModel, store
from demo.triton.server import TritonServer

__all__ = ["MODELS", "TritonServer", "models"]

DOUBLE = """\
class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            rows = pb.get_input_tensor_by_name(request, "input").as_numpy()
            answers.append(pb.InferenceResponse([pb.Tensor("output", rows * 2)]))
        return answers
"""

ROWS = [("input", "FP32", [16])], [("output", "FP32", [16])]

MODELS = {
    "double": TritonModel("double", *ROWS, DOUBLE, more="dynamic_batching { }"),
}


def models(repository: Path, *names: str) -> Path:
    """The repository with those of MODELS."""
    for name in names:
        store(repository, MODELS[name])
    return repository
