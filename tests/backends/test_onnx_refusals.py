"""Every model file that cannot be served, and what its operator reads: one row each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from gateway.backends.onnx import load
from gateway.config.model import Batching, ModelConfig, Onnx
from gateway.errors import LoadError
from tests.support import onnxmodels
from tests.support.onnxmodels import build, identity, linear, node, tensor


def typed(element: int, opset: int = 23) -> bytes:
    info = [helper.make_tensor_value_info(name, element, ["N"]) for name in "xy"]
    return build([node("Identity", ["x"], ["y"])], info[:1], info[1:], opsets={"": opset})


def valued(kind: str, of_input: bool) -> bytes:
    """A graph with a sequence or an optional as its input or output."""
    floats = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    x, y, i = tensor("x", shape=(2,)), tensor("y", shape=(2,)), tensor("i", "INT64", ())
    if kind == "sequence":
        other = helper.make_tensor_sequence_value_info("other", TensorProto.FLOAT, [2])
        if of_input:
            return build([node("SequenceAt", ["other", "i"], ["y"])], [other, i], [y])
        return build([node("SequenceConstruct", ["x", "x"], ["other"])], [x], [other])
    optional = helper.make_value_info("other", helper.make_optional_type_proto(floats))
    if of_input:
        return build([node("OptionalGetElement", ["other"], ["y"])], [optional], [y], opsets={"": 18})
    return build([node("Optional", ["x"], ["other"])], [x], [optional], opsets={"": 18})


def dictionary() -> bytes:
    """ZipMap's kind of output from another source: a map that is in no sequence."""
    entry = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    return build(
        [node("DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "b"])],
        [helper.make_value_info("x", entry)],
        [tensor("y", shape=(1, 2))],
        opsets={"ai.onnx.ml": 3},
    )


def as_it_is(content: bytes) -> Callable[[Path], Path]:
    return lambda root: onnxmodels.store(root, "fraud", 3, content)


def nothing(root: Path) -> Path:
    (root / "fraud" / "3").mkdir(parents=True)
    return root / "fraud" / "3"


def folder_for_a_file(root: Path) -> Path:
    (root / "fraud" / "3" / "model.onnx").mkdir(parents=True)
    return root / "fraud" / "3"


def external(spoil: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        folder = onnxmodels.store_external(root, "fraud", 3, linear(40, 30))
        spoil(folder / "weights.bin")
        return folder

    return make


def dangling(root: Path) -> Path:
    folder = nothing(root)
    (folder / "model.onnx").symlink_to("gone.onnx")
    return folder


TRUNCATED = "is truncated or not an ONNX model; copy or export it again"
NINE = tuple(range(1, 10))

REFUSALS = [
    ("no file", nothing, "model.onnx does not exist; put the model there"),
    ("dangling link", dangling, "model.onnx does not exist; put the model there"),
    ("folder", folder_for_a_file, "model.onnx is a folder, expected an ONNX model"),
    ("empty", as_it_is(b""), "model.onnx is empty (0 bytes); copy or export it again"),
    ("noise", as_it_is(bytes(range(256)) * 8), TRUNCATED),
    ("web page", as_it_is(b"<html><body>404 Not Found</body></html>"), TRUNCATED),
    ("git lfs", as_it_is(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "run git lfs pull"),
    ("cut at 1 %", as_it_is(linear(40, 30)[:48]), TRUNCATED),
    ("cut in half", as_it_is(linear(40, 30)[:2400]), TRUNCATED),
    ("last byte lost", as_it_is(linear(40, 30)[:-1]), TRUNCATED),
    ("cut before the graph", as_it_is(identity()[:2]), "it holds no graph"),
    ("opset", as_it_is(identity(opset=99)), "uses opset 99 of ai.onnx, and this ONNX Runtime knows up to "),
    (
        "opset of ML",
        as_it_is(build([node("Identity", ["x"], ["y"])], [tensor("x")], [tensor("y")], opsets={"ai.onnx.ml": 99})),
        "uses opset 99 of ai.onnx.ml, and this ONNX Runtime knows up to ",
    ),
    ("IR version", as_it_is(identity(ir_version=99)), "has ONNX IR version 99, and this ONNX Runtime knows up to "),
    (
        "custom operator",
        as_it_is(build([node("Magic", ["x"], ["y"], "acme")], [tensor("x")], [tensor("y")], opsets={"acme": 1})),
        "uses the operator acme:Magic, which ONNX Runtime does not have; export without custom operators",
    ),
    (
        "unknown operator",
        as_it_is(build([node("Magic", ["x"], ["y"])], [tensor("x")], [tensor("y")])),
        "uses the operator Magic, which ONNX Runtime does not have in opset 17",
    ),
    (
        "no kernel",
        as_it_is(build([node("Erf", ["x"], ["y"])], [tensor("x", "BF16")], [tensor("y", "BF16")])),
        "uses the operator Erf of opset 13 on a data type that ONNX Runtime has no code for",
    ),
    (
        "dangling tensor",
        as_it_is(build([node("Identity", ["z"], ["y"])], [tensor("x")], [tensor("y")])),
        "is refused by ONNX Runtime: Invalid model. Node input 'z' is not a graph input",
    ),
    (
        "shapes that do not fit",
        as_it_is(build([node("MatMul", ["x", "x"], ["y"])], [tensor("x", shape=(2, 3))], [tensor("y", shape=(2, 3))])),
        "Incompatible dimensions for matrix multiplication",
    ),
    ("weights missing", external(Path.unlink), "keeps its weights in weights.bin, which is missing; copy that file"),
    (
        "weights cut",
        external(lambda file: file.write_bytes(b"\0" * 100)),
        "keeps its weights in a file that is too short (100 bytes, the tensor ",
    ),
    (
        "text beside BF16",
        as_it_is(
            build(
                [node("Identity", ["text"], ["label"]), node("Identity", ["x"], ["y"])],
                [tensor("text", "BYTES", ("N",)), tensor("x", "BF16", ("N", 2))],
                [tensor("label", "BYTES", ("N",)), tensor("y", "BF16", ("N", 2))],
            )
        ),
        'input "text" is text beside "x" in BF16, which ONNX Runtime cannot be handed together; cast "x" to FP32',
    ),
    ("complex", as_it_is(typed(TensorProto.COMPLEX64)), "has a tensor of type complex64, which ONNX Runtime cannot"),
    ("float8", as_it_is(typed(TensorProto.FLOAT8E4M3FN)), 'input "x" has elements of type float8e4m3fn, expected'),
    ("int4", as_it_is(typed(TensorProto.INT4)), "uses the operator Identity of opset 23 on a data type"),
    ("sequence out", as_it_is(valued("sequence", False)), 'output "other" is seq(tensor(float)), expected a tensor'),
    ("sequence in", as_it_is(valued("sequence", True)), 'input "other" is seq(tensor(float)), expected a tensor'),
    ("optional out", as_it_is(valued("optional", False)), 'output "other" is optional(tensor(float)), expected'),
    ("optional in", as_it_is(valued("optional", True)), 'input "other" is optional(tensor(float)), expected'),
    ("map", as_it_is(dictionary()), 'input "x" is map(string,tensor(float))'),
    ("rank 9", as_it_is(identity(shape=NINE)), 'input "x" has 9 dimensions, expected 8 at most'),
    (
        "no shape",
        as_it_is(build([node("Identity", ["x"], ["y"])], [tensor("x", shape=None)], [tensor("y", shape=None)])),
        'input "x" declares no shape; export it with its dimensions',
    ),
    (
        "no inputs",
        as_it_is(build([node("Constant", [], ["y"], value_float=1.0)], [], [tensor("y", shape=())])),
        "has no inputs; nothing can be asked of it",
    ),
]


@pytest.mark.parametrize(("make", "words"), [pytest.param(*row[1:], id=row[0]) for row in REFUSALS])
def test_a_model_that_cannot_be_served_is_refused_with_a_reason(
    tmp_path: Path, make: Callable[[Path], Path], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path)
    with pytest.raises(LoadError) as caught:
        load(folder, ModelConfig())
    reason = str(caught.value)
    assert words in reason
    assert reason.startswith(str(folder / "model.onnx"))
    assert "\n" not in reason
    assert "onnxruntime_src" not in reason
    assert ".cc" not in reason
    assert "::" not in reason
    assert "ONNXRuntimeError" not in reason
    assert capfd.readouterr() == ("", "")


def test_a_model_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    content = linear()
    for n_bytes in range(len(content)):
        folder = onnxmodels.store(tmp_path, "fraud", 3, content[:n_bytes])
        with pytest.raises(LoadError):
            load(folder, ModelConfig())


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    folder = onnxmodels.store(tmp_path, "fraud", 3, identity().replace(b"\x01x", b"\x01\xb6"))
    with pytest.raises(LoadError, match="has a name that is not text in UTF-8"):
        load(folder, ModelConfig())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (identity(shape=(2, 4)), 'input "x" has 2 as its first dimension'),
        (identity(shape=()), 'input "x" is a scalar'),
        (onnxmodels.mean_of_rows(), 'output "y" of a row changes with the rows beside it'),
    ],
)
def test_a_batch_size_on_a_model_without_batches_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    folder = onnxmodels.store(tmp_path, "fraud", 3, content)
    with pytest.raises(LoadError) as caught:
        load(folder, ModelConfig(batching=Batching(max_batch_size=8)))
    assert why in str(caught.value)
    assert "batching.max_batch_size is 8, expected auto" in str(caught.value)


def test_a_provider_that_onnxruntime_lacks_is_refused_with_those_it_has(tmp_path: Path) -> None:
    folder = onnxmodels.store(tmp_path, "fraud", 3, identity())
    with pytest.raises(LoadError) as caught:
        load(folder, ModelConfig(onnx=Onnx(providers=("CoreMLExecutionProvider",))))
    text = str(caught.value)
    assert "onnx.providers asks for CoreMLExecutionProvider, and this onnxruntime offers " in text
    assert "CPUExecutionProvider" in text
