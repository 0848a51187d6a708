"""The gRPC service's own slow-path handlers, called by REST: one behaviour, two spellings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway import pb
from gateway.errors import Code, Unimplemented
from gateway.serving.rest.errors import STATUS_OF_CODE
from gateway.serving.rest.message import Request
from gateway.serving.stream import Stream, StreamHandler

_PREFIX = "/inference.GRPCInferenceService/"

Convert = Callable[[Any], bytes]
"""A response message into the body of the answer."""
Report = Callable[[BaseException], None]


class Procedures:
    """Over the mappings that Services has. Serialized messages, so that nothing but the wire contract is shared."""

    def __init__(
        self,
        unary: Mapping[str, Callable[[bytes], bytes]],
        streaming: Mapping[str, Callable[[Stream], StreamHandler]],
        report: Report,
    ) -> None:
        self._unary, self._streaming, self._report = unary, streaming, report

    def call(self, name: str, message: Any, request: Request, convert: Convert) -> None:
        """Answer `request` by the procedure `name`, at once or when it is through. Unimplemented: this server has none
        of that name.
        """
        path = _PREFIX + name
        response = getattr(pb.inference, f"{name}Response", None)
        if response is not None and path in self._unary:
            request.respond(convert(response.FromString(self._unary[path](message.SerializeToString()))))
        elif response is not None and path in self._streaming:
            exchange = _Exchange(path, request, response, convert, self._report)
            handler = self._streaming[path](exchange)
            request.cancel = handler.on_cancel
            handler.on_message(message.SerializeToString())
            handler.on_half_close()
        else:
            raise Unimplemented(f"{name} is not offered by this server")


class _Exchange:
    """A Stream that takes the one answer of a unary call."""

    def __init__(self, path: str, request: Request, response: Any, convert: Convert, report: Report) -> None:
        self.path = path
        self._request, self._response, self._convert, self._report = request, response, convert, report
        self._message: bytes | None = None

    def send(self, message: bytes) -> None:
        self._message = message

    def finish(self, code: int = 0, message: str = "") -> None:
        request = self._request
        if code == Code.OK and self._message is not None:
            try:
                request.respond(self._convert(self._response.FromString(self._message)))
            except Exception as error:
                self._report(error)
                request.fail(500, "the gateway failed on this request")
        else:
            request.fail(STATUS_OF_CODE.get(code or Code.INTERNAL, 500), message)
