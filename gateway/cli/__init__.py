"""The `gateway` command: one file per noun, each with light imports, so that --help answers at once.

Exit codes: 0 done, 1 refused (by the server, the machine or a worker), 2 usage (a flag, a file or the data is wrong).
"""

from __future__ import annotations

import typer

from gateway.cli import audit, drift, feedback, model, rollout, route, shadow
from gateway.cli.bench import bench
from gateway.cli.control import control
from gateway.cli.predict import predict
from gateway.cli.profile import app as profile_app
from gateway.cli.serve import serve
from gateway.cli.status import status
from gateway.cli.worker import worker

app = typer.Typer(
    name="gateway",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: errors stay on one line, and help costs no import of Rich
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(predict)
app.command()(bench)
app.command()(status)
app.add_typer(model.app)
app.add_typer(route.app)
app.add_typer(shadow.app)
app.add_typer(rollout.app)
app.add_typer(drift.app)
app.add_typer(feedback.app)
app.add_typer(audit.app)
app.command()(control)
app.command()(worker)
app.add_typer(profile_app, name="profile")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"gateway {version('gateway')}")
        except PackageNotFoundError:
            typer.echo("gateway (not installed: run from its source folder)")
        raise typer.Exit


@app.callback()
def main(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """Inference gateway: gRPC in, dynamic batches, ONNX Runtime, answers out.

    Start with `gateway serve --models DIR`, then `gateway predict MODEL --data FILE`.
    """
