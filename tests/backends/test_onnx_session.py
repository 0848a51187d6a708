"""How a session is opened: providers, threads, and silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from gateway.backends.onnx import load
from gateway.backends.onnx_session import check_started, choose_providers, session_options
from gateway.config.model import ModelConfig, Onnx
from gateway.errors import LoadError
from tests.support import onnxmodels

CPU, CUDA, AZURE = "CPUExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


@pytest.mark.parametrize(
    ("wish", "available", "chosen"),
    [
        ("auto", [AZURE, CPU], [CPU]),
        ("auto", [TENSORRT, CUDA, CPU], [CUDA, CPU]),  # TensorRT builds engines for minutes: only when asked
        ((CPU,), [CUDA, CPU], [CPU]),
        ((CUDA,), [CUDA, CPU], [CUDA, CPU]),
        ((TENSORRT, CUDA), [TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU]),
        ((CPU, CUDA), [CUDA, CPU], [CPU, CUDA]),
    ],
)
def test_providers_are_chosen_from_those_on_offer(
    wish: tuple[str, ...] | str, available: list[str], chosen: list[str]
) -> None:
    assert choose_providers(wish, available) == chosen


def test_a_wish_that_is_not_on_offer_is_refused_with_the_offer() -> None:
    with pytest.raises(LoadError, match=f"asks for {CUDA}, and this onnxruntime offers {AZURE}, {CPU}; "):
        choose_providers((CUDA, CPU), [CPU, AZURE])


def test_a_wish_that_does_not_start_is_refused() -> None:
    with pytest.raises(LoadError, match=rf"{CUDA} did not start .*; started: {CPU}; .* offers {CPU}, {CUDA}"):
        check_started((CUDA,), [CUDA, CPU], [CPU], [CUDA, CPU])


def test_an_automatic_choice_that_does_not_start_is_only_told(caplog: pytest.LogCaptureFixture) -> None:
    check_started("auto", [CUDA, CPU], [CPU], [CUDA, CPU])
    assert "CUDAExecutionProvider did not start" in caplog.text


def test_defaults_are_one_thread_no_spinning_and_all_optimisations() -> None:
    options = session_options(Onnx(), 0)
    assert options.intra_op_num_threads == 1
    assert options.inter_op_num_threads == 1
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_model_yaml_changes_the_session() -> None:
    options = session_options(Onnx(intra_op_threads=4, graph_level="basic", spinning=True, arena=False), 0)
    assert options.intra_op_num_threads == 4
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert not options.enable_cpu_mem_arena
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"


def test_the_worker_bounds_the_threads_of_a_model() -> None:
    assert session_options(Onnx(intra_op_threads=4), 2).intra_op_num_threads == 2
    assert session_options(Onnx(intra_op_threads=1), 2).intra_op_num_threads == 1


@pytest.mark.parametrize(("n_threads", "is_one"), [(1, True), (2, False)])
def test_a_run_is_the_callers_own_work_unless_there_is_a_pool(tmp_path: Path, n_threads: int, is_one: bool) -> None:
    folder = onnxmodels.store(tmp_path, "fraud", 1, onnxmodels.linear())
    assert load(folder, ModelConfig(onnx=Onnx(intra_op_threads=n_threads))).is_one_thread is is_one


@pytest.mark.parametrize("settings", [Onnx(arena=False), Onnx(intra_op_threads=2), Onnx(graph_level="disabled")])
def test_settings_do_not_change_answers(tmp_path: Path, settings: Onnx) -> None:
    folder = onnxmodels.store(tmp_path, "fraud", 1, onnxmodels.linear())
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    (got,) = load(folder, ModelConfig(onnx=settings)).run([x])
    assert np.allclose(got, x @ onnxmodels.weights(4, 3) + 1, rtol=1e-4, atol=1e-5)


def test_options_go_to_the_provider_that_is_in_use(tmp_path: Path) -> None:
    folder = onnxmodels.store(tmp_path, "fraud", 1, onnxmodels.linear())
    assert load(folder, ModelConfig(onnx=Onnx(provider_options={"cpu": {}}))).signature.batched


def test_loading_prints_nothing_even_where_onnxruntime_would_warn(tmp_path: Path) -> None:
    """In a process of its own, since warnings come from C and at first use."""
    unused = onnxmodels.build(
        [onnxmodels.node("Identity", ["x"], ["y"])],
        [onnxmodels.tensor("x")],
        [onnxmodels.tensor("y", shape=("N", 5))],  # which is not so, and gets a warning at each run
        {"never": np.zeros(3, np.float32)},  # and so does this at load
    )
    folder = onnxmodels.store(tmp_path, "fraud", 1, unused)
    code = (
        "import pathlib, sys\n"
        "from gateway.backends.onnx import load\n"
        "from gateway.config.model import ModelConfig\n"
        "backend = load(pathlib.Path(sys.argv[1]), ModelConfig())\n"
        "backend.warm_up()\n"
        "assert backend.signature.outputs[0].shape == (-1, -1), backend.signature\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
