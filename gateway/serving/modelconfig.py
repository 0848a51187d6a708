"""A model's configuration in the form of Triton's clients: written for ModelConfig, read from the `config` of a load.

What a client reads it may send back: settings are changed by it, and a field that only describes the model must agree
with the model. Anything else is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from pydantic import ValidationError

from gateway import pb
from gateway.backends.base import Backend, TensorSpec
from gateway.batching.policy import LanePolicy
from gateway.config.files import error_lines, shown
from gateway.config.model import Batching, ModelConfig
from gateway.errors import InvalidArgument
from gateway.registry.repository import MODEL_FILE
from gateway.serving.wording import listed, quoted

MAX_CONFIG_CHARS = 2**20
"""A configuration is a few kilobytes."""

_DATA_TYPES = {"BYTES": "TYPE_STRING"}  # the others are TYPE_ and OIP's name
_POLICY = "dynamic_batching.default_queue_policy"

# Triton's field -> ours below `batching`, and what 0 means there when it is no value of ours.
_SETTINGS: dict[str, tuple[str, Any]] = {
    "max_batch_size": ("max_batch_size", 0),
    "dynamic_batching.max_queue_delay_microseconds": ("max_delay_us", 0),
    "dynamic_batching.priority_levels": ("priority_levels", 1),
    "dynamic_batching.default_priority_level": ("default_priority", 1),
    f"{_POLICY}.default_timeout_microseconds": ("default_timeout_us", None),
    f"{_POLICY}.max_queue_size": ("queue_rows", Batching.model_fields["queue_rows"].default),
    "instance_group.count": ("instances", "auto"),
}
_CONSTANTS: dict[str, Any] = {
    "default_model_filename": MODEL_FILE,
    f"{_POLICY}.allow_timeout_override": True,
}
_DESCRIBED = ("input", "output")
"""Compared with the model once it is loaded."""
_KINDS = ("platform", "backend")
"""The same; different versions may run on different ones."""
_FREE = ("name", "version_policy.all", "instance_group.name", "instance_group.kind")
"""Looked at one by one, or telling nothing."""


def to_triton(model: str, backend: Backend, policy: LanePolicy, config: ModelConfig) -> Any:
    """pb.model_config.ModelConfig of a loaded version. All versions of a model are served: version_policy `all`."""
    skipped = 1 if backend.signature.batched else 0  # dims are without the batch dimension

    def dims(spec: TensorSpec) -> dict[str, Any]:
        kind = _DATA_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}")
        return {"name": spec.name, "data_type": kind, "dims": spec.shape[skipped:]}

    return pb.model_config.ModelConfig(
        name=model,
        platform=backend.platform,
        backend=backend.kind,
        version_policy={"all": {}},
        max_batch_size=policy.max_batch_size,
        input=[dims(spec) for spec in backend.signature.inputs],
        output=[dims(spec) for spec in backend.signature.outputs],
        dynamic_batching={
            "max_queue_delay_microseconds": policy.max_delay_us,
            "priority_levels": policy.priority_levels,
            "default_priority_level": policy.default_priority,
            "default_queue_policy": {
                "default_timeout_microseconds": policy.default_timeout_us,
                "allow_timeout_override": True,
                "max_queue_size": policy.max_queue_rows,
            },
        },
        instance_group=[{"name": model, "kind": _kind(backend, config), "count": policy.instances}],
        default_model_filename="" if backend.runs_elsewhere else MODEL_FILE,
    )


def _kind(backend: Backend, config: ModelConfig) -> str:
    wish = config.onnx.providers
    if backend.is_one_thread or wish == ("CPUExecutionProvider",):
        return "KIND_CPU"
    if any(name in wish for name in ("CUDAExecutionProvider", "TensorrtExecutionProvider")):
        return "KIND_GPU"
    return "KIND_AUTO"


class ConfigOverride:
    """The `config` parameter of a load, for `model`. InvalidArgument names the field, what came and what is offered."""

    def __init__(self, model: str, text: str) -> None:
        self._model = model
        if len(text) > MAX_CONFIG_CHARS:
            raise InvalidArgument(
                f"parameter 'config': got {len(text)} characters, expected at most {MAX_CONFIG_CHARS}"
            )
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"parameter 'config': not readable as JSON: {error}") from None
        if not isinstance(data, dict):
            raise InvalidArgument(f"parameter 'config': got {shown(data)}, expected a JSON object")
        _refuse_unknown(data)
        try:
            self._message: Any = json_format.Parse(text, pb.model_config.ModelConfig())
        except json_format.ParseError as error:
            raise InvalidArgument(f"parameter 'config': {str(error).splitlines()[0][:200]}") from None
        self._given = set(_given(data, pb.model_config.ModelConfig.DESCRIPTOR))
        self._refuse_unoffered()
        self._changes = self._read_settings()

    def apply(self, config: ModelConfig) -> ModelConfig:
        """`config` with what was given; the rest stays. InvalidArgument when the two do not agree."""
        return config.model_copy(update={"batching": self._validated(config.batching)})

    def disagreement(self, actuals: Sequence[Any]) -> str:
        """What is described otherwise than by any of the ModelConfigs of the loaded versions; "" when nothing is."""
        for name in _DESCRIBED:
            wanted, found = _texts(self._message, name), [_texts(actual, name) for actual in actuals]
            if wanted and wanted not in found:
                has = listed(dict.fromkeys(map(listed, found)), " or ")
                return f"config field {name!r} describes {listed(wanted)}, and the model has {has}"
        for name in _KINDS:
            kind, kinds = getattr(self._message, name), {getattr(actual, name) for actual in actuals}
            if kind and kind not in kinds:
                return f"config field {name!r}: got {shown(kind)}, expected {listed(sorted(kinds), ' or ')}"
        for group in self._message.instance_group:
            wish, kinds = _kind_name(group), {_kind_name(actual.instance_group[0]) for actual in actuals}
            if wish != "KIND_AUTO" and "KIND_AUTO" not in kinds and wish not in kinds:
                return (
                    f"config field 'instance_group.kind': got {wish}, and the model runs on {listed(sorted(kinds))}; "
                    "onnx.providers in model.yaml says where"
                )
        return ""

    def _validated(self, batching: Batching) -> Batching:
        data = batching.model_dump() | self._changes
        if data["default_priority"] > data["priority_levels"] and "default_priority" not in self._changes:
            data["default_priority"] = data["priority_levels"]  # the levels shrank below model.yaml's default
        try:
            return Batching.model_validate(data)
        except ValidationError as error:
            text = "; ".join(error_lines(error, data, Batching))
            raise InvalidArgument(f"parameter 'config': as batching of model.yaml: {text}") from None

    def _read_settings(self) -> dict[str, Any]:
        groups = self._message.instance_group
        if len(groups) > 1:
            raise InvalidArgument(f"parameter 'config': instance_group: got {len(groups)} groups, expected one")
        changes = {}
        for field, (ours, zero) in _SETTINGS.items():
            if field not in self._given:
                continue
            at = groups[0] if groups and field.startswith("instance_group.") else self._message
            for part in field.removeprefix("instance_group.").split("."):
                at = getattr(at, part)
            changes[ours] = at or zero
        return changes

    def _refuse_unoffered(self) -> None:
        if self._message.name not in ("", self._model):
            raise InvalidArgument(
                f"parameter 'config': name: got {quoted(self._message.name)}, expected {quoted(self._model)}"
            )
        for field, value in _set(self._message):
            if field in _CONSTANTS:
                if value != _CONSTANTS[field]:
                    raise InvalidArgument(
                        f"parameter 'config': {field}: got {shown(value)}, expected {_CONSTANTS[field]}"
                    )
            elif field.partition(".")[0] not in (*_DESCRIBED, *_KINDS) and field not in (*_SETTINGS, *_FREE):
                raise InvalidArgument(f"parameter 'config': {field} is not offered here; {_OFFER}")
        policy = f"{_POLICY}.allow_timeout_override"
        if policy in self._given and not self._message.dynamic_batching.default_queue_policy.allow_timeout_override:
            raise InvalidArgument(
                f"parameter 'config': {policy}: got false, expected true: a request may bring its own"
            )


_OFFER = f"settings are {', '.join(_SETTINGS)}; others are in model.yaml"


def _refuse_unknown(data: Mapping[str, Any]) -> None:
    """By our own words: protobuf's text lists every field that Triton ever had."""
    known = {name for field in pb.model_config.ModelConfig.DESCRIPTOR.fields for name in (field.name, field.json_name)}
    for name in data:
        if name not in known:
            raise InvalidArgument(f"parameter 'config': {quoted(name)} is not offered here; {_OFFER}")


