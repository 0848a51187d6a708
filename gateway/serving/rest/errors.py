"""The one table from a reason to an HTTP status, and the errors that only HTTP has.

Triton's mapping where it has one (INTERNAL 500, NOT_FOUND 404, UNAVAILABLE 503, UNSUPPORTED 501, what the caller did
400). Triton never says that a queue is full or a deadline has passed other than by UNAVAILABLE; here each has the
status that retry policies and load balancers know.
"""

from __future__ import annotations

from gateway.errors import Code, GatewayError

STATUS_OF_CODE: dict[int, int] = {
    Code.OK: 200,
    Code.CANCELLED: 400,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 400,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""Every gRPC code; docs/rest.md shows the same table to callers."""


class HttpError(GatewayError):
    """HttpError(status, text): a refusal that belongs to HTTP itself. `headers` are whole lines with their CRLF."""

    def __init__(self, status: int, text: str, headers: bytes = b"") -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def status_of(error: GatewayError) -> int:
    return error.status if isinstance(error, HttpError) else STATUS_OF_CODE[error.code]
