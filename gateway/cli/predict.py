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

if TYPE_CHECKING:
    from gateway.cli.answer import Answer
    from gateway.cli.tensors import Array, Model

MAX_AUTO_ROWS = 1024
AUTO_REQUEST_BYTES = 4 * 2**20
"""Without --batch a request holds as many rows as fit into this: gRPC servers accept 4 MiB unless told otherwise."""
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
        with _channel(url, tls_ca, timeout) as channel:
            answer = _Client(channel, url, model, version, timeout).predict(values, batch)
        from gateway.cli.answer import print_json, print_table

        (print_json if as_json else print_table)(answer)
        sys.stdout.flush()


class _Client:
    """One model behind one channel."""

    def __init__(self, channel: Any, url: str, model: str, version: str, timeout_s: float) -> None:
        from gateway import pb

        self._pb = pb.inference
        self._channel = channel
        self._url = url
        self._name = model
        self._version = version
        self._timeout_s = timeout_s

    def predict(self, values: Any, batch: int | None) -> Answer:
        from gateway.cli.answer import Answer
        from gateway.cli.tensors import Model, fit
        from gateway.errors import ConfigError

        metadata = self._call("ModelMetadata", self._pb.ModelMetadataRequest(name=self._name, version=self._version))
        model = Model.from_metadata(metadata)
        if batch and not model.has_rows:
            raise ConfigError(f"--batch: model {self._name!r} has no row dimension ({model}); leave the flag out")
        arrays = fit(values, model)
        answer = Answer(self._name, model.has_rows)
        for part in _progress(list(_parts(arrays, model, batch))):
            response = self._call("ModelInfer", self._request(part, model))
            answer.add(response.model_version, self._outputs(response))
        return answer

    def _request(self, arrays: dict[str, Array], model: Model) -> Any:
        from gateway.cli.tensors import encode

        request = self._pb.ModelInferRequest(model_name=self._name, model_version=self._version)
        for each in model.inputs:
            array = arrays[each.name]
            request.inputs.add(name=each.name, datatype=each.datatype, shape=array.shape)
            request.raw_input_contents.append(encode(array, each.datatype))
        return request

    def _outputs(self, response: Any) -> list[tuple[str, str, Array]]:
        from gateway.cli.tensors import decode

        if len(response.raw_output_contents) != len(response.outputs):
            raise Refused(
                f"server at {self._url} (--url): answered {len(response.outputs)} outputs with "
                f"{len(response.raw_output_contents)} raw contents; expected one for each"
            )
        outputs = []
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            try:
                outputs.append((output.name, output.datatype, decode(raw, output.datatype, list(output.shape))))
            except (ValueError, KeyError) as error:
                raise Refused(
                    f"server at {self._url} (--url): output {output.name!r}: {len(raw)} bytes are no "
                    f"{output.datatype} {list(output.shape)}: {error}"
                ) from None
        return outputs

    def _call(self, method: str, request: Any) -> Any:
        import grpc

        call = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(self._pb, f"{method}Response").FromString,
        )
        try:
            return call(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or "(no text)"
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                details += f" (--timeout {self._timeout_s:g})"
            raise Refused(f"server at {self._url} (--url) answered {method} with {code.name}: {details}") from None


def _parts(arrays: dict[str, Array], model: Model, batch: int | None) -> Iterator[dict[str, Array]]:
    """The rows in pieces of one request each; a model without rows is one piece."""
    n_rows = min((len(array) for array in arrays.values()), default=0) if model.has_rows else 0
    if not n_rows:
        yield arrays
        return
    if batch is None:
        row_bytes = sum(array.nbytes for array in arrays.values()) // n_rows
        batch = max(1, min(MAX_AUTO_ROWS, AUTO_REQUEST_BYTES // max(row_bytes, 1)))
    for start in range(0, n_rows, batch):
        yield {name: array[start : start + batch] for name, array in arrays.items()}


def _progress(parts: list[dict[str, Array]]) -> Iterator[dict[str, Array]]:
    """A bar on standard error, when a person is there to see it and it is worth one."""
    if len(parts) < MIN_REQUESTS_FOR_PROGRESS or not sys.stderr.isatty():
        yield from parts
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(parts, "Requests", console=Console(stderr=True), transient=True)


@contextmanager
def _channel(url: str, tls_ca: Path | None, timeout_s: float) -> Iterator[Any]:
    """An open channel. Refused when nobody answers: found out by a plain connect, which fails at once and says why."""
    import socket

    from gateway.errors import ConfigError

    host, colon, port = url.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536) or "/" in url:
        raise ConfigError(f"--url: got {url!r}, expected HOST:PORT such as 127.0.0.1:8001")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
    except socket.gaierror as error:
        raise Refused(f"{url} (--url): host {host!r}: {error.strerror}") from None
    except TimeoutError:
        raise Refused(f"no answer from {url} (--url) within {timeout_s:g} s (--timeout)") from None
    except OSError:
        raise Refused(f"nothing answers at {url} (--url): start one with make serve") from None
    import grpc

    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", 0),  # --url says where to go; a proxy of the environment is for the web
    ]
    if tls_ca is None:
        channel = grpc.insecure_channel(url, options)
    else:
        try:
            authority = tls_ca.read_bytes()
        except OSError as error:
            raise ConfigError(f"--tls-ca {tls_ca}: {str(error.strerror).lower()}") from None
        channel = grpc.secure_channel(url, grpc.ssl_channel_credentials(authority), options)
    try:
        yield channel
    finally:
        channel.close()


@contextmanager
def _quiet_pipe() -> Iterator[None]:
    """`| head` closes the pipe when it has enough: no error, and nothing may be flushed into it at exit."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
