"""What a loaded ONNX version answers, and how it fails."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from gateway.backends.base import DATATYPES, Backend, numpy_dtype
from gateway.backends.onnx import load
from gateway.config.model import ModelConfig
from gateway.errors import BackendFailure, InvalidArgument
from tests.support import onnxmodels


def loaded(folder: Path, content: bytes, settings: ModelConfig | None = None) -> Backend:
    return load(onnxmodels.store(folder, "fraud", 3, content), settings or ModelConfig())


def values(datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    n = int(np.prod(shape))
    if datatype == "BYTES":
        return np.array(["", "a", "héllo", "日本語 😀", "nul\0inside", "x" * 300][:n] * n, object)[:n].reshape(shape)
    return (np.arange(n) % 2 if datatype == "BOOL" else np.arange(n)).astype(numpy_dtype(datatype)).reshape(shape)


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_every_datatype_comes_back_as_it_went_in(tmp_path: Path, datatype: str, rows: int) -> None:
    backend = loaded(tmp_path, onnxmodels.identity(datatype))
    sent = values(datatype, (rows, 4))
    (got,) = backend.run([sent])
    assert got.dtype == numpy_dtype(datatype)
    assert got.shape == (rows, 4)
    assert got.flags.c_contiguous
    assert (got == sent).all()


@pytest.mark.parametrize("datatype", DATATYPES)
def test_scalars_have_rank_zero_in_and_out(tmp_path: Path, datatype: str) -> None:
    backend = loaded(tmp_path, onnxmodels.identity(datatype, shape=()))
    sent = values(datatype, (1,)).reshape(())
    (got,) = backend.run([sent])
    assert np.shape(got) == ()
    assert np.asarray(got, numpy_dtype(datatype)) == sent


def test_inputs_and_outputs_keep_the_order_of_the_signature(tmp_path: Path) -> None:
    backend = loaded(tmp_path, onnxmodels.sum_and_difference("INT32", 2))
    assert [spec.name for spec in backend.signature.inputs] == ["a", "b"]
    assert [spec.name for spec in backend.signature.outputs] == ["sum", "difference"]
    a, b = np.array([[5, 6]], np.int32), np.array([[1, 2]], np.int32)
    got = backend.run([a, b])
    assert isinstance(got, list)
    assert [array.tolist() for array in got] == [[[6, 8]], [[4, 4]]]


def test_bf16_is_computed_on_its_bits(tmp_path: Path) -> None:
    backend = loaded(tmp_path, onnxmodels.bf16_double())
    sent = (np.array([[1.5, -2.0], [0.0, 3e38]], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    (got,) = backend.run([sent])
    wide = (got.astype(np.uint32) << 16).view(np.float32)
    assert wide.tolist() == [[3.0, -4.0], [0.0, float("inf")]]


def test_bf16_answers_outlive_the_run(tmp_path: Path) -> None:
    backend = loaded(tmp_path, onnxmodels.identity("BF16"))
    kept = [backend.run([np.full((64, 4), n, np.uint16)])[0] for n in range(50)]
    assert all((array == n).all() for n, array in enumerate(kept))


def test_bf16_mixes_with_other_datatypes(tmp_path: Path) -> None:
    content = onnxmodels.build(
        [
            onnxmodels.node("Cast", ["count"], ["text"], to=TensorProto.STRING),
            onnxmodels.node("Identity", ["x"], ["y"]),
        ],
        [onnxmodels.tensor("count", "INT64", ("N",)), onnxmodels.tensor("x", "BF16", ("N", 2))],
        [onnxmodels.tensor("text", "BYTES", ("N",)), onnxmodels.tensor("y", "BF16", ("N", 2))],
    )
    text, y = loaded(tmp_path, content).run([np.array([7]), np.array([[1, 2]], np.uint16)])
    assert text.tolist() == ["7"]
    assert y.tolist() == [[1, 2]]


def test_many_threads_get_their_own_answers(tmp_path: Path) -> None:
    backend = loaded(tmp_path, onnxmodels.linear())
    bf16 = loaded(tmp_path, onnxmodels.bf16_double())
    weights = onnxmodels.weights(4, 3)
    wrong: list[int] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for turn in range(200):
            x = np.full((1 + turn % 7, 4), number + turn / 7, np.float32)
            if not np.allclose(backend.run([x])[0], x @ weights + 1, rtol=1e-4, atol=1e-4):
                wrong.append(number)
            bits = np.full((1 + turn % 3, 2), 0x3F80, np.uint16)  # 1.0
            if not (bf16.run([bits])[0] == 0x4000).all():  # 2.0
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("content", "sent", "words"),
    [
        pytest.param(onnxmodels.lookup(8), np.array([1, 99]), "Gather node: indices element out of", id="index"),
        pytest.param(
            onnxmodels.linear(4), np.zeros((2, 5), np.float32), "Got invalid dimensions for input: x", id="width"
        ),
        pytest.param(onnxmodels.linear(4), np.zeros(4, np.float32), "Invalid rank for input: x", id="rank"),
        pytest.param(onnxmodels.linear(4), np.zeros((1, 4)), "expected: (tensor(float))", id="datatype"),
        pytest.param(onnxmodels.identity(shape=(2, 4)), np.zeros((3, 4), np.float32), "Expected: 2", id="fixed"),
        pytest.param(onnxmodels.identity("BYTES", ("N",)), np.array(["\ud800"], object), "surrogates", id="text"),
    ],
)
def test_values_at_fault_are_told_on_one_line(
    tmp_path: Path, content: bytes, sent: np.ndarray, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    backend = loaded(tmp_path, content)
    with pytest.raises(InvalidArgument) as caught:
        backend.run([sent])
    text = str(caught.value)
    assert text.startswith('model "fraud" version 3 refused the input: ')
    assert words in text
    assert "\n" not in text
    assert "ONNXRuntimeError" not in text
    assert "Please fix" not in text
    assert str(tmp_path) not in text
    assert "/onnxruntime" not in text
    assert capfd.readouterr() == ("", "")  # ONNX Runtime would log each on stderr


def test_other_failures_have_a_fixed_text_and_a_cause(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    backend = loaded(tmp_path, onnxmodels.parse_number())
    with pytest.raises(BackendFailure, match=r'^model "fraud" version 3 failed on this request$') as caught:
        backend.run([np.array([["12"], ["not a number"]], object)])
    assert caught.value.__cause__ is not None
    assert backend.run([np.array([["12"]], object)])[0].tolist() == [[12.0]]
    assert capfd.readouterr() == ("", "")


def test_a_closed_version_fails_and_does_not_crash(tmp_path: Path) -> None:
    backend = loaded(tmp_path, onnxmodels.linear())
    backend.close()
    with pytest.raises(BackendFailure):
        backend.run([np.zeros((1, 4), np.float32)])


def test_names_in_errors_can_be_given(tmp_path: Path) -> None:
    file = tmp_path / "anything.onnx"
    file.write_bytes(onnxmodels.lookup())
    backend = load(file, ModelConfig(), model="fraud", version="7")
    with pytest.raises(InvalidArgument, match='model "fraud" version 7 refused'):
        backend.run([np.array([99])])


def test_weights_in_another_file_are_found(tmp_path: Path) -> None:
    folder = onnxmodels.store_external(tmp_path, "fraud", 1, onnxmodels.linear())
    (got,) = load(folder, ModelConfig()).run([np.ones((2, 4), np.float32)])
    assert np.allclose(got, np.ones((2, 4)) @ onnxmodels.weights(4, 3) + 1, rtol=1e-4)
