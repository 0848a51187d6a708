"""All paths of the REST surface, over the parts of one worker."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gateway.config.limits import Limits
from gateway.serving.catalog import Catalog
from gateway.serving.rest import openapi
from gateway.serving.rest.classification import Labels
from gateway.serving.rest.infer import Infer
from gateway.serving.rest.message import Request
from gateway.serving.rest.models import Models
from gateway.serving.rest.procedures import Procedures
from gateway.serving.rest.repository import Repository
from gateway.serving.rest.router import DOCUMENT_PATH, Handler, Route, Router
from gateway.serving.rest.server import Server


def build(
    hub: Any,
    catalog: Catalog,
    services: Any,
    labels: Labels,
    limits: Limits,
    version: str,
    report: Callable[[BaseException], None],
    forward_pattern: re.Pattern[str] | None = None,
    feedback: Handler | None = None,
) -> Router:
    """`services` has the gRPC service's handlers in `unary` and `streaming`; `version` is the gateway's; `feedback`
    takes reports.
    """
    procedures = Procedures(services.unary, services.streaming, report)
    server, models, repository = Server(catalog, procedures), Models(catalog, procedures), Repository(procedures)
    infer = Infer(hub.submit, catalog, labels, limits.max_message_bytes, limits.max_json_bytes, report, forward_pattern)
    document = openapi.document(version)

    def describe(request: Request) -> None:
        request.respond(document)

    routes = [
        Route("/v2", GET=server.metadata),
        Route(DOCUMENT_PATH, GET=describe),
        Route("/v2/health/live", GET=server.live),
        Route("/v2/health/ready", GET=server.ready),
        Route("/v2/models/stats", GET=models.statistics),
        *_of_model("", GET=models.metadata),
        *_of_model("/ready", GET=models.ready),
        *_of_model("/config", GET=models.config),
        *_of_model("/stats", GET=models.statistics),
        *_of_model("/infer", POST=infer),
        *_of_model("/generate", GET=models.generate, POST=models.generate),
        *_of_model("/generate_stream", GET=models.generate, POST=models.generate),
        Route("/v2/repository/index", POST=repository.index),
        Route("/v2/repository/models/{model}/load", POST=repository.load),
        Route("/v2/repository/models/{model}/unload", POST=repository.unload),
        Route("/v2/repository/{repository}/index", POST=repository.index),
        Route("/v2/repository/{repository}/models/{model}/load", POST=repository.load),
        Route("/v2/repository/{repository}/models/{model}/unload", POST=repository.unload),
    ]
    if feedback:
        routes.append(Route("/v1/feedback", POST=feedback))
    return Router(routes)


def _of_model(end: str, **handlers: Handler) -> list[Route]:
    return [Route(f"/v2/models/{{model}}{version}{end}", **handlers) for version in ("", "/versions/{version}")]
