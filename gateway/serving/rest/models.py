"""/v2/models: what one model is, whether it serves, how it is configured and what it has done."""

from __future__ import annotations

from typing import Any

import orjson

from gateway import pb
from gateway.errors import GatewayError, Unavailable
from gateway.serving.catalog import Catalog
from gateway.serving.rest.errors import HttpError
from gateway.serving.rest.message import Request
from gateway.serving.rest.procedures import Procedures
from gateway.serving.rest.protojson import to_json


def model_and_version(request: Request) -> tuple[str, str]:
    """From the path; version "" is the server's choice."""
    args = request.args
    return args[0], args[1] if len(args) > 1 else ""


class Models:
    """Handlers. The path names model and, maybe, version."""

    def __init__(self, catalog: Catalog, procedures: Procedures) -> None:
        self._catalog, self._procedures = catalog, procedures

    def metadata(self, request: Request) -> None:
        model, version = model_and_version(request)
        message = pb.inference.ModelMetadataRequest(name=model, version=version)
        self._procedures.call("ModelMetadata", message, request, _dumped)

    def ready(self, request: Request) -> None:
        """200, or 400 as Triton has it, also for what does not exist: pollers ask before a model is there."""
        model, version = model_and_version(request)
        try:
            if self._catalog.draining:
                raise Unavailable("the server is draining")
            self._catalog.resolve(model, version)
        except GatewayError as error:
            request.respond_json({"name": model, "ready": False, "error": str(error)}, 400)
        else:
            request.respond_json({"name": model, "ready": True})

    def config(self, request: Request) -> None:
        model, version = model_and_version(request)
        message_class = getattr(pb.inference, "ModelConfigRequest", _Nothing)
        self._procedures.call(
            "ModelConfig",
            message_class(name=model, version=version),
            request,
            lambda message: orjson.dumps(to_json(message.config)),
        )

    def statistics(self, request: Request) -> None:
        model, version = model_and_version(request) if request.args else ("", "")
        message_class = getattr(pb.inference, "ModelStatisticsRequest", _Nothing)
        self._procedures.call("ModelStatistics", message_class(name=model, version=version), request, _dumped)

    def generate(self, request: Request) -> None:
        raise HttpError(
            404, "generate: is not offered; it is for models of text, use /infer with the model's own inputs instead"
        )


class _Nothing:
    """Stands for a message of a protocol that lacks it; the procedure is then missing too."""

    def __init__(self, **_: Any) -> None:
        pass


def _dumped(message: Any) -> bytes:
    return orjson.dumps(to_json(message))
