"""/v2/repository: which models there are, and loading and unloading them."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from gateway import pb
from gateway.errors import InvalidArgument
from gateway.serving.rest import document
from gateway.serving.rest.message import Request
from gateway.serving.rest.procedures import Procedures
from gateway.serving.rest.protojson import to_json
from gateway.serving.wording import quoted


class Repository:
    """Handlers. The path may name a repository before the model, as Triton allows."""

    def __init__(self, procedures: Procedures) -> None:
        self._procedures = procedures

    def index(self, request: Request) -> None:
        body = _object(request)
        message = pb.inference.RepositoryIndexRequest(
            repository_name=request.args[0] if request.args else "",
            ready=document.optional(body, "", "ready", bool) or False,
        )
        self._procedures.call(
            "RepositoryIndex",
            message,
            request,
            lambda answer: orjson.dumps([to_json(model) for model in answer.models]),
        )

    def load(self, request: Request) -> None:
        self._control("RepositoryModelLoad", request)

    def unload(self, request: Request) -> None:
        self._control("RepositoryModelUnload", request)

    def _control(self, name: str, request: Request) -> None:
        *repository, model = request.args
        body = _object(request)
        parameters = document.optional(body, "", "parameters", dict) or {}
        message_class = getattr(pb.inference, f"{name}Request")
        message = message_class(repository_name=repository[0] if repository else "", model_name=model)
        for key, value in parameters.items():
            _set(message.parameters[key], key, value)
        self._procedures.call(name, message, request, lambda _: b"{}")


def _object(request: Request) -> dict[str, Any]:
    return document.load_object(request.body) if len(request.body) else {}


def _set(parameter: Any, key: str, value: Any) -> None:
    if key.startswith("file:"):
        if type(value) is not str:
            raise InvalidArgument(f"parameters.{quoted(key)}: expected the file's bytes as a base64 string")
        try:
            parameter.bytes_param = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidArgument(f"parameters.{quoted(key)}: is no base64") from None
    elif type(value) is str:
        parameter.string_param = value
    elif type(value) is bool:
        parameter.bool_param = value
    elif type(value) is int and -(2**63) <= value < 2**63:
        parameter.int64_param = value
    else:
        raise InvalidArgument(f"parameters.{quoted(key)}: expected a string, true, false or a whole number")
