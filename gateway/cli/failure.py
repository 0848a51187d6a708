"""How a command fails: one line per fault on standard error, and an exit code that says whose fault it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from gateway.errors import ConfigError, GatewayError

REFUSED = 1
USAGE = 2


class Refused(GatewayError):
    """Somebody else said no: the server, or nobody at the address."""


@contextmanager
def reported(config_error_code: int = USAGE) -> Iterator[None]:
    """Turn errors of the gateway into text and exit code; anything else is a bug and keeps its traceback."""
    try:
        yield
    except ConfigError as error:
        fail(str(error), config_error_code)
    except GatewayError as error:
        fail(str(error), REFUSED)


def fail(text: str, code: int) -> NoReturn:
    for line in text.splitlines():
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(code)
