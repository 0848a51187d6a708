"""`gateway bench`: how many requests a server answers, how quickly, and whether rightly."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.failure import REFUSED, Refused, fail, reported

if TYPE_CHECKING:
    from gateway.cli.oipserver import OipServer
    from gateway.cli.tensors import Array, Model

MAX_REQUESTS = 256
"""Different requests sent in turn: enough that nothing caches, few enough to check every answer."""
ASK_S = 30.0


def bench(
    url: Annotated[str, typer.Argument(metavar="HOST:PORT", help="gRPC address of the server.")] = "127.0.0.1:8001",
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME", help="[default: the only model there]", show_default=False)
    ] = "",
    version: Annotated[
        str, typer.Option(metavar="N", help="Pin a version. [default: as the server routes]", show_default=False)
    ] = "",
    data: Annotated[
        str,
        typer.Option(metavar="FILE|-", help="Rows to send: JSON, CSV or npz. [default: made up]", show_default=False),
    ] = "",
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="Rows in a request.")] = 1,
    connections: Annotated[int, typer.Option("--connections", "-c", min=1, max=10000, metavar="N")] = 8,
    streams: Annotated[
        int, typer.Option("--streams", "-s", min=1, max=10000, metavar="N", help="Requests at once on a connection.")
    ] = 16,
    rate: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="N", help="Requests a second, open loop. [default: closed]", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, metavar="S", help="How long to measure.")] = 10.0,
    warmup: Annotated[float, typer.Option(min=0.0, metavar="S", help="How long before that.")] = 2.0,
    check: Annotated[bool, typer.Option(help="Compare the answers with single requests'.")] = True,
    ceiling: Annotated[bool, typer.Option(help="Measure what this generator could reach at all.")] = True,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the result, for --compare.", show_default=False)
    ] = None,
    compare: Annotated[Path | None, typer.Option(metavar="FILE", help="An earlier result.", show_default=False)] = None,
    fail_below: Annotated[
        float, typer.Option(min=0.0, metavar="R", help="With --compare: exit 1 below this share of it.")
    ] = 0.9,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Load a server over gRPC, and say what it did.

    \b
    gateway bench --model fraud                          closed loop: as much as it takes
    gateway bench --model fraud --rate 20000             open loop: latency at a fixed rate
    gateway bench --model fraud --save base.json
    gateway bench --model fraud --compare base.json --fail-below 0.9     for CI

    \b
    Exit code 1: an answer was wrong, failed or was lost, or the result is below --fail-below.
    """
    with reported():
        from gateway.errors import ConfigError
        from gateway.loadtest import report

        before = report.read(compare) if compare else None
        if save and not save.absolute().parent.is_dir():  # said before the load, not after it
            raise ConfigError(f"--save {save}: there is no folder {save.absolute().parent}")
        result = _measured(url, model, version, data, rows, connections, streams, rate, seconds, warmup, check, ceiling)
        if save:
            try:
                save.write_text(json.dumps(result, indent=2) + "\n")
            except OSError as error:
                raise Refused(f"--save {save}: {str(error.strerror).lower()}") from None
        ratio, sentence = report.compared(result, before) if before else (None, "")
        if as_json:
            typer.echo(json.dumps({**result, **({"compared": round(ratio, 4)} if ratio is not None else {})}))
        else:
            for line in report.lines(result):
                typer.echo(line)
            if sentence:
                typer.echo(f"  compared  {sentence}")
        if ratio is not None and ratio < fail_below:
            fail(f"{ratio:.2f} of the baseline {compare}, expected at least {fail_below:g} (--fail-below)", REFUSED)
        if result["failed"] or report.lost(result) or (result["answers"] and result["answers"]["wrong"]):
            raise typer.Exit(REFUSED)


