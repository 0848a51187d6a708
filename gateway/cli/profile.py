"""`gateway profile`: the baseline that drift is measured against, built from data and shown to people."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.failure import reported

if TYPE_CHECKING:
    from gateway.monitoring.profile import Profile
    from gateway.monitoring.profilebuild import Subject

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Baselines for drift: build one, look at one.")

Models = Annotated[Path, typer.Option(metavar="DIR", help="Model repository: DIR/<model>/<version>/model.onnx.")]
Version = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Version. [default: the highest]", show_default=False)
]


@app.command()
def build(
    model: Annotated[str, typer.Option(metavar="NAME", help="The model.", show_default=False)],
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="CSV, Parquet, JSON lines or npz.", show_default=False)
    ] = None,
    from_live: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Instead of DATA: the next N rows the running gateway answers.", show_default=False
        ),
    ] = None,
    version: Version = None,
    models: Models = Path("models"),
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE|-", help="Where to write. [default: profile.json beside the model]", show_default=False
        ),
    ] = "",
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="csv|parquet|jsonl|npz",
            help="[default: by suffix, else by content]",
            show_default=False,
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column to leave out, such as a label; repeatable.", show_default=False),
    ] = None,
    run_model: Annotated[
        bool, typer.Option("--run-model/--no-run-model", help="Ask the model for outputs that DATA lacks.")
    ] = True,
    server: Annotated[
        str, typer.Option(metavar="URL", envvar="GATEWAY_SERVER", help="The control plane, for --from-live.")
    ] = "http://127.0.0.1:8002",
    wait: Annotated[str, typer.Option(metavar="TIME", help="For --from-live: 30s, 5min; at most 10min.")] = "5min",
) -> None:
    """Read DATA twice, in pieces, and write the profile of a version.

    \b
    gateway profile build --model fraud train.parquet --ignore is_fraud
    gateway profile build --model fraud --version 3 rows.csv --out /tmp/profile.json
    gateway profile build --model fraud --from-live 10000

    \b
    Columns are named as the inputs; or input[0], input[1], ... or as in model.yaml
    (monitoring.tensors.input.names); or they are all the input's values, in order.
    A column named as an output holds the model's answers; else the model is asked.
    """
    import time

    with reported():
        _need_packages()
        from gateway.errors import ConfigError
        from gateway.monitoring.profile import FILE_NAME, now_utc
        from gateway.monitoring.profilebuild import build as build_profile
        from gateway.monitoring.readers import open_reader
        from gateway.monitoring.subject import opened

        if (data is None) == (from_live is None):
            raise ConfigError("got neither or both of DATA and --from-live, expected one of them")
        start = time.monotonic()
        with opened(models, model, version) as it, contextlib.ExitStack() as stack:
            if data is None:
                path = stack.enter_context(_captured(it.subject, from_live or 0, server, wait))
                reader = open_reader(path, "npz")
            else:
                reader = open_reader(data, format_)
            built = build_profile(
                reader,
                it.subject,
                it.monitoring,
                it.run if run_model else None,
                now_utc(),
                source="data" if data else "live",
                ignored=ignore or (),
                progress=stack.enter_context(_progress(data.name if data else "live rows")),
            )
            path = Path(out) if out else it.folder / FILE_NAME
        for note in built.notes:
            typer.echo(f"note: {note}", err=True)
        content = built.profile.to_json()
        if out == "-":
            sys.stdout.buffer.write(content)
            return
        _write(path, content)
        profile = built.profile
        typer.echo(
            f"{path}: {len(profile.columns)} columns and {len(profile.outputs)} outputs of {profile.rows} rows, "
            f"{time.monotonic() - start:.1f} s"
        )


@app.command()
def show(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="A profile, or a version's folder; instead of --model.", show_default=False
        ),
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="The model.", show_default=False)] = "",
    version: Version = None,
    models: Models = Path("models"),
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Draw this column large; repeatable.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture: .png or .svg.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
) -> None:
    """Draw the distributions of a profile.

    \b
    gateway profile show --model fraud
    gateway profile show --model fraud --version 3 --column age --plot fraud.png
    """
    with reported():
        profile = _load(path, model, version, models)
        if plot is not None:
            from gateway.cli.profileplot import plot_profile

            plot_profile(profile, plot, column or [])
            typer.echo(f"wrote {plot}", err=True)
        if as_json:
            sys.stdout.buffer.write(profile.to_json())
            return
        if plot is None or sys.stdout.isatty() or column:
            from gateway.cli.profileview import print_columns, print_profile

            if column:
                print_columns(profile, column)
            else:
                print_profile(profile)


def _load(path: Path | None, model: str, version: int | None, models: Path) -> Profile:
    from gateway.errors import ConfigError
    from gateway.monitoring.profile import load_profile

    if (path is None) == (not model):
        raise ConfigError("got neither or both of FILE and --model, expected one: gateway profile show --model NAME")
    if path is None:
        from gateway.registry import repository

        found = repository.find(models, model)
        folders = {each.number: each.path for each in found.versions}
        number = max(folders, default=0) if version is None else version
        if number not in folders:
            raise ConfigError(f"--version: {model} has no version {number}; there is {', '.join(map(str, folders))}")
        path = folders[number]
    return load_profile(path)


@contextmanager
def _captured(subject: Subject, rows: int, server: str, wait: str) -> Iterator[Path]:
    from gateway.cli.profilelive import MAX_WAIT_US, live_rows
    from gateway.config.units import parse_duration_us
    from gateway.errors import ConfigError

    try:
        wait_us = parse_duration_us(wait)
    except ValueError as error:
        raise ConfigError(f"--wait: got {wait!r}, expected {error}") from None
    if wait_us > MAX_WAIT_US:
        raise ConfigError(f"--wait: got {wait!r}, expected 10min at most: then the gateway forgets what it was asked")
    with contextlib.ExitStack() as stack:
        with _progress(f"{subject.model} version {subject.version} at work") as progress:
            rows_of = live_rows(server, subject.model, subject.version, rows, wait_us / 1e6, progress)
            path = stack.enter_context(rows_of)
        yield path


def _need_packages() -> None:
    import importlib.util

    from gateway.errors import ConfigError

    missing = [name for name in ("pyarrow", "datasketches") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"building a profile needs {', '.join(missing)}: pip install 'gateway[profile]'")


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: a worker may be about to read it."""
    from gateway.errors import ConfigError

    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"{path} (--out): cannot be written: {error.strerror}") from None


@contextmanager
def _progress(title: str) -> Iterator[Callable[[float], None]]:
    """A bar on standard error while a person is there to see it."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda share: progress.update(task, completed=share)
