"""RepositoryModelLoad and RepositoryModelUnload: what a caller may change of a running server, in all of its workers.

Switched off unless the operator says --model-control: whoever reaches the port could otherwise replace a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from gateway import pb
from gateway.config.deployment import FLAGS
from gateway.errors import InvalidArgument, Unavailable, Unimplemented
from gateway.serving import override
from gateway.serving.override import Parameters
from gateway.serving.stream import parse
from gateway.serving.wording import quoted

_PREFIX = "/inference.GRPCInferenceService/"


class Workers(Protocol):
    """All workers, as one of them reaches them: gateway.serving.commands.Commands."""

    async def ask(self, do: str, **fields: Any) -> list[Any]: ...


class Repository:
    """Handlers by gRPC path, and `load` and `unload` for REST. Without `workers` both are refused; `scratch` is a
    folder for overrides, private to this user.
    """

    slow: dict[str, Callable[[bytes], Awaitable[bytes]]]

    def __init__(self, workers: Workers | None = None, scratch: Path | None = None) -> None:
        self._workers, self._scratch = workers, scratch
        self.slow = {
            _PREFIX + "RepositoryModelLoad": self.answer_load,
            _PREFIX + "RepositoryModelUnload": self.answer_unload,
        }

    @property
    def is_controlled(self) -> bool:
        """Whether the operator has allowed it."""
        return self._workers is not None

    async def load(self, model: str, parameters: Parameters) -> None:
        """Returns when every worker serves the model as it lies in the repository, or as `parameters` have it: `config`
        (Triton's ModelConfig as JSON text) and `file:<version>/<name>` (bytes). Raises GatewayError: what served before
        goes on serving.
        """
        workers = self._allowed("load")
        _check_name(model)
        wish = override.read(model, parameters)
        folder = None
        if wish is not None:
            folder = str(await asyncio.to_thread(override.store, wish, self._scratch))
        await workers.ask("load", model=model, override=folder)

    async def unload(self, model: str, parameters: Parameters) -> None:
        """Returns when no worker serves it any more, its requests are answered and its memory is given back."""
        workers = self._allowed("unload")
        _check_name(model)
        for name in parameters:
            if name != "unload_dependents":  # nothing depends on a model here, so either value is obeyed
                raise InvalidArgument(f"parameter {quoted(name)} is unknown, expected unload_dependents")
        await workers.ask("unload", model=model)

    async def answer_load(self, message: bytes) -> bytes:
        request = parse(pb.inference.RepositoryModelLoadRequest, message)
        _check_repository(request.repository_name)
        await self.load(request.model_name, _parameters(request))
        return b""  # RepositoryModelLoadResponse has no fields

    async def answer_unload(self, message: bytes) -> bytes:
        request = parse(pb.inference.RepositoryModelUnloadRequest, message)
        _check_repository(request.repository_name)
        await self.unload(request.model_name, _parameters(request))
        return b""

    def _allowed(self, what: str) -> Workers:
        if self._workers is None:
            raise Unavailable(
                f"model {what} is switched off; start the server with {FLAGS['model_control']} to allow it"
            )
        return self._workers


def _check_repository(name: str) -> None:
    if name:
        raise Unimplemented(
            f"repository_name: got {quoted(name)}; this server has one repository, leave the field empty"
        )


def _check_name(model: str) -> None:
    if not model:
        raise InvalidArgument("model_name is empty, expected a model's name")
    # A name is a folder's, and travels to other processes in a line.
    if len(model.encode()) > override.MAX_NAME_BYTES or not model.isprintable() or "/" in model or model[0] == ".":
        raise InvalidArgument(f"model_name: got {quoted(model)}, expected the name of a folder in the model repository")


def _parameters(request: Any) -> dict[str, str | bytes | int | bool]:
    found = {}
    for name, parameter in request.parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidArgument(f"parameter {quoted(name)} has no value")
        found[name] = getattr(parameter, choice)
    return found
