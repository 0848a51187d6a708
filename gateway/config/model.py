"""model.yaml: what an operator may set about one model. Every field has a default that suits a small model on a CPU.

Fields hold normalised values: durations in microseconds, sizes in bytes, providers by ONNX Runtime's own names.
A duration may be written `max_delay: 2ms` or, as in Triton, `max_delay_us: 2000`; both land in `max_delay_us`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from gateway.config.feedback import Feedback
from gateway.config.files import load_yaml
from gateway.config.monitoring import Monitoring
from gateway.config.triton import Triton
from gateway.config.units import (
    MAX_DURATION_US,
    DurationUs,
    OptionalDurationUs,
    SizeBytes,
    expected,
    format_duration,
)
from gateway.errors import ConfigError

FILE_NAME = "model.yaml"

MAX_BATCH_ROWS = 65536
"""Rows of one batch: above it a batch is a bulk job, and its buckets would be warmed for hours."""

MAX_INSTANCES = 256
MAX_THREADS = 256
"""Executors or threads of one version: more than any machine we know has cores."""

MAX_PRIORITY_LEVELS = 16
"""Each level is a queue of its own in every lane."""

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
}


def _int_or_auto(lowest: int, highest: int) -> BeforeValidator:
    def check(value: Any) -> Any:
        if value == "auto" or (type(value) is int and lowest <= value <= highest):
            return value
        raise expected(f"auto or a whole number from {lowest} to {highest}")

    return BeforeValidator(check)


def _provider(name: Any) -> str:
    full = _PROVIDERS.get(name.lower(), name) if isinstance(name, str) else ""
    if not full.endswith("ExecutionProvider"):
        raise expected(f"one of {', '.join(_PROVIDERS)}, or ONNX Runtime's name such as CUDAExecutionProvider")
    return full


def _providers(value: Any) -> Any:
    if value == "auto":
        return value
    if not isinstance(value, (list, tuple)) or not value:
        raise expected("auto or a list such as [cuda, cpu]")
    names = tuple(_provider(name) for name in value)
    if len(set(names)) < len(names):
        raise expected("each provider once")
    return names


def _provider_options(value: Any) -> Any:
    if not isinstance(value, dict) or not all(isinstance(options, dict) for options in value.values()):
        raise expected("options by provider, such as {cuda: {device_id: 0}}")
    for options in value.values():
        for option in options.values():
            if not isinstance(option, (str, int, float)):
                raise expected("text, numbers, true or false as the value of an option")
    return {
        _provider(name): {key: str(int(v)) if isinstance(v, bool) else str(v) for key, v in options.items()}
        for name, options in value.items()
    }


class _Section(BaseModel):
    """Strict, because YAML has types: `true` is no 1 and `3.0` is no 3."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Batching(_Section):
    """How requests wait and are put together. Rows are counted, not requests."""

    by: Literal["gateway", "remote"] = "gateway"
    """Who puts requests together. `remote` (or `batching: remote`) hands each on at once, for Triton to do it."""

    max_batch_size: Annotated[int | Literal["auto"], _int_or_auto(0, MAX_BATCH_ROWS)] = "auto"
    """Rows of one run; `auto` finds it at warm-up, 0 runs each request by itself."""

    max_delay_written: DurationUs | None = Field(default=None, alias="max_delay", exclude=True, repr=False)
    max_delay_us: Annotated[int, Field(ge=0, le=MAX_DURATION_US)] = 0
    """How long an idle executor waits for companions of the first request; 0: no longer than they are worth."""

    linger: bool = True
    """With `max_delay` 0: wait for up to half of a run's fixed cost for callers who ask again, where they have
    done so before."""

    instances: Annotated[int | Literal["auto"], _int_or_auto(1, MAX_INSTANCES)] = "auto"
    """Runs of this version at once in one worker."""

    priority_levels: Annotated[int, Field(ge=1, le=MAX_PRIORITY_LEVELS)] = 1
    default_priority: Annotated[int, Field(ge=1, le=MAX_PRIORITY_LEVELS)] = 1
    """Level 1 goes first. The default is the level of a request that names none."""

    queue_rows: Annotated[int, Field(ge=1, le=2**31 - 1)] = 65536
    queue_bytes: SizeBytes = 256 * 2**20
    """Bounds of the queue; above either, a request is refused RESOURCE_EXHAUSTED at once."""

    default_timeout_written: OptionalDurationUs = Field(default=None, alias="default_timeout", exclude=True, repr=False)
    default_timeout_us: Annotated[int, Field(ge=1, le=MAX_DURATION_US)] | None = None
    """Deadline of a request that brings none; None waits for ever."""

    max_timeout_written: OptionalDurationUs = Field(default=None, alias="max_timeout", exclude=True, repr=False)
    max_timeout_us: Annotated[int, Field(ge=1, le=MAX_DURATION_US)] | None = None
    """A later deadline is cut to this; None lets the caller choose."""

    @field_validator("default_timeout_written", "max_timeout_written", "queue_bytes")
    @classmethod
    def _not_zero(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value == 0:
            raise expected("a byte at least" if info.field_name == "queue_bytes" else "more than 0, or none")
        return value

    @field_validator("max_delay_us", "default_timeout_us", "max_timeout_us")
    @classmethod
    def _written_once(cls, value: int | None, info: ValidationInfo) -> int | None:
        assert info.field_name is not None
        name = info.field_name.removesuffix("_us")
        if info.data.get(f"{name}_written") is not None:
            raise expected(f"either {name} or {name}_us, not both")
        return value

    @model_validator(mode="before")
    @classmethod
    def _needs_mapping(cls, data: Any) -> Any:
        if data == "remote":
            return {"by": "remote"}
        return {} if data is None else data  # `batching:` with every line below it commented out

    @model_validator(mode="after")
    def _agree(self) -> Batching:
        for name in ("max_delay", "default_timeout", "max_timeout"):
            written = getattr(self, f"{name}_written")
            if written is not None:
                # Frozen for everybody else. One value is left, so that two spellings of one setting are equal.
                self.__dict__.update({f"{name}_us": written, f"{name}_written": None})
        if self.default_priority > self.priority_levels:
            raise ValueError(
                f"default_priority is {self.default_priority}, "
                f"expected at most priority_levels, which is {self.priority_levels}"
            )
        default_us, max_us = self.default_timeout_us, self.max_timeout_us
        if default_us is not None and max_us is not None and default_us > max_us:
            raise ValueError(
                f"default_timeout is {format_duration(default_us)}, "
                f"expected at most max_timeout, which is {format_duration(max_us)}"
            )
        return self


class Onnx(_Section):
    """ONNX Runtime's session. The defaults are measured for many small models in one process that has other work to
    do.
    """

    providers: Annotated[tuple[str, ...] | Literal["auto"], BeforeValidator(_providers)] = "auto"
    """`auto` is CUDA where onnxruntime has it, else CPU. A list is a wish: a provider that does not start fails the
    load.
    """

    provider_options: Annotated[dict[str, dict[str, str]], BeforeValidator(_provider_options)] = {}
    """By provider, handed to ONNX Runtime as they are: {cuda: {device_id: 0, gpu_mem_limit: 2147483648}}."""

    intra_op_threads: Annotated[int, Field(ge=1, le=MAX_THREADS)] = 1
    """Threads inside one operator. 1, because batches already run side by side; more helps a model of many
    milliseconds.
    """

    graph_level: Literal["all", "extended", "basic", "disabled"] = "all"

    spinning: bool = False
    """Idle operator threads burn a core while they wait; only matters above one thread."""

    arena: bool = True
    """Keep freed tensors for the next run: a fifth quicker on tensors of megabytes, and the memory of the largest batch
    stays.
    """

    @model_validator(mode="before")
    @classmethod
    def _needs_mapping(cls, data: Any) -> Any:
        return {} if data is None else data

    @model_validator(mode="after")
    def _options_are_used(self) -> Onnx:
        unused = [name for name in self.provider_options if self.providers != "auto" and name not in self.providers]
        if unused:
            allowed = ", ".join(self.providers)
            raise ValueError(f"provider_options names {unused[0]}, expected one of providers: {allowed}")
        return self


class ModelConfig(_Section):
    """One model's settings, shared by all its versions."""

    backend: Literal["onnx", "triton"] = "onnx"
    """What runs its versions. One whose folder has a triton.yaml runs on Triton whatever stands here."""
    batching: Batching = Field(default_factory=Batching)
    onnx: Onnx = Field(default_factory=Onnx)
    triton: Triton = Field(default_factory=Triton)
    monitoring: Monitoring = Field(default_factory=Monitoring)
    feedback: Feedback = Field(default_factory=lambda: Feedback(enabled=False))


def load_model_config(folder: Path) -> ModelConfig:
    """Settings of the model in `folder`: all defaults where there is no model.yaml. ConfigError names file and
    field.
    """
    if (folder / "model.yml").exists():
        raise ConfigError(f"{folder / 'model.yml'}: got the name model.yml, expected {FILE_NAME}; rename the file")
    path = folder / FILE_NAME
    return load_yaml(path, ModelConfig) if path.exists() or path.is_symlink() else ModelConfig()
