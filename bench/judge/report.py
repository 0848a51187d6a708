"""The tables for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_PLAIN_COLUMNS = 200

Rows = Sequence[Mapping[str, Any]]


def show(document: Mapping[str, Any]) -> None:
    """Prints the studies of a result to stdout."""
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_COLUMNS, highlight=False)
    stamp, studies = document["stamp"], document["studies"]
    console.print(f"commit {stamp['commit']}, seed {stamp['seed']}, {stamp['mode']} run of {stamp['seconds']} s")
    for name, table in (("false_alarms", _false_alarms), ("detection", _detection), ("comparison", _comparison)):
        if name in studies:
            console.print(table(studies[name]))


def _false_alarms(rows: Rows) -> Table:
    columns = ("where", "test", "promised", "wrong", "rollouts", "kept", "note")
    table = _table("Rollouts decided wrongly when nothing is wrong", columns, ("promised", "wrong", "rollouts"))
    for row in rows:
        kept = {None: "", True: "yes", False: "[red]NO"}[row["is_kept"]]
        promised = "" if row["alpha"] is None or not row["is_promise"] else f"{100 * row['alpha']:g} %"
        wrong, n = f"{100 * row['rate']:.2f} %", f"{row['n']:,}"
        table.add_row(row["null"], row["test"], promised, wrong, n, kept, row["note"])
    return table


def _detection(rows: Rows) -> Table:
    table = _table("Requests of both arms until an effect is found",
                   ("test", "effect", "median", "expected", "", "90 %", "expected ", " ", "found"),
                   ("median", "expected", "", "90 %", "expected ", " ", "found"))  # fmt: skip
    for row in rows:
        cells = [row["test"], row["name"]]
        for own, reference, apart in zip(
            (row["median"], row["p90"]), row["reference"], row["against_reference"], strict=True
        ):
            cells += [_number(own), _number(reference), "" if apart is None else f"{100 * apart:+.0f} %"]
        table.add_row(*cells, f"{100 * row['found']:.0f} %")
    return table


def _comparison(rows: Rows) -> Table:
    table = _table("The same rollouts, judged by each",
                   ("method", "healthy, quiet", "healthy, incident", "bad: median", "bad: 90 %", "bad: caught",
                    "twice the errors: median", "caught", "what it does"),
                   ("healthy, quiet", "healthy, incident", "bad: median", "bad: 90 %", "bad: caught",
                    "twice the errors: median", "caught"))  # fmt: skip
    for row in rows:
        shares = (f"{100 * row['false_calm']:.1f} %", f"{100 * row['false_incident']:.1f} %")
        times = (f"{_number(row['median_s'])} s", f"{_number(row['p90_s'])} s", f"{100 * row['caught']:.0f} %")
        double = (f"{_number(row['median_double_s'])} s", f"{100 * row['caught_double']:.0f} %")
        table.add_row(row["name"], *shares, *times, *double, row["told"])
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _table(title: str, columns: Sequence[str], to_the_right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.strip(), justify="right" if column in to_the_right else "left", no_wrap=True)
    return table
