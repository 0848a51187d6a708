"""How the control plane says no: {"error": text, "faults": [{"field", "message"}]}, with a status that fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.config.files import faults_in, field_name
from gateway.errors import Code, GatewayError
from gateway.observability import logs

Fault = tuple[str, str]
"""Field and message."""

_STATUS = {
    Code.INVALID_ARGUMENT: 422,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.FAILED_PRECONDITION: 409,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


class Problem(Exception):
    """A refusal with more to say than an error of the gateway has: `more` goes into the body beside the text."""

    def __init__(self, status: int, text: str, faults: Iterable[Fault] = (), **more: Any) -> None:
        super().__init__(text)
        self.status, self.faults, self.more = status, list(faults), more


def body(text: str, faults: Iterable[Fault] = (), **more: Any) -> dict[str, Any]:
    return {"error": text, "faults": [{"field": field, "message": message} for field, message in faults], **more}


def request_faults(errors: Sequence[Any], sent: Any) -> list[Fault]:
    """What is wrong with a request, in the words of the configuration's errors: `reports[0].row: got -1, expected 0 or
    more`.
    """
    faults: list[Fault] = []
    for fault in errors:
        if fault["type"] == "json_invalid":
            return [("body", f"is no JSON: {fault.get('ctx', {}).get('error', fault['msg'])}")]
        place, *inner = fault["loc"]
        if place == "body":
            found = faults_in([{**fault, "loc": tuple(inner)}], sent)
        else:  # of the path or the query, by its whole name
            found = [(field_name(fault["loc"]), text) for _, text in faults_in([{**fault, "loc": ()}], None)]
        faults += [(field or "body", message.replace("`field: value` lines", "an object")) for field, message in found]
    return list(dict.fromkeys(faults))


def install(app: FastAPI) -> None:
    """Have `app` answer every failure that way."""

    @app.exception_handler(Problem)
    async def on_problem(_: Request, error: Problem) -> JSONResponse:
        return JSONResponse(body(str(error), error.faults, **error.more), error.status)

    @app.exception_handler(GatewayError)
    async def on_error(_: Request, error: GatewayError) -> JSONResponse:
        return JSONResponse(body(str(error)), _STATUS.get(error.code, 500))

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = request_faults(error.errors(), error.body)
        if isinstance(error.body, bytes):  # not read as JSON, whatever it is: a form of any web page could be sent here
            sent = request.headers.get("content-type") or "none"
            faults = [("Content-Type", f"got {sent}, expected application/json")]
        return JSONResponse(body("; ".join(f"{field}: {message}" for field, message in faults), faults), 422)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        text = str(error.detail)
        if error.status_code == 404:
            text = f"{request.url.path}: there is no such path; /docs shows those that are"
        elif error.status_code == 405:
            text = f"{request.url.path}: {request.method} is not possible; /docs shows what is"
        return JSONResponse(body(text), error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        logs.get().error("control request failed", path=request.url.path, exc_info=error)
        return JSONResponse(body("the control plane failed on this request; its log says more"), 500)