def _given(data: Any, descriptor: Any, path: str = "") -> Iterator[str]:
    """Dotted names of the values that were written, also of those that are 0: protobuf forgets these."""
    if isinstance(data, list):
        for item in data:
            yield from _given(item, descriptor, path)
    elif descriptor is None or descriptor.GetOptions().map_entry or not isinstance(data, dict):
        yield path.removesuffix(".")
    else:
        for field in descriptor.fields:
            for name in {field.name, field.json_name} & data.keys():
                if data[name] is not None:
                    yield from _given(data[name], field.message_type, f"{path}{field.name}.")


def _set(message: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of what is not the default; entries of a list as one name."""
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            yield name, value if isinstance(value, (str, int, float)) else list(value)
        elif not isinstance(value, Message):
            for item in value:
                yield from _set(item, f"{name}.")
        elif not value.ListFields() and path == "version_policy.":
            yield name, None  # a choice is one even when nothing is in it
        else:
            yield from _set(value, f"{name}.")


def _kind_name(group: Any) -> str:
    return str(pb.model_config.ModelInstanceGroup.Kind.Name(group.kind))


def _texts(config: Any, name: str) -> list[str]:
    """Inputs or outputs, sorted: their order tells nothing."""
    data_type = pb.model_config.ModelConfig.DESCRIPTOR.file.enum_types_by_name["DataType"]
    return sorted(
        f"{tensor.name} {data_type.values_by_number[tensor.data_type].name} {list(tensor.dims)}"
        for tensor in getattr(config, name)
    )
