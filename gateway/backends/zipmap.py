"""Takes skl2onnx's ZipMap out of a graph.

ZipMap turns a classifier's matrix of probabilities into a list of dictionaries, one Python object per row and class:
slow, and no tensor that a protocol could carry. The matrix in front of it is what a caller wants; the output keeps its
name and becomes FP32 [rows, classes].
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.errors import LoadError

if TYPE_CHECKING:
    import onnx

CURE = "export with options={'zipmap': False}"


def mentions_zipmap(file: Path) -> bool:
    """Whether the file may hold a ZipMap: a scan of its bytes, far quicker than parsing it. OSError as usual."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"ZipMap") >= 0


def without_zipmap(file: Path) -> bytes | None:
    """The serialised model without ZipMap; None when the file is best loaded as it is. Weights in other files stay
    there.
    """
    try:
        import onnx
    except ImportError:
        return None  # the session will show a map as its output, and that is refused with the cure
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception:  # ONNX Runtime's reader says what is wrong with the file
        return None
    zipmaps = [node for node in model.graph.node if node.op_type == "ZipMap" and node.domain == "ai.onnx.ml"]
    outputs = {output.name: output for output in model.graph.output}
    if not zipmaps or any(len(node.input) != 1 or node.output[0] not in outputs for node in zipmaps):
        return None
    for node in zipmaps:
        _replace(model.graph, node, outputs[node.output[0]])
    try:
        return bytes(model.SerializeToString())
    except Exception as error:  # protobuf ends at 2 GiB
        raise LoadError(f"{file} is too large to take its ZipMap out; {CURE}") from error


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, output: onnx.ValueInfoProto) -> None:
    """ZipMap -> Identity, which ONNX Runtime folds away: right even where the matrix has other readers or is an output
    too.
    """
    from onnx import TensorProto, helper

    n_classes = max(len(attribute.strings) or len(attribute.ints) for attribute in node.attribute)
    position = list(graph.node).index(node)
    graph.node.remove(node)
    graph.node.insert(position, helper.make_node("Identity", list(node.input), list(node.output)))
    output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [None, n_classes]))
