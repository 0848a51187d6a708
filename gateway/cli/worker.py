"""`gateway worker`: one data-plane process, as the supervisor starts it. Not for people, hence hidden."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.failure import USAGE, fail, reported


def worker(
    options: Annotated[str, typer.Option(metavar="JSON", help="WorkerOptions as the supervisor writes them.")],
) -> None:
    """One data-plane process; `gateway serve` starts these."""
    from pydantic import ValidationError

    from gateway.config.deployment import WorkerOptions

    try:
        parsed = WorkerOptions.model_validate_json(options)
    except ValidationError as error:
        for fault in error.errors():
            where = ".".join(map(str, fault["loc"]))
            typer.echo(f"error: --options: {where}: {fault['msg']}", err=True)
        fail("this command is for `gateway serve`, which writes --options itself", USAGE)
    from gateway.serving.worker import run

    with reported():
        raise typer.Exit(run(parsed))
