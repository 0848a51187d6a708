"""The control plane's HTTP interface: models, routes, workers, audit log, metrics, and its own description."""

from __future__ import annotations

import asyncio
from importlib.metadata import version as package_version

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from gateway.control import problems
from gateway.control.api import audit, captures, drift, feedback, models, rollouts, routes, shadows, workers
from gateway.control.plane import Plane
from gateway.observability.aggregate import Aggregate
from gateway.observability.metrics import render

HELP = """\
gateway control plane
  /v1/status      whether all is well, and what is not
  /v1/models      models and their versions
  /v1/routes      who answers: read, replace, history, roll back
  /v1/rollouts    a new version in a model's place: start, look, steer, explain
  /v1/shadows     what shadows answered, beside what callers got
  /v1/workers     who serves
  /v1/drift       how far traffic is from the profiles; /v1/alarms: what was found
  /v1/feedback    how answers turned out: report it, and how versions do by it
  /v1/audit       who changed what
  /metrics        what all workers counted, for Prometheus
  /docs           this interface, to read and try
  /openapi.json   the same for programs
Models are served on the other ports.
"""


def create_app(plane: Plane) -> FastAPI:
    app = FastAPI(
        title="gateway control plane",
        version=package_version("gateway"),
        description="What operators and their tools ask. Models are served on the other ports.",
        redoc_url=None,
        strict_content_type=True,  # any web page may send this machine a body without one
    )
    app.state.plane = plane
    problems.install(app)

    @app.get("/", response_class=PlainTextResponse, summary="Where to look")
    async def root() -> str:
        return HELP

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        summary="Metrics of all workers, in Prometheus' text format or in OpenMetrics",
    )
    async def metrics(request: Request) -> Response:
        totals = await plane.totals()
        if totals is None:  # nobody's supervisor: there are no workers whose counters come here
            totals = Aggregate(0).totals()
        # In a thread: with a thousand versions it is a second's work.
        accept = request.headers.get("accept", "")
        body, content_type = await asyncio.to_thread(
            lambda: render(
                totals, accept, [*plane.drift_families(), *plane.feedback_families(), *plane.rollout_families()]
            )
        )
        return Response(body, media_type=content_type)

    for part in (models, routes, rollouts, shadows, workers, audit, drift, captures, feedback):
        app.include_router(part.router)
    return app
