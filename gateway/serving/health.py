"""grpc.health.v1 over the catalog: Check answers now, Watch on each change.

Names: "" and the inference service stand for the server, any other name for a model: SERVING when one of its versions
is READY.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from gateway import pb
from gateway.errors import Code, GatewayError, NotFound
from gateway.serving.catalog import Catalog
from gateway.serving.stream import Stream, parse
from gateway.serving.wording import listed, quoted

SERVER_NAMES = ("", "inference.GRPCInferenceService")

# HealthCheckResponse.ServingStatus, by the numbers of the specification
SERVING = 1
NOT_SERVING = 2
SERVICE_UNKNOWN = 3


class Health:
    """Handlers for the service grpc.health.v1.Health."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.unary = {"/grpc.health.v1.Health/Check": self.check}
        self.streaming = {"/grpc.health.v1.Health/Watch": partial(Watch, self)}

    def status(self, service: str) -> int:
        """A ServingStatus. While draining nothing is SERVING, so that balancers go elsewhere."""
        if service in SERVER_NAMES:
            return SERVING if self.catalog.ready else NOT_SERVING
        if not self.catalog.versions(service):
            return SERVICE_UNKNOWN
        return SERVING if self.catalog.has_ready(service) and not self.catalog.draining else NOT_SERVING

    def check(self, message: bytes) -> bytes:
        service = parse(pb.health.HealthCheckRequest, message).service
        status = self.status(service)
        if status == SERVICE_UNKNOWN:
            known = [*map(repr, SERVER_NAMES), *map(quoted, self.catalog.models())]
            raise NotFound(f"service {quoted(service)} not found; known here: {listed(known)}")
        return response(status)


class Watch:
    """One Watch call: the status at once, then each change, until the client leaves or the server drains.

    An unknown service is told SERVICE_UNKNOWN and stays open: it may be loaded later. A drain says NOT_SERVING and
    ends the call, which would otherwise hold the drain up for ever; the specification has clients retry on any end
    but UNIMPLEMENTED.
    """

    def __init__(self, health: Health, stream: Stream) -> None:
        self._health = health
        self._stream = stream
        self._service: str | None = None
        self._last: int | None = None
        self._unsubscribe: Any = None
        self._done = False

    def on_message(self, message: bytes) -> None:
        if self._done:
            return
        if self._service is not None:
            self._finish(Code.INVALID_ARGUMENT, "Health/Watch: got a second request message, expected one")
            return
        try:
            self._service = parse(pb.health.HealthCheckRequest, message).service
        except GatewayError as error:
            self._finish(error.code, str(error))
            return
        self._unsubscribe = self._health.catalog.subscribe(self._on_change)
        self._on_change()

    def on_half_close(self) -> None:
        if self._service is None and not self._done:
            self._finish(Code.INVALID_ARGUMENT, "Health/Watch: got no request message, expected one HealthCheckRequest")

    def on_cancel(self) -> None:
        self._release()

    def _on_change(self) -> None:
        assert self._service is not None
        status = self._health.status(self._service)
        if status != self._last:
            self._last = status
            self._stream.send(response(status))
        if self._health.catalog.draining:
            self._finish(Code.UNAVAILABLE, "the server is draining; watch again elsewhere, or later")

    def _finish(self, code: Code, text: str) -> None:
        self._release()
        self._stream.finish(code, text)

    def _release(self) -> None:
        self._done = True
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None


def response(status: int) -> bytes:
    serialized: bytes = pb.health.HealthCheckResponse(status=status).SerializeToString()
    return serialized
