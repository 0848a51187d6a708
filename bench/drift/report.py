"""The tables for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Rows = Sequence[Mapping[str, Any]]


def show(studies: Mapping[str, Rows]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    for name, table in (("false_alarms", _false_alarms), ("detection", _detection), ("realdata", _realdata)):
        if studies.get(name):
            console.print(table(studies[name]))


def _false_alarms(rows: Rows) -> Table:
    table = _table("Pages a day over 50 columns when nothing is wrong", "world", "rule", ">pages a day", ">second day",
                   ">paged within 400 windows", ">promised", "kept")  # fmt: skip
    for row in rows:
        kept = {None: "", True: "yes", False: "[red]NO"}[row["is_kept"]]
        promised = "" if row["budget"] is None else f"{row['budget']:.3f}"
        table.add_row(row["told"], row["rule_told"], f"{row['pages_per_day']:,.2f}", f"{row['learnt_per_day']:,.2f}",
                      f"{100 * row['within']:.0f} %", promised, kept)  # fmt: skip
    return table


def _detection(rows: Rows) -> Table:
    table = _table("Minutes of 1,000 requests until a change of one in 50 columns pages", "change", "tolerance",
                   "detector", ">median", ">90 %", ">found within the hour")  # fmt: skip
    for row in rows:
        known = "learnt a day" if row["has_learnt"] else "new"
        table.add_row(row["effect"], f"PSI {row['tolerance']:g}", known, _number(row["median"]), _number(row["p90"]),
                      f"{100 * row['found']:.0f} %")  # fmt: skip
    return table


def _realdata(rows: Rows) -> Table:
    table = _table("Real data: profile from one part, traffic from another", "data", "served", ">rows of the profile",
                   ">columns", ">pages after", "columns named", "the worst")  # fmt: skip
    for row in rows:
        after = "silent" if row["pages_after"] is None else f"{row['pages_after']} min"
        named = ", ".join(row["named"][:4]) + (f" and {len(row['named']) - 4} more" if len(row["named"]) > 4 else "")
        table.add_row(
            row["data"], row["served"], str(row["rows_profile"]), str(row["columns"]), after, named, row["worst"]
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table
