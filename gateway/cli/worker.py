"""`gateway worker`: one data-plane process, as the supervisor starts it, or alone, beside a store that it shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.failure import USAGE, fail, reported


def worker(
    models: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Model repository: DIR/<model>/<version>/model.onnx.", show_default=False),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the store, and of the last routes.", show_default=False),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="GATEWAY_STORE",
            show_envvar=False,
            help="Database of the store instead: postgresql://... (or in $GATEWAY_STORE).",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(metavar="N", show_default=False)] = None,
    grpc_port: Annotated[int | None, typer.Option(metavar="N", show_default=False)] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="As for `gateway serve`.", show_default=False)
    ] = None,
    log_format: Annotated[str | None, typer.Option(metavar="console|json", show_default=False)] = None,
    options: Annotated[
        str, typer.Option(metavar="JSON", help="All of it, as `gateway serve` writes it.", show_default=False)
    ] = "",
) -> None:
    """One data-plane process alone; `gateway serve` starts these by itself.

    Workers and control planes that are started alone meet in the store: give all of them the same --store or --state.
    """
    from pydantic import ValidationError

    from gateway.config.deployment import WorkerOptions, load_deployment

    if not options:
        flags = {
            "models": models,
            "state": state,
            "store": store,
            "host": host,
            "port": port,
            "grpc_port": grpc_port,
            "log_format": log_format,
        }
        with reported():
            deployment = load_deployment(config, flags)
            deployment.check()
            parsed = WorkerOptions(**deployment.model_dump(), worker=os.getpid())  # others may be alone on this host
    else:
        try:
            parsed = WorkerOptions.model_validate_json(options)
        except ValidationError as error:
            for fault in error.errors():
                where = ".".join(map(str, fault["loc"]))
                typer.echo(f"error: --options: {where}: {fault['msg']}", err=True)
            fail("this option is for `gateway serve`, which writes --options itself", USAGE)
    from gateway.serving.worker import run

    with reported():
        raise typer.Exit(run(parsed))
