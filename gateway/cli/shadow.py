"""`gateway shadow`: what a shadow answered beside what callers got."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.client import DEFAULT_SERVER, AsJson, Client, Server, answered, shown

app = typer.Typer(
    name="shadow",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What shadows answer beside what callers get.",
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]
MAX_VALUES = 6
"""Of a tensor, on a line; --json has them all."""


@app.command("show")
def show_shadow(model: Model, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """How often the answers agreed, by shadow and output."""
    with answered():
        answer = Client(server).get("v1", "shadows", model)
        if as_json:
            return show.print_json(answer)
        if not answer["pairs"]:
            name = shown(model)
            print(f"nothing compared yet: give {name} a shadow with gateway route set {name} --shadow VERSION")
            return
        rows: list[tuple[Any, ...]] = []
        for pair in answer["pairs"]:
            rows += _rows(pair)
        show.print_table(
            "shadow", "beside", ">stage", "output", ">compared", ">agree", ">exact", ">same first", "failed", rows=rows
        )


@app.command("disagreements")
def disagreements(
    model: Model,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most.")] = 5,
    recent: Annotated[bool, typer.Option("--recent", help="The latest instead of the worst.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Requests that a shadow answered otherwise.

    Inputs and both outputs, the worst first.
    """
    with answered():
        answer = Client(server).get("v1", "shadows", model, "disagreements")
        if as_json:
            return show.print_json(answer)
        kind = "recent" if recent else "worst"
        found = [(each, sample) for each in answer["disagreements"] for sample in each["sample"].get(kind, [])]
        found.sort(key=lambda pair: pair[1].get("at", 0.0) if recent else _severity(pair[1]), reverse=True)
        for each, sample in found[:limit]:
            _print_sample(each, sample)
        if not found:
            print(f"none: see gateway shadow show {shown(model)} for how many were compared")


def _rows(pair: dict[str, Any]) -> list[tuple[Any, ...]]:
    """One for each output; one for a pair in which nothing was compared."""
    document = pair["counts"]
    counts = document.get("counts", {})
    compared = counts.get("agreed", 0) + counts.get("disagreed", 0)
    beside = " ".join(filter(None, (document.get("primary_version"), document.get("primary_arm")))) or "(another stage)"
    head = (pair["version"], beside, document.get("stage", ""))
    failed = ", ".join(f"{code}: {n}" for code, n in counts.get("shadow_failed", {}).items())
    rows = []
    for name, output in counts.get("outputs", {}).items():
        pairs = output.get("pairs", 0)
        rows.append(
            (
                *head,
                name,
                pairs,
                _share(output.get("within", 0), pairs),
                _share(output.get("exact", 0), pairs),
                _share(output.get("same_first", 0), output.get("rows", 0)),
                failed,
            )
        )
    total = ("all", compared, _share(counts.get("agreed", 0), compared), _share(counts.get("exact", 0), compared), "")
    return [*rows, (*head, *total, failed)] if len(rows) != 1 else rows


def _severity(sample: dict[str, Any]) -> float:
    """Of all workers' samples: those first that cannot be compared at all."""
    differs = float(sample.get("relative_difference") or 0.0)
    return math.inf if sample.get("is_broken") or math.isnan(differs) else differs


def _print_sample(found: dict[str, Any], sample: dict[str, Any]) -> None:
    document = found["sample"]
    differs = sample.get("relative_difference")
    size = f", relative difference {differs}" if differs is not None else ""
    where = f" in {shown(str(sample.get('output')))}" if sample.get("output") else ""
    print(
        f"request {shown(str(sample.get('id')) or '(no id)')} at {show.when(sample.get('at'))}: version "
        f"{document.get('primary_version')} and its shadow {found['version']} differ{where}{size}"
    )
    if sample.get("text"):
        print(f"  {shown(sample['text'])}")
    for side in ("inputs", "primary", "shadow"):
        for tensor in sample.get(side, []):
            print(f"  {side:<8} {shown(str(tensor['name']))} {tensor['datatype']} {tensor['shape']}: {_values(tensor)}")


def _values(tensor: dict[str, Any]) -> str:
    values = tensor["values"]
    more = ", ..." if tensor.get("is_cut") or len(values) > MAX_VALUES else ""
    return shown(", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in values[:MAX_VALUES])) + more


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f} %" if whole else ""
