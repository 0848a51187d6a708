"""`gateway feedback`: report how answers turned out, and see how versions do by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.client import DEFAULT_SERVER, AsJson, Client, Server, answered, shown
from gateway.cli.failure import REFUSED
from gateway.errors import ConfigError

BATCH = 2000
MAX_SHOWN_CLASSES = 12
_TAKEN = ("accepted", "duplicate")

app = typer.Typer(
    name="feedback",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="How answers turned out: labels and values that callers report.",
)


@app.command("show")
def show_feedback(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)],
    since: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Only answers asked for since, such as 24h.", show_default=False),
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """How each version does by what was reported: accuracy, confusion, calibration, values.

    Needs `feedback: true` in the model's model.yaml: then each answer carries a token, gateway_request, by which a
    caller reports. `calibration` is the mean gap between how sure a version is and how often it is right.
    """
    with answered():
        answer = Client(server).get("v1", "feedback", model, since=_seconds(since))
        if as_json:
            return show.print_json(answer)
        if not answer["versions"]:
            print(f"nothing reported yet; {shown(model)}/model.yaml needs `feedback: true`, see docs/feedback.md")
        else:
            show.print_table(*_COLUMNS, rows=[_row(version) for version in answer["versions"]])
        for version in answer["versions"]:
            _print_confusion(version)
            _print_values(version)
        if answer["refused"]:
            listed = ", ".join(f"{n} {name}" for name, n in answer["refused"].items())
            print(f"refused, of all models: {listed}")


@app.command("report")
def report(
    request: Annotated[
        str | None, typer.Argument(metavar="TOKEN", help="The answer's parameter gateway_request.", show_default=False)
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="LABEL", help="What is true: a class, or a number.", show_default=False)
    ] = None,
    value: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="What came of it: converted=1. Repeatable.", show_default=False),
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Whom it was about. Repeatable.", show_default=False)
    ] = None,
    row: Annotated[int, typer.Option(min=0, metavar="N", help="Of a request with several rows: which.")] = 0,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help='A report a line: {"request": ..., "label": 1, "values": {}}.', show_default=False
        ),
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Report how one answer turned out, or those of a file. What was reported before counts once."""
    with answered():
        if (request is None) == (file is None):
            raise ConfigError("got neither or both of TOKEN and --file, expected one of them")
        if file is None:
            one: dict[str, Any] = {
                "request": request,
                "row": row,
                "groups": group or [],
                "values": _values(value or []),
            }
            reports = iter([[one if label is None else {**one, "label": _parsed(label)}]])
        else:
            reports = _batches(file)
        results: list[dict[str, str]] = []
        for batch in reports:
            results += _sent(Client(server), batch)
        if as_json:
            show.print_json({"results": results})
        else:
            _print_results(results)
        if any(result["status"] not in _TAKEN for result in results):
            raise typer.Exit(REFUSED)


def _sent(client: Client, batch: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Results also where nothing was taken: that is an answer like any other here."""
    from gateway.cli.client import ServerRefused

    try:
        found: list[dict[str, str]] = client.post("v1", "feedback", body={"reports": batch})["results"]
    except ServerRefused as refused:
        if "results" not in refused.body:
            raise
        found = refused.body["results"]
    return found


def _batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    is_empty = True
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    document = json.loads(line)
                except ValueError as error:
                    raise ConfigError(f"--file {path}, line {number}: {error}; expected a JSON object") from None
                if not isinstance(document, dict):
                    raise ConfigError(f"--file {path}, line {number}: got {line.strip()[:40]}, expected a JSON object")
                batch.append(document)
                is_empty = False
                if len(batch) == BATCH:
                    yield batch
                    batch = []
    except OSError as error:
        raise ConfigError(f"--file {path}: {str(error.strerror).lower()}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--file {path}: is no text in UTF-8, expected a JSON object on each line") from None
    if is_empty:
        raise ConfigError(f"--file {path}: is empty, expected a JSON object on each line")
    if batch:
        yield batch


def _values(written: list[str]) -> dict[str, float]:
    found = {}
    for text in written:
        name, equals, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ConfigError(f"--value: got {text!r}, expected NAME=NUMBER such as converted=1")
    return found


def _parsed(label: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(label)
        except ValueError:
            continue
    return label


def _seconds(since: str | None) -> float | None:
    if since is None:
        return None
    from gateway.config.units import parse_duration_us

    try:
        return parse_duration_us(since) / 1e6
    except ValueError as error:
        raise ConfigError(f"--since: got {since!r}, expected {error}") from None


def _print_results(results: list[dict[str, str]]) -> None:
    counts: dict[str, int] = {}
    for result in results:
        counts[result["status"]] = counts.get(result["status"], 0) + 1
    print(", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
    refused = [(i, result) for i, result in enumerate(results, 1) if result["status"] not in _TAKEN]
    for index, result in refused[:10]:
        print(f"  report {index}: {result['status']}: {shown(result['error'])}")


_COLUMNS = ("version", ">reports", ">labels", ">accuracy", "95 %", ">calibration", ">mean error", ">rms error")


def _row(version: dict[str, Any]) -> tuple[Any, ...]:
    accuracy, calibration, regression = version["accuracy"], version["calibration"], version["regression"]
    return (
        version["version"],
        version["accepted"],
        (accuracy or regression or {"n": 0})["n"],
        f"{100 * accuracy['share']:.2f} %" if accuracy else "",
        f"{100 * accuracy['low']:.2f} to {100 * accuracy['high']:.2f}" if accuracy else "",
        f"{calibration['error']:.3f}" if calibration else "",
        f"{regression['mean_absolute_error']:.4g}" if regression else "",
        f"{regression['root_mean_square_error']:.4g}" if regression else "",
    )


def _print_confusion(version: dict[str, Any]) -> None:
    confusion = version["confusion"]
    if not confusion:
        return
    classes = confusion["classes"]
    if len(classes) > MAX_SHOWN_CLASSES:
        print(f"version {shown(version['version'])}: {len(classes)} classes; --json has them all")
        return
    rows = [(name, *counts) for name, counts in zip(classes, confusion["counts"], strict=True)]
    title = f"version {version['version']}: predicted (down) and true (across)"
    show.print_table("predicted", *(f">{name}" for name in classes), rows=rows, title=title)


def _print_values(version: dict[str, Any]) -> None:
    if not version["values"]:
        return
    rows = [
        (name, mean["n"], f"{mean['mean']:.6g}", f"{mean['deviation']:.4g}", f"{mean['total']:.6g}")
        for name, mean in version["values"].items()
    ]
    title = f"version {version['version']}: values"
    show.print_table("value", ">n", ">mean", ">deviation", ">sum", rows=rows, title=title)