def _measured(
    url: str,
    name: str,
    version: str,
    data: str,
    rows: int,
    connections: int,
    streams: int,
    rate: float | None,
    seconds: float,
    warmup_s: float,
    check: bool,
    ceiling: bool,
) -> dict[str, Any]:
    from gateway import pb
    from gateway.cli.oipserver import opened
    from gateway.loadtest import ceiling as own_ceiling
    from gateway.loadtest import check as checking
    from gateway.loadtest import measure, report

    shape = measure.Shape(connections, streams, seconds, warmup_s, rate)
    with opened(url, "HOST:PORT", None, ASK_S) as server:
        name = name or _only_model(server)
        requests = list(_requests(server, name, version, data, rows))
        # One by one first: what the model refuses is said before any load, by its own words.
        answer_bytes = 5 + len(server.call("ModelInfer", requests[0]).SerializeToString())
        messages = [request.SerializeToString() for request in requests]
        host, _, port = url.rpartition(":")
        with _progress(warmup_s + seconds) as tell:
            measured = measure.run(
                host.strip("[]"), int(port), messages, shape, lambda at, n: tell(at + warmup_s, n), keep_answers=check
            )
        verdict = None
        if check:

            def ask(which: int, answered_by: str) -> Any:
                request = pb.inference.ModelInferRequest()
                request.CopyFrom(requests[which])
                request.model_version = answered_by or request.model_version
                try:
                    return server.call("ModelInfer", request)
                except Refused:  # unloaded meanwhile, or naming a version is forbidden
                    return None

            verdict = checking.answers(measured.answers, measured.unkept, _parsed, ask)
        best = own_ceiling.find(messages, answer_bytes, shape, min(seconds, 3.0)) if ceiling else None
    return report.as_json(url, name, shape, measured, verdict, best)


def _only_model(server: OipServer) -> str:
    from gateway import pb

    index = server.call("RepositoryIndex", pb.inference.RepositoryIndexRequest())
    names = sorted({model.name for model in index.models})
    if len(names) != 1:
        raise Refused(f"--model: not given, and the {server} has {', '.join(names) or 'none'}; name one")
    return str(names[0])


def _parsed(data: bytes) -> Any:
    """ValueError: no ModelInferResponse."""
    from google.protobuf.message import DecodeError

    from gateway import pb

    try:
        return pb.inference.ModelInferResponse.FromString(data)
    except DecodeError:
        raise ValueError("no ModelInferResponse") from None


def _requests(server: OipServer, name: str, version: str, data: str, rows: int) -> Iterator[Any]:
    """ModelInferRequests of `rows` rows each: of the data, or made up by the signature."""
    from gateway import pb
    from gateway.cli.oipserver import infer_request, parts
    from gateway.cli.tensors import Model

    metadata = server.call("ModelMetadata", pb.inference.ModelMetadataRequest(name=name, version=version))
    model = Model.from_metadata(metadata)
    for part in itertools.islice(parts(_arrays(metadata, model, data, rows), model, rows), MAX_REQUESTS):
        yield infer_request(name, version, part, model)


def _arrays(metadata: Any, model: Model, data: str, rows: int) -> dict[str, Array]:
    if data:
        from gateway.cli import data as data_module
        from gateway.cli.tensors import fit

        return fit(data_module.read(data, None), model)
    from gateway.backends.base import TensorSpec
    from gateway.backends.samples import Samples

    specs = tuple(TensorSpec(each.name, each.datatype, tuple(each.shape)) for each in metadata.inputs)
    made = Samples(specs, "random", 8).make(rows * 32 if model.has_rows else None)
    return {spec.name: _on_the_wire(array, spec.datatype) for spec, array in zip(specs, made, strict=True)}


def _on_the_wire(array: Array, datatype: str) -> Array:
    """Samples as the command line holds values: text as bytes, BF16 widened."""
    import numpy as np

    if datatype == "BYTES":
        encoded = np.empty(array.size, object)
        encoded[:] = [text.encode() for text in array.flat]
        return encoded.reshape(array.shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if datatype == "BF16" else array


@contextmanager
def _progress(total_s: float) -> Iterator[Callable[[float, int], None]]:
    """A bar on standard error, when a person is there to see it."""
    if not sys.stderr.isatty():
        yield lambda at_s, done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Load", total=total_s)
        yield lambda at_s, done: bar.update(task, completed=at_s, description=f"{done:,} answered")
