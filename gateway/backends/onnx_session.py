"""Opens an ONNX Runtime session with the settings of model.yaml, quietly, or says why not.

Defaults are for a process with many sessions and its own threads: one thread per run, no spinning. Memory patterns are
off wherever a shape can change: ONNX Runtime keeps a plan per shape seen, and batches come in every size.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnxruntime as ort

from gateway.backends import onnx_errors, zipmap
from gateway.config.model import Onnx
from gateway.errors import LoadError

_log = logging.getLogger(__name__)

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_LOG_FATAL = 4  # ONNX Runtime prints each failing run on stderr below this; every error reaches us as an exception
_GRAPH_LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_GIT_LFS = b"version https://git-lfs"


def open_session(file: Path, settings: Onnx, threads: int) -> Any:
    """A session on `file`. LoadError names the file or the setting, and the cure."""
    _check_file(file)
    available = ort.get_available_providers()
    providers = choose_providers(settings.providers, available)
    options = session_options(settings, threads)
    try:
        source: str | bytes = str(file)
        if zipmap.mentions_zipmap(file) and (model := zipmap.without_zipmap(file)) is not None:
            source = model
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
        session = ort.InferenceSession(
            source,
            options,
            providers=providers,
            provider_options=[settings.provider_options.get(name, {}) for name in providers],
            enable_fallback=0,  # ONNX Runtime's fallback prints on stdout and hides the reason
        )
    except LoadError:
        raise
    except OSError as error:
        raise LoadError(f"{file} cannot be read: {error.strerror}") from error
    except Exception as error:
        raise LoadError(_reason(file, providers, error)) from error
    session.disable_fallback()
    check_started(settings.providers, providers, session.get_providers(), available)
    return session


def runs_on_one_thread(session: Any) -> bool:
    """Whether a run is the work of the calling thread alone: no pool of ONNX Runtime's own, no device."""
    return bool(session.get_providers() == [_CPU] and session.get_session_options().intra_op_num_threads == 1)


def choose_providers(wish: tuple[str, ...] | str, available: list[str]) -> list[str]:
    """Providers to ask for, CPU always last: it runs what the others cannot. LoadError when a wish is not on offer."""
    if wish == "auto":
        return [name for name in (_CUDA, _CPU) if name in available]
    for name in wish:
        if name not in available:
            raise LoadError(
                f"onnx.providers asks for {name}, and this onnxruntime offers {', '.join(sorted(available))}; "
                "change model.yaml or install the onnxruntime package that has it (gateway[gpu] for CUDA)"
            )
    return [*wish, *(name for name in (_CPU,) if name not in wish)]


def session_options(settings: Onnx, threads: int) -> Any:
    """`threads`: upper bound of threads inside an operator, 0 for none."""
    options = ort.SessionOptions()
    wanted = settings.intra_op_threads
    options.intra_op_num_threads = min(wanted, threads) if threads > 0 else wanted
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = _GRAPH_LEVELS[settings.graph_level]
    options.enable_cpu_mem_arena = settings.arena
    options.enable_mem_pattern = False
    options.log_severity_level = _LOG_FATAL
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", str(int(settings.spinning)))
    return options


def _check_file(file: Path) -> None:
    """The faults that ONNX Runtime words badly."""
    try:
        size = file.stat().st_size
        if file.is_dir():
            raise LoadError(f"{file} is a folder, expected an ONNX model")
        with file.open("rb") as stream:
            head = stream.read(len(_GIT_LFS))
    except FileNotFoundError:
        raise LoadError(f"{file} does not exist; put the model there") from None
    except OSError as error:
        raise LoadError(f"{file} cannot be read: {error.strerror}") from None
    if size == 0:
        raise LoadError(f"{file} is empty (0 bytes); copy or export it again")
    if head == _GIT_LFS:
        raise LoadError(f"{file} is a Git LFS pointer, not the model; run git lfs pull")


def _reason(file: Path, providers: list[str], error: Exception) -> str:
    reason = onnx_errors.load_reason(file, error)
    return reason if providers == [_CPU] else f"{reason} (providers: {', '.join(providers)})"


def check_started(wish: tuple[str, ...] | str, asked: list[str], started: list[str], available: list[str]) -> None:
    """ONNX Runtime offers CUDA wherever its package is installed, and drops it silently where the driver or a library
    is missing.
    """
    lost = [name for name in asked if name not in started]
    if not lost:
        return
    text = f"{lost[0]} did not start (is its driver and runtime library installed?); started: {', '.join(started)}"
    if wish == "auto":
        _log.warning("%s", text)
    else:
        raise LoadError(f"onnx.providers: {text}; this onnxruntime offers {', '.join(sorted(available))}")
