"""Models of Triton's Python backend whose right answer is known: twice the input. Tests serve them too.

`double` has rows of one size and its own dynamic batcher; `wide` has rows of any size.
"""

from __future__ import annotations

from demo.triton.repository import TritonModel

DOUBLE = """\
class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            rows = pb.get_input_tensor_by_name(request, "input").as_numpy()
            answers.append(pb.InferenceResponse([pb.Tensor("output", rows * 2)]))
        return answers
"""
ROWS = TritonModel("double", [("input", "FP32", [16])], [("output", "FP32", [16])], DOUBLE, more="dynamic_batching { }")
WIDE = TritonModel("wide", [("input", "FP32", [-1])], [("output", "FP32", [-1])], DOUBLE, max_batch_size=4)
OTHER_TYPE = TritonModel(
    "double",
    [("input", "FP32", [16])],
    [("output", "FP64", [16])],
    DOUBLE.replace("rows * 2", "(rows * 2).astype(np.float64)"),
    more="dynamic_batching { }",
)
