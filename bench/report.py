"""The table: today's figures beside the limit, the target and the last run. In colour on a terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figure import Figure, change

_PLAIN_COLUMNS = 200  # a file or a pipe has no width; wide enough that nothing is cut
_COLUMNS = ("benchmark", "figure", "measured", "limit", "share", "range", "target", "", "last", "change")
_NOTABLE = 0.05  # smaller changes drown in the noise of a shared machine


def show(
    stamped: dict[str, Any], figures: list[Figure], problems: dict[str, str], last: dict[tuple[str, str], Any]
) -> None:
    """Prints to stdout; colours only on a terminal."""
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_COLUMNS, highlight=False)
    console.print(
        f"{stamped['cpu']}, {stamped['cores']} cores, {stamped['kernel']}; Python {stamped['python']}, "
        f"ONNX Runtime {stamped['onnxruntime']}, {stamped['h2load']}; commit {stamped['commit']}"
        f"{' with changes' if stamped['dirty'] else ''}, {stamped['date']}, {stamped['mode']} run"
    )
    if stamped["load_before"] > 0.5 * stamped["cores"]:
        console.print(
            f"[yellow]The machine was busy before the start (load {stamped['load_before']}): doubt the figures."
        )
    if figures:
        console.print(_table(figures, last))
    for figure in figures:
        if figure.note:
            console.print(f"  {figure.bench} {figure.name}: {figure.note}", markup=False)
    for name, reason in problems.items():
        console.print(f"  {name}: {reason}", markup=False)


def _table(figures: list[Figure], last: dict[tuple[str, str], Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("benchmark", "figure", "") else "right", no_wrap=True)
    previous = ""
    for figure in figures:
        record = last.get((figure.bench, figure.name))
        table.add_row(
            figure.bench if figure.bench != previous else "",
            figure.name,
            amount(figure.value, figure.unit),
            "" if figure.limit is None else amount(figure.limit, figure.unit),
            "" if figure.share is None else f"{figure.share:.2f}",
            _range(figure),
            _target(figure),
            {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[figure.is_met],
            "" if record is None else _last(figure, record),
            _change(figure, record),
        )
        previous = figure.bench
    return table


def amount(value: float, unit: str) -> str:
    """The number with as many digits as it deserves, and its unit."""
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _range(figure: Figure) -> str:
    """Lowest and highest round, of what is judged."""
    if figure.has_share:
        return f"{min(figure.shares):.2f}-{max(figure.shares):.2f}"
    if len(figure.rounds) < 2:
        return ""
    return f"{_number(min(figure.rounds))}-{_number(max(figure.rounds))}"


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    sign = ">=" if figure.better == "higher" else "<="
    return f"{sign} {figure.target:.2f}" if figure.has_share else f"{sign} {amount(figure.target, figure.unit)}"


def _last(figure: Figure, record: dict[str, Any]) -> str:
    value = f"{record['share']:.2f}" if figure.has_share else amount(record["value"], record["unit"])
    return f"{value} ({record['stamp']['commit']})"


def _change(figure: Figure, record: dict[str, Any] | None) -> str:
    moved = change(figure, record)
    if moved is None:
        return ""
    if abs(moved) < _NOTABLE:
        return f"{moved:+.0%}"
    colour = "green" if (moved > 0) == (figure.better == "higher") else "red"
    return f"[{colour}]{moved:+.0%}[/]"
