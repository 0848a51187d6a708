"""`gateway control`: the control plane, as the supervisor starts it, or alone, beside a store that it shares."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.failure import REFUSED, USAGE, fail, reported


def control(
    models: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Model repository: DIR/<model>/<version>/model.onnx.", show_default=False),
    ] = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the store.", show_default=False)] = None,
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
    control_port: Annotated[
        int | None, typer.Option(metavar="N", help="0 for any free one. [default: 8002]", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="As for `gateway serve`.", show_default=False)
    ] = None,
    log_format: Annotated[str | None, typer.Option(metavar="console|json", show_default=False)] = None,
    options: Annotated[
        str, typer.Option(metavar="JSON", help="All of it, as `gateway serve` writes it.", show_default=False)
    ] = "",
) -> None:
    """The control plane alone; `gateway serve` starts one by itself.

    It steers every worker that shares its store: give all of them the same --store or --state.
    """
    from pydantic import ValidationError

    from gateway.config.deployment import FLAGS, ControlOptions, load_deployment
    from gateway.errors import ConfigError

    if options:
        try:
            parsed = ControlOptions.model_validate_json(options)
        except ValidationError as error:
            for fault in error.errors():
                where = ".".join(map(str, fault["loc"]))
                typer.echo(f"error: --options: {where}: {fault['msg']}", err=True)
            fail("this option is for `gateway serve`, which writes --options itself", USAGE)
        assert parsed.listen_fd is not None
        sock = socket.socket(fileno=parsed.listen_fd)
    else:
        from gateway.serving.ports import reserve

        flags = {
            "models": models,
            "state": state,
            "store": store,
            "host": host,
            "control_port": control_port,
            "log_format": log_format,
        }
        with reported():
            deployment = load_deployment(config, flags)
            deployment.check()
            if deployment.store_url() is None:
                raise ConfigError(
                    f"{FLAGS['state']}: missing, and {FLAGS['store']} too; name the store that the workers share"
                )
        with reported(config_error_code=REFUSED):
            sock = reserve(deployment.host, deployment.control_port, FLAGS["control_port"])
        parsed = ControlOptions(**deployment.model_dump())
    from gateway.control.process import run

    with reported(config_error_code=REFUSED):
        run(parsed, sock)
