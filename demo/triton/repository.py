"""Model repositories for tritonserver: for each model a folder, config.pbtxt and a model.py for the Python backend."""

from __future__ import annotations

import shutil
import site
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from demo.triton import wheel

Tensor = tuple[str, str, Sequence[int]]
"""Name, datatype in OIP's words, dimensions without that of the batch."""

TYPES = {"BYTES": "STRING"}  # the others are called alike

HEAD = """\
import sys

sys.path[:0] = [{packages!r}]
sys.path.extend({path!r})
import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb


"""

ONNX = '''\
class TritonPythonModel:
    """Runs model.onnx of its version's folder: the same file that the gateway runs in its own process."""

    def initialize(self, args):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.inputs = [tensor.name for tensor in self.session.get_inputs()]
        self.outputs = [tensor.name for tensor in self.session.get_outputs()]

    def execute(self, requests):
        parts = []
        for request in requests:
            parts.append([pb.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs])
        rows = [len(part[0]) for part in parts]
        together = {}
        for position, name in enumerate(self.inputs):
            array = np.concatenate([part[position] for part in parts]) if len(parts) > 1 else parts[0][position]
            together[name] = array.astype(str).astype(object) if array.dtype == np.object_ else array
        answers = self.session.run(self.outputs, together)
        responses, start = [], 0
        for count in rows:
            piece = [answer[start : start + count] for answer in answers]
            tensors = [pb.Tensor(name, np.ascontiguousarray(array)) for name, array in zip(self.outputs, piece)]
            responses.append(pb.InferenceResponse(tensors))
            start += count
        return responses
'''


@dataclass(frozen=True)
class TritonModel:
    """`code` is the class TritonPythonModel, with `json`, `os`, `time`, `np` and `pb` imported; `more` is appended to
    config.pbtxt. `max_batch_size` 0: the model is not batched, and dimensions are as they are.
    """

    name: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    code: str
    max_batch_size: int = 64
    instances: int = 1
    more: str = ""
    files: dict[str, Path] = field(default_factory=dict)
    """Put beside model.py, by name."""


def onnx_model(
    name: str, file: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor], **more: object
) -> TritonModel:
    """A model.onnx, with a dynamic batcher that does not wait, as most people set it up."""
    wishes = {"more": "dynamic_batching { }", **more}
    return TritonModel(name, inputs, outputs, ONNX, files={"model.onnx": file}, **wishes)  # type: ignore[arg-type]


def store(repository: Path, model: TritonModel, version: int = 1) -> Path:
    """Its folder in the repository; what was there under that name and version is replaced."""
    folder = repository / model.name
    (folder / str(version)).mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(config(model))
    head = HEAD.format(packages=str(wheel.find().packages), path=site.getsitepackages())
    (folder / str(version) / "model.py").write_text(head + textwrap.dedent(model.code))
    for name, file in model.files.items():
        shutil.copyfile(file, folder / str(version) / name)
    return folder


def config(model: TritonModel) -> str:
    lines = [f'name: "{model.name}"', 'backend: "python"', f"max_batch_size: {model.max_batch_size}"]
    for word, tensors in (("input", model.inputs), ("output", model.outputs)):
        for name, datatype, dims in tensors:
            kind = TYPES.get(datatype, datatype)
            lines.append(f'{word} [ {{ name: "{name}" data_type: TYPE_{kind} dims: {list(dims)} }} ]')
    lines.append(f"instance_group [ {{ kind: KIND_CPU count: {model.instances} }} ]")
    return "\n".join([*lines, model.more, ""])
