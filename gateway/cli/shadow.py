"""`gateway shadow`: what a shadow answered beside what callers got."""

from __future__ import annotations

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
WITHIN = "within: at most 1e-6 + 0.1 % of the larger apart; same first: the largest of a row is at the same place"


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
            "shadow", "beside", ">stage", "output", ">compared", ">within", ">exact", ">same first", ">median diff",
            ">p99 diff", "failed", rows=rows,
        )  # fmt: skip
        print(WITHIN)
        for each in answer["requests"]:
            if each["dropped"]:
                reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(each["dropped"].items()))
                print(
                    f"version {each['version']}, stage {each['stage']}: of {each['drawn']} drawn, no pair of {reasons}"
                )


@app.command("disagreements")
def disagreements(
    model: Model,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Samples of each pair.")] = 5,
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
        n_shown = 0
        for each in answer["disagreements"]:
            for sample in each["sample"].get(kind, [])[:limit]:
                n_shown += 1
                _print_sample(each, sample)
        if not n_shown:
            print(f"none: see gateway shadow show {shown(model)} for how many were compared")


def _rows(pair: dict[str, Any]) -> list[tuple[Any, ...]]:
    """One for each output, and one for all of them together where there are several, or none."""
    document, rates = pair["counts"], pair["rates"]
    counts = document["counts"]
    beside = " ".join(filter(None, (document["primary_version"], document["primary_arm"]))) or "(another stage)"
    head = (pair["version"], beside, document["stage"])
    failed = ", ".join(f"{code}: {n}" for code, n in counts["shadow_failed"].items())
    rows = []
    for name, output in rates["outputs"].items():
        shares = (_share(output[of]) for of in ("within_tolerance", "exact", "same_first"))
        sizes = (_size(output[of]) for of in ("median_relative_difference", "p99_relative_difference"))
        rows.append((*head, name, counts["outputs"][name]["pairs"], *shares, *sizes, failed))
    total = ("all", rates["compared"], _share(rates["agreement"]), _share(rates["exact"]), "", "", "", failed)
    return rows if len(rows) == 1 else [*rows, (*head, *total)]


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


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _size(bound: float | str | None) -> str:
    """A bucket's upper bound."""
    return (
        "" if bound is None else "0" if bound == 0 else f"<= {bound:.0e}" if isinstance(bound, float) else f"to {bound}"
    )
