"""/v2 and /v2/health: who this is, and whether it lives and serves."""

from __future__ import annotations

import orjson

from gateway import pb
from gateway.serving.catalog import Catalog
from gateway.serving.rest.message import Request
from gateway.serving.rest.procedures import Procedures

EXTENSIONS = ("binary_tensor_data", "classification")
"""What REST offers besides what the gRPC service lists."""


class Server:
    """Health has Triton's status codes, 200 and 400, and OIP's bodies, which Triton leaves empty."""

    def __init__(self, catalog: Catalog, procedures: Procedures) -> None:
        self._catalog, self._procedures = catalog, procedures

    def metadata(self, request: Request) -> None:
        def convert(message: pb.inference.ServerMetadataResponse) -> bytes:
            extensions = [*message.extensions, *(name for name in EXTENSIONS if name not in message.extensions)]
            return orjson.dumps({"name": message.name, "version": message.version, "extensions": extensions})

        self._procedures.call("ServerMetadata", pb.inference.ServerMetadataRequest(), request, convert)

    def live(self, request: Request) -> None:
        request.respond_json({"live": True})

    def ready(self, request: Request) -> None:
        if self._catalog.ready:
            request.respond_json({"ready": True})
            return
        why = (
            "the server is draining"
            if self._catalog.draining
            else "the server is still loading models"
            if not self._catalog.started
            else "no model is ready"
        )
        request.respond_json({"ready": False, "error": why}, 400)
