"""`gateway predict`: a client for people. Asks what the model wants, checks the data against it, sends, prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.failure import Refused, reported
from gateway.cli.oipserver import OipServer, infer_request, opened, parts

if TYPE_CHECKING:
    from gateway.cli.answer import Answer
    from gateway.cli.tensors import Array

MIN_REQUESTS_FOR_PROGRESS = 4


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)],
    data: Annotated[
        str, typer.Option(metavar="FILE|-", help="JSON, CSV or npz; - is standard input.", show_default=False)
    ],
    url: Annotated[str, typer.Option(metavar="HOST:PORT", help="gRPC address of the server.")] = "127.0.0.1:8001",
    version: Annotated[
        str, typer.Option(metavar="N", help="Version of the model. [default: the server's choice]", show_default=False)
    ] = "",
    batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="ROWS", help="Rows per request. [default: up to 1024]", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, metavar="SECONDS", help="For each request.")] = 30.0,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="json|csv|npz", help="[default: by suffix, else by content]", show_default=False
        ),
    ] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Talk TLS, trusting this CA (PEM).", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Send data to a model and print its answer.

    \b
    gateway predict fraud --data rows.csv            columns by input name, or all in order
    gateway predict fraud --data golden.npz --json
    echo '[[5.1, 3.5, 1.4, 0.2]]' | gateway predict iris --data -

    \b
    JSON may be a list of rows, a list of records, columns {"input": [...]}, or an
    Open Inference Protocol body {"inputs": [{"name", "shape", "datatype", "data"}]}.
    """
    with reported(), _quiet_pipe():
        from gateway.cli import data as data_module

        values = data_module.read(data, format_)
        with opened(url, "--url", tls_ca, timeout, "--timeout") as server:
            answer = _Client(server, model, version).predict(values, batch)
        from gateway.cli.answer import print_json, print_table

        (print_json if as_json else print_table)(answer)
        sys.stdout.flush()


class _Client:
    """One model of one server."""

    def __init__(self, server: OipServer, model: str, version: str) -> None:
        from gateway import pb

        self._pb = pb.inference
        self._server = server
        self._name = model
        self._version = version

    def predict(self, values: Any, batch: int | None) -> Answer:
        from gateway.cli.answer import Answer
        from gateway.cli.tensors import Model, fit
        from gateway.errors import ConfigError

        metadata = self._server.call(
            "ModelMetadata", self._pb.ModelMetadataRequest(name=self._name, version=self._version)
        )
        model = Model.from_metadata(metadata)
        if batch and not model.has_rows:
            raise ConfigError(f"--batch: model {self._name!r} has no row dimension ({model}); leave the flag out")
        arrays = fit(values, model)
        answer = Answer(self._name, model.has_rows)
        for part in _progress(list(parts(arrays, model, batch))):
            response = self._server.call("ModelInfer", infer_request(self._name, self._version, part, model))
            answer.add(response.model_version, self._outputs(response))
        return answer

    def _outputs(self, response: Any) -> list[tuple[str, str, Array]]:
        from gateway.cli.tensors import decode

        if len(response.raw_output_contents) != len(response.outputs):
            raise Refused(
                f"{self._server}: answered {len(response.outputs)} outputs with "
                f"{len(response.raw_output_contents)} raw contents; expected one for each"
            )
        outputs = []
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            try:
                outputs.append((output.name, output.datatype, decode(raw, output.datatype, list(output.shape))))
            except (ValueError, KeyError) as error:
                raise Refused(
                    f"{self._server}: output {output.name!r}: {len(raw)} bytes are no "
                    f"{output.datatype} {list(output.shape)}: {error}"
                ) from None
        return outputs


def _progress(parts: list[dict[str, Array]]) -> Iterator[dict[str, Array]]:
    """A bar on standard error, when a person is there to see it and it is worth one."""
    if len(parts) < MIN_REQUESTS_FOR_PROGRESS or not sys.stderr.isatty():
        yield from parts
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(parts, "Requests", console=Console(stderr=True), transient=True)


@contextmanager
def _quiet_pipe() -> Iterator[None]:
    """`| head` closes the pipe when it has enough: no error, and nothing may be flushed into it at exit."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
