"""`gateway serve`: flags and file into a deployment, then the supervisor until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.failure import REFUSED, reported


def serve(
    models: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Model repository: DIR/<model>/<version>/model.onnx.", show_default=False),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for what must outlive the server: routes, audit log.", show_default=False
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="GATEWAY_STORE",
            show_envvar=False,
            help="Database for that instead of the file in --state: postgresql://... (or in $GATEWAY_STORE).",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all. [default: 127.0.0.1]", show_default=False
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", help="First port; 0 for any free one. [default: 8000]", show_default=False),
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(metavar="N", help="Port where gRPC clients look. [default: 8001]", show_default=False)
    ] = None,
    control_port: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Port of /metrics and the control plane; 0 for any free one. [default: 8002]",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Processes that share the ports; each loads all models. [default: 1]", show_default=False
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML with the same settings, and `limits`; flags win.", show_default=False),
    ] = None,
    drain: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Time for requests in flight after SIGTERM: 30, 45s, 2min. [default: 30s]",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate chain (PEM); turns TLS on.", show_default=False)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificate's private key (PEM).", show_default=False)
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="console|json", help="Log lines on stderr. [default: console]", show_default=False),
    ] = None,
    model_control: Annotated[
        bool,
        typer.Option("--model-control", help="Let callers load and unload models while it runs.", show_default=False),
    ] = False,
    access_log: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Log every Nth request, or that fraction of them: 100, 0.01, 1 for all. [default: 0, none]",
            show_default=False,
        ),
    ] = None,
    forward_headers: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Headers whose names match become request parameters: x-.*|tenant", show_default=False
        ),
    ] = None,
) -> None:
    """Serve every model of a folder over gRPC.

    It speaks the Open Inference Protocol, as Triton does, on both ports.

    \b
    Put models where Triton would:
        shop/fraud/1/model.onnx
        shop/fraud/2/model.onnx
    then
        gateway serve --models shop
        gateway predict fraud --data rows.csv

    Requests are batched as they come. SIGTERM or Ctrl-C finishes what is in flight and ends with 0; a second one ends
    now.
    """
    from gateway.config.deployment import load_deployment
    from gateway.errors import GatewayError
    from gateway.observability import logs
    from gateway.serving import supervisor
    from gateway.serving.controlprocess import control_command

    flags = {
        "models": models,
        "state": state,
        "store": store,
        "host": host,
        "port": port,
        "grpc_port": grpc_port,
        "control_port": control_port,
        "workers": workers,
        "drain_s": drain,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "log_format": log_format,
        "model_control": model_control or None,  # a flag that was not given must not win over the file
        "access_log": access_log,
        "forward_headers": forward_headers,
    }
    with reported():
        deployment = load_deployment(config, flags)
        deployment.check()
    logs.setup(deployment.log_format)
    with reported(config_error_code=REFUSED):  # by now it is the machine that says no: a port is taken
        try:
            code = supervisor.run(deployment, control=control_command)
        except GatewayError as error:
            if deployment.log_format == "console":
                raise
            logs.get().critical("cannot serve", error=str(error))
            code = REFUSED
    raise typer.Exit(code)
