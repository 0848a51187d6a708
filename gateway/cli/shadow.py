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
def show_shadow(
    model: Model,
    every_stage: Annotated[bool, typer.Option("--all", help="Also of earlier generations of the route.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """How often the answers agreed, by shadow and output.

    Over all workers. A stage is a generation of the route: each starts to count anew. `agree` is within the tolerance,
    `same first` the same class of highest score; differences are relative, and upper bounds.
    """
    with answered():
        answer = Client(server).get("v1", "shadows", model)
        if as_json:
            return show.print_json(answer)
        if not answer["pairs"] and not answer["requests"]:
            name = shown(model)
            print(f"nothing compared yet: give {name} a shadow with gateway route set {name} --shadow VERSION")
            return
        newest = max(int(each["stage"]) for each in _with_stage(answer))
        wanted = {str(each["stage"]) for each in _with_stage(answer) if every_stage or int(each["stage"]) == newest}
        requests = [each for each in answer["requests"] if each["stage"] in wanted]
        pairs = [each for each in answer["pairs"] if str(each["counts"].get("stage")) in wanted]
        show.print_table(*_REQUEST_COLUMNS, rows=[_requests(each) for each in requests])
        show.print_table(*_PAIR_COLUMNS, rows=[row for pair in pairs for row in _rows(pair)])
        if len(wanted) == 1 and any(str(each["stage"]) not in wanted for each in _with_stage(answer)):
            print("earlier stages: --all")


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


_REQUEST_COLUMNS = ("shadow", ">stage", ">drawn", ">shadowed", "dropped")
_PAIR_COLUMNS = (
    "shadow", "beside", ">stage", "output", ">compared", ">agree", ">exact", ">same first", ">median diff", ">p99 diff",
    "failed",
)  # fmt: skip


def _with_stage(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [*answer["requests"], *(pair["counts"] for pair in answer["pairs"])]


def _requests(each: dict[str, Any]) -> tuple[Any, ...]:
    counts = each["counts"]
    return each["version"], each["stage"], counts["drawn"], counts["shadowed"], _by_reason(counts["dropped"])


def _rows(pair: dict[str, Any]) -> list[tuple[Any, ...]]:
    """One for each output, and one for them together."""
    document, rates = pair["counts"], pair["rates"]
    counts = document["counts"]
    beside = " ".join(filter(None, (document["primary_version"], document["primary_arm"]))) or "(another stage)"
    head = (pair["version"], beside, document["stage"])
    failed = _by_reason(counts["shadow_failed"])
    rows = [
        (
            *head,
            name,
            counts["outputs"][name]["pairs"],
            _percent(rate["within_tolerance"]),
            _percent(rate["exact"]),
            _percent(rate["same_first"]),
            _size(rate["median_relative_difference"]),
            _size(rate["p99_relative_difference"]),
            failed,
        )
        for name, rate in rates["outputs"].items()
    ]
    total = (
        *head,
        "all",
        rates["compared"],
        _percent(rates["agreement"]),
        _percent(rates["exact"]),
        "",
        "",
        "",
        failed,
    )
    return rows if len(rows) == 1 else [*rows, total]


def _by_reason(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {n}" for reason, n in counts.items() if n)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _size(bound: float | str | None) -> str:
    return "" if bound is None else bound if isinstance(bound, str) else f"{bound:.0e}" if bound else "0"


def _severity(sample: dict[str, Any]) -> float:
    """Of all workers' samples: those first that cannot be compared at all."""
    return math.inf if sample.get("is_broken") else float(sample.get("severity") or 0.0)


def _print_sample(found: dict[str, Any], sample: dict[str, Any]) -> None:
    document = found["sample"]
    differs = sample.get("absolute_difference")
    size = f" by {differs:.3g}" if isinstance(differs, int | float) and differs else ""
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
