"""A profile in the terminal: a line for each column, or a column drawn large."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.errors import ConfigError
from gateway.monitoring.drawing import bar, number, ruler, sparkline, spread
from gateway.monitoring.profile import Calibration, Categorical

if TYPE_CHECKING:
    from gateway.monitoring.profile import Numeric, Profile, Summary

_SPARK_CELLS = 32
_LARGE_CELLS = 20
_BAR_WIDTH = 48
_MAX_WORDS = 4


def print_profile(profile: Profile) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160)
    source = {"data": "from data", "live": "learnt from live requests"}[profile.source]
    console.print(
        Text(
            f"{profile.model} version {profile.version}: {profile.rows} rows {source}, "
            f"{profile.created:%Y-%m-%d %H:%M} UTC, model {profile.digest.removeprefix('sha256:')[:12]}"
        )
    )
    for title, columns in (("inputs", profile.columns), ("outputs", profile.outputs)):
        if not columns:
            continue
        table = Table(title=title, title_justify="left", expand=False)
        table.add_column("column", overflow="fold")
        table.add_column("kind")
        table.add_column("distribution", no_wrap=True)
        table.add_column("from", justify="right")
        table.add_column("to", justify="right")
        table.add_column("typical", overflow="fold")
        table.add_column("missing", justify="right")
        for column in columns:
            table.add_row(*map(Text, _line(column, profile.rows)))
        console.print(table)


def print_columns(profile: Profile, names: Sequence[str]) -> None:
    """Each of them large, from top to bottom."""
    for name in names:
        column = find(profile, name)
        kind, _, _, _, typical, missing = _line(column, profile.rows)[1:]
        print(f"{column.name}  {kind}  {typical}" + (f"  missing {missing}" if missing else ""))
        rows = _large(column)
        highest = max((amount for _, amount in rows), default=0) or 1
        width = max((len(label) for label, _ in rows), default=0)
        for label, amount in rows:
            share = amount / profile.rows
            print(f"  {label:>{width}} {bar(amount / highest, _BAR_WIDTH):<{_BAR_WIDTH}} {share:7.2%}")
        print()


def find(profile: Profile, name: str) -> Any:
    """ConfigError names the closest there are."""
    import difflib

    for column in profile.watched:
        if column.name == name:
            return column
    known = [column.name for column in profile.watched]
    close = difflib.get_close_matches(name, known, 5) or known[:5]
    raise ConfigError(f"--column: got {name!r}, expected one of {len(known)} such as {', '.join(close)}")


def _line(column: Any, rows: int) -> tuple[str, str, str, str, str, str, str]:
    match column:
        case Categorical():
            shares = sorted(zip(column.counts, map(str, column.vocabulary), strict=True), key=lambda each: -each[0])
            told = ", ".join(f"{word} {count / rows:.0%}" for count, word in shares[:_MAX_WORDS])
            more = f", {column.distinct - _MAX_WORDS} more" if column.distinct > _MAX_WORDS else ""
            spark = sparkline(column.counts[:_SPARK_CELLS])
            return column.name, f"{column.distinct} values", spark, "", "", told + more, _share(column.missing, rows)
        case Calibration():
            spark = sparkline(column.counts)
            return column.name, "calibration", spark, "0", "1", "", _share(column.outside, rows)
        case _:
            marks = ruler(column.edges, column.counts, _SPARK_CELLS)
            spark = sparkline(spread(column.edges, column.counts, marks))
            kind = "numeric" if column.kind == "numeric" else f"{column.statistic} of all"
            if not column.n_finite:
                return column.name, kind, "", "", "", "no number", _share(rows, rows)
            typical = f"{number(column.mean)} ± {number(column.std)}"
            lost = _share(column.nan + column.neg_inf + column.pos_inf, rows)
            return column.name, kind, spark, number(column.min), number(column.max), typical, lost


def _large(column: Any) -> list[tuple[str, float]]:
    """Labels and rows of the large drawing."""
    match column:
        case Categorical():
            rows = [(str(word), float(count)) for word, count in zip(column.vocabulary, column.counts, strict=True)]
            rest = (("(other)", column.other), ("(missing)", column.missing))
        case Calibration():
            rows = [(f"{b / 20:.2f} - {(b + 1) / 20:.2f}", float(count)) for b, count in enumerate(column.counts)]
            rest = (("(outside)", column.outside), ("", 0))
        case _:
            rows = _histogram(column)
            rest = (("(NaN)", column.nan), ("(infinite)", column.neg_inf + column.pos_inf))
    return rows + [(label, float(count)) for label, count in rest if count]


def _histogram(column: Numeric | Summary) -> list[tuple[str, float]]:
    if len(column.counts) < _LARGE_CELLS and column.max == column.edges[-2]:  # few values, a bin each
        return [(number(edge), float(count)) for edge, count in zip(column.edges, column.counts, strict=False)]
    marks = ruler(column.edges, column.counts, _LARGE_CELLS)
    amounts = spread(column.edges, column.counts, marks)
    labels = [f"{number(low)} - {number(high)}" for low, high in itertools.pairwise(marks)]
    if marks[0] > column.min:
        labels[0] = f"< {number(marks[1])}"
    if marks[-1] < column.max:
        labels[-1] = f">= {number(marks[-2])}"
    return list(zip(labels, np.asarray(amounts).tolist(), strict=True))


def _share(count: int, rows: int) -> str:
    return f"{count / rows:.2%}" if count else ""
