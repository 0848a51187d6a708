"""The control plane's HTTP interface: metrics, and its own description."""

from __future__ import annotations

import asyncio
from importlib.metadata import version as package_version

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from gateway.observability.aggregate import Aggregate
from gateway.observability.metrics import render

HELP = """\
gateway control plane
  /metrics        what all workers counted, for Prometheus
  /docs           this interface, to read and try
  /openapi.json   the same for programs
Models are served on the other ports.
"""


def create_app(aggregate: Aggregate) -> FastAPI:
    """`aggregate` is read on the loop that serves the app."""
    app = FastAPI(
        title="gateway control plane",
        version=package_version("gateway"),
        description="What operators and their tools ask. Models are served on the other ports.",
        redoc_url=None,
    )

    @app.get("/", response_class=PlainTextResponse, summary="Where to look")
    async def root() -> str:
        return HELP

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        summary="Metrics of all workers, in Prometheus' text format or in OpenMetrics",
    )
    async def metrics(request: Request) -> Response:
        totals = aggregate.totals()
        # In a thread: with a thousand versions it is a second's work, and this loop looks after the workers too.
        body, content_type = await asyncio.to_thread(render, totals, request.headers.get("accept", ""))
        return Response(body, media_type=content_type)

    return app
