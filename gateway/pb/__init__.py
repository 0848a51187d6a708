"""The protobuf messages of the slow path, built at import from the compiled descriptors of proto/.

They live in a pool of their own: Triton's and KServe's clients register the same `inference.*` symbols in protobuf's
default pool, and one process may well hold such a client and the gateway. `make proto` writes descriptors.binpb.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_DESCRIPTORS = Path(__file__).with_name("descriptors.binpb")

pool: Final = descriptor_pool.DescriptorPool()
file_descriptor_protos: Final[dict[str, bytes]] = {}
"""File name -> serialized FileDescriptorProto, imports before their users: what reflection hands out."""


def _namespace(file_name: str) -> Any:
    """The message classes of one file as plain attributes; Any, since mypy cannot see them."""
    file = pool.FindFileByName(file_name)
    classes = {name: message_factory.GetMessageClass(found) for name, found in file.message_types_by_name.items()}
    return types.SimpleNamespace(**classes)


for _file in descriptor_pb2.FileDescriptorSet.FromString(_DESCRIPTORS.read_bytes()).file:
    file_descriptor_protos[_file.name] = _file.SerializeToString(deterministic=True)
    pool.AddSerializedFile(file_descriptor_protos[_file.name])

inference: Final = _namespace("inference.proto")
model_config: Final = _namespace("model_config.proto")
shared_memory: Final = _namespace("shared_memory.proto")
health: Final = _namespace("health.proto")
feedback: Final = _namespace("feedback.proto")
reflection: Final = _namespace("reflection.proto")
reflection_alpha: Final = _namespace("reflection_alpha.proto")
