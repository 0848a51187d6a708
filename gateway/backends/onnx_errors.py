"""ONNX Runtime's error texts, turned into one line for people.

At load the reader owns the file: the line names it and the cure. At run the reader is a caller: no paths, no C++, one
line.
"""

from __future__ import annotations

import re
from pathlib import Path

_MAX_CHARACTERS = 300

_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_LOADING = re.compile(r"Load model from .*? failed:")
# "/onnxruntime_src/.../model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&) " and "tensorprotoutils.cc:461 Name "
_SOURCE = re.compile(
    r"\S*\.(?:cc|cpp|cu|cuh|h|hpp):\d+\s+"
    r"(?:[\w:<>,&*~\[\]\s]*?\w\([^()]*(?:\([^()]*\)[^()]*)*\)(?:\s+const)?(?:\s+\[with [^\]]*\])?|\w+)\s*"
)
_NODE = re.compile(r"Non-zero status code returned while running (\S+) node\.\s*Name:'[^']*'\s*Status Message:\s*")
_ADVICE = re.compile(r"\s*Please fix either the inputs/outputs or the model\.")
_PATH = re.compile(r"(?<![\w.])(?:/[\w.+-]+){2,}")

_EXPORT_AGAIN = "copy or export it again"

# First match wins; groups fill the reason. Each pair is a row of the refusals table in the tests.
_LOAD_REASONS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), reason)
    for pattern, reason in (
        (r"Protobuf parsing failed|INVALID_PROTOBUF", f"is truncated or not an ONNX model; {_EXPORT_AGAIN}"),
        (r"No graph was found", f"is truncated or not an ONNX model: it holds no graph; {_EXPORT_AGAIN}"),
        (
            r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)",
            "uses opset {0} of {1}, and this ONNX Runtime knows up to {2}; "
            "export with target_opset={2} or update onnxruntime",
        ),
        (
            r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
            "has ONNX IR version {0}, and this ONNX Runtime knows up to {1}; "
            "export with an older onnx or update onnxruntime",
        ),
        (
            r"Fatal error: (\S+?)\(-?\d+\) is not a registered function/op",
            "uses the operator {0}, which ONNX Runtime does not have; export without custom operators",
        ),
        (
            r"No Op registered for (\S+) with domain_version of (\d+)",
            "uses the operator {0}, which ONNX Runtime does not have in opset {1}; "
            "export without custom operators or for another opset",
        ),
        (
            r"Could not find an implementation for (\w+)\((\d+)\)",
            "uses the operator {0} of opset {1} on a data type that ONNX Runtime has no code for; export in FP32",
        ),
        (
            r"MLDataType for: tensor\((\w+)\) is not currently registered",
            "has a tensor of type {0}, which ONNX Runtime cannot run; export it as FP32",
        ),
        (
            r"External data path does not exist: \"?([^\"]+?)\"?\s*$",
            "keeps its weights in {0}, which is missing; copy that file beside it",
        ),
        (
            r"External initializer: (\S+) offset: (\d+) size to read: (\d+) given file_length: (\d+)",
            "keeps its weights in a file that is too short ({3} bytes, the tensor {0} ends at {1}+{2}); "
            "copy that file again",
        ),
    )
)


def load_reason(file: Path, error: BaseException) -> str:
    """Why `file` cannot be loaded, on one line."""
    text = str(error)
    for pattern, reason in _LOAD_REASONS:
        if match := pattern.search(text):
            groups = [Path(group).name if "/" in group else group for group in match.groups()]
            return f"{file} {reason.format(*groups)}"
    return f"{file} is refused by ONNX Runtime: {one_line(text)}"


def run_reason(error: BaseException) -> str:
    """What was wrong with a caller's values, on one line without paths."""
    text = _NODE.sub(lambda match: f"{match[1]} node: ", str(error))
    return _PATH.sub("...", one_line(_ADVICE.sub("", text)))


def one_line(text: str) -> str:
    """Without status prefix, C++ source and signature, line breaks; cut where it grows long."""
    text = _SOURCE.sub("", _LOADING.sub("", _STATUS.sub("", text)))
    text = " ".join(text.split())
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 3]}..."
