"""What a server says of a model: its metadata and its configuration, as a signature, and what differs in words.

Pure. Triton says both; a server of the Open Inference Protocol alone has no ModelConfig, and is then batched where
every tensor begins with a free dimension and the operator set a `max_batch_size`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-not-found]

from gateway.backends.base import DATATYPES, MAX_RANK, Signature, TensorSpec
from gateway.errors import LoadError

DECOUPLED = "a decoupled model: it answers on ModelStreamInfer only"

_SEQUENCE_BATCHING = 13
"""Its field of Triton's ModelConfig, of which proto/ holds only what can be set here."""


@dataclass(frozen=True, slots=True)
class Described:
    """One model as one server has it."""

    signature: Signature
    max_batch_size: int
    """Rows; 0: not batched."""
    platform: str
    backend: str
    versions: tuple[str, ...]
    instances: int = 1
    is_decoupled: bool = False
    has_sequences: bool = False
    """It keeps state from one request of a sequence to the next."""

    def difference(self, other: Described) -> str:
        """What of `other` would make answers wrong where `self` was expected; "" when nothing would."""
        faults = [
            *_tensors("input", self.signature.inputs, other.signature.inputs),
            *_tensors("output", self.signature.outputs, other.signature.outputs),
        ]
        if self.signature.batched != other.signature.batched:
            words = {True: "batched", False: "not batched"}
            faults.append(f"it is {words[other.signature.batched]}, and was {words[self.signature.batched]}")
        elif other.max_batch_size < self.max_batch_size:
            faults.append(f"max_batch_size is {other.max_batch_size}, and was {self.max_batch_size}")
        if self.is_decoupled != other.is_decoupled:
            faults.append(DECOUPLED if other.is_decoupled else "no decoupled model any more")
        if self.has_sequences != other.has_sequences:
            faults.append("it keeps state for sequences" if other.has_sequences else "it keeps no sequences any more")
        return "; ".join(faults)


def describe(metadata: Any, config: Any | None, wish: int | str, where: str) -> Described:
    """From ModelMetadataResponse and ModelConfig (None: the server has no such call); `wish` is the operator's
    max_batch_size. LoadError: what of it cannot be served here.
    """
    inputs, outputs = _specs(metadata.inputs, "input", where), _specs(metadata.outputs, "output", where)
    if not inputs or not outputs:
        raise LoadError(f"{where}: it names no {'inputs' if not inputs else 'outputs'}, so nothing can be checked")
    may_batch = all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))
    if config is not None:
        rows = config.max_batch_size
        if rows and not may_batch:
            raise LoadError(f"{where}: max_batch_size is {rows}, and a tensor does not begin with -1 in its metadata")
    else:
        rows = wish if isinstance(wish, int) and may_batch else 0
    if isinstance(wish, int) and wish > rows:
        raise LoadError(
            f"{where}: batching.max_batch_size is {wish}, expected at most {rows}, which is the max_batch_size there"
        )
    return Described(
        Signature(inputs, outputs, batched=rows > 0),
        rows,
        metadata.platform or (config.platform if config is not None else "") or "triton",
        (config.backend if config is not None else "") or "triton",
        tuple(metadata.versions),
        max(1, sum(max(1, group.count) for group in config.instance_group)) if config is not None else 1,
        config is not None and config.model_transaction_policy.decoupled,
        config is not None and any(field.field_number == _SEQUENCE_BATCHING for field in UnknownFieldSet(config)),
    )


def _specs(tensors: Sequence[Any], role: str, where: str) -> tuple[TensorSpec, ...]:
    specs = tuple(TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)
    for spec in specs:
        if spec.datatype not in DATATYPES:
            raise LoadError(
                f"{where}: {role} {spec.name!r} has datatype {spec.datatype!r}, expected one of {', '.join(DATATYPES)}"
            )
        if len(spec.shape) > MAX_RANK:
            raise LoadError(
                f"{where}: {role} {spec.name!r} has {len(spec.shape)} dimensions, expected at most {MAX_RANK}"
            )
    return specs


def _tensors(role: str, ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec]) -> list[str]:
    """By name: their order tells nothing."""
    before, now = {spec.name: spec for spec in ours}, {spec.name: spec for spec in theirs}
    faults = [f"{role} {name!r} is gone" for name in before if name not in now]
    faults += [f"{role} {name!r} is new" for name in now if name not in before]
    for name in before.keys() & now.keys():
        old, new = before[name], now[name]
        if old.datatype != new.datatype:
            faults.append(f"{role} {name!r} has datatype {new.datatype}, and had {old.datatype}")
        if old.shape != new.shape:
            faults.append(f"{role} {name!r} has shape {list(new.shape)}, and had {list(old.shape)}")
    return sorted(faults)
