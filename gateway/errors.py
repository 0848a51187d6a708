"""Every way the gateway refuses or fails, as one tree.

A raise site names the reason; the edge alone turns it into a gRPC code (here) or an HTTP status (REST).
The text of an error is for the caller: it names the field, what came and what was expected. Internal detail belongs in
`__cause__` and the log.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """gRPC status codes, by the numbers the wire carries."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class GatewayError(Exception):
    """Base of all; `code` is what a gRPC caller sees."""

    code = Code.UNKNOWN


class InvalidArgument(GatewayError):
    """The caller's fault: no retry will help."""

    code = Code.INVALID_ARGUMENT


class NotFound(GatewayError):
    """No such model, version, service or method."""

    code = Code.NOT_FOUND


class Unimplemented(GatewayError):
    """Understood, and not offered."""

    code = Code.UNIMPLEMENTED


class Unavailable(GatewayError):
    """Nothing can serve this now; a retry elsewhere or later may succeed."""

    code = Code.UNAVAILABLE


class BackendFailure(GatewayError):
    """The model failed on a well-formed request. The client's text is fixed; the cause goes to the log."""

    code = Code.INTERNAL


class LoadError(GatewayError):
    """A version cannot be loaded; the text is the reason shown in RepositoryIndex."""

    code = Code.FAILED_PRECONDITION


class ServersDown(LoadError):
    """No server that runs it could be asked: not for ever, so the load is tried again."""


class ConfigError(GatewayError):
    """A file or flag of the operator is wrong; the text names it and the cure."""

    code = Code.INVALID_ARGUMENT
