"""What a run says, for a person at a terminal; and the comparisons that every report needs."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.peers.catalogue import PEERS
from bench.peers.record import Record

_PLAIN_COLUMNS = 220


def show(measured: Record) -> None:
    """Prints to stdout; colours only on a terminal."""
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_COLUMNS, highlight=False)
    console.print(machine(measured))
    if measured.stamp["load_before"] > 0.5 * measured.stamp["cores"]:
        console.print(f"[yellow]The machine was busy before (load {measured.stamp['load_before']}): doubt the figures.")
    grid = Table(box=None, pad_edge=False)
    columns = ("load", "peer", "requests/s", "of limit", "p50", "p90", "p99", "p99.9", "CPU s/1000", "memory", "wrong",
               "failed")  # fmt: skip
    for name in columns:
        grid.add_column(name, justify="left" if name in ("load", "peer") else "right", no_wrap=True)
    previous = ""
    for row in sorted(measured.rows, key=_order):
        words = load_words(row)
        grid.add_row(words if words != previous else "", *_cells(measured, row))
        previous = words
    console.print(grid)
    for name, reason in measured.problems.items():
        console.print(f"  {name}: {reason}", markup=False)
    for row in measured.rows:
        if row["example"]:
            console.print(f"  {row['peer']}, {load_words(row)}: WRONG: {row['example']}", markup=False)


def machine(measured: Record) -> str:
    stamp = measured.stamp
    return (
        f"{stamp['cpu']}, {stamp['cores']} cores, {stamp['kernel']}; Python {stamp['python']}; commit {stamp['commit']}"
        f"{' with changes' if stamp['dirty'] else ''}, {stamp['date']}, {stamp['mode']} run"
    )


def line(row: dict[str, Any]) -> str:
    """One row, in short."""
    latency = row["latency_us"]
    text = f"{row['requests_per_s']:,.0f}/s, p50 {duration(latency['p50'])}, p99 {duration(latency['p99'])}"
    if row["cpu_s_per_1000"] is not None:
        text += f", {row['cpu_s_per_1000']:.3f} CPU s per 1,000, {row['pss_bytes'] / 1e6:.0f} MB"
    bad = failed(row)
    return (
        text
        + (f"; {row['wrong']:,} WRONG: {row['example']}" if row["wrong"] else "")
        + (f"; {bad:,} failed" if bad else "")
    )


def failed(row: dict[str, Any]) -> int:
    """Answered with an error, lost, or never sent for want of a free connection."""
    return int(row["failed"] + sum(row["lost"].values()) + row["not_sent"])


def load_words(row: dict[str, Any]) -> str:
    how = f"{row['at_once']} at once" if row["at_once"] else f"open, {100 * row['of_peak']:.0f} % of peak"
    return f"{row['work']}, {how}"


def limit_per_s(measured: Record, row: dict[str, Any]) -> float | None:
    """What HTTP/2 alone reached with the same work and as many at once; REST is held against it too."""
    rates = [
        each["requests_per_s"]
        for each in measured.rows
        if each["peer"] == "limit" and each["work"] == row["work"] and each["at_once"] == row["at_once"]
    ]
    return statistics.mean(rates) if rates and row["at_once"] else None


def merged(measured: Record) -> Iterator[dict[str, Any]]:
    """One row for each peer and load: of what was measured twice the mean of the rates, the rest as it was first."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in measured.rows:
        key = (row["peer"], row["protocol"], row["work"], row["at_once"], row["of_peak"])
        groups.setdefault(key, []).append(row)
    for rows in groups.values():
        yield {**rows[0], "requests_per_s": statistics.mean(row["requests_per_s"] for row in rows)}


def wander(measured: Record) -> float | None:
    """By how much what was measured twice differs, as the median over its loads: the noise of the whole run."""
    firsts = {_load_key(row): row["requests_per_s"] for row in measured.rows if row["time"] == 0 and row["at_once"]}
    moves = [
        abs(row["requests_per_s"] / firsts[_load_key(row)] - 1)
        for row in measured.rows
        if row["time"] == 1 and row["at_once"] and firsts.get(_load_key(row))
    ]
    return statistics.median(moves) if moves else None


def duration(us: float | None) -> str:
    if us is None:
        return "-"
    return f"{us:.0f} us" if us < 1000 else f"{us / 1000:.1f} ms" if us < 1e6 else f"{us / 1e6:.1f} s"


def _load_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["peer"], row["protocol"], row["work"], row["at_once"]


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    works = ("small", "large", "image", "text")
    return works.index(row["work"]), row["at_once"] or 10_000, row["of_peak"] or 0, list(PEERS).index(row["peer"])


def _cells(measured: Record, row: dict[str, Any]) -> list[str]:
    limit = limit_per_s(measured, row)
    latency = row["latency_us"]
    return [
        f"{row['peer']} {row['protocol']}{' (again)' if row['time'] else ''}",
        f"{row['requests_per_s']:,.0f}",
        f"{row['requests_per_s'] / limit:.3f}" if limit else "",
        *(duration(latency[name]) for name in ("p50", "p90", "p99", "p99.9")),
        f"{row['cpu_s_per_1000']:.4f}" if row["cpu_s_per_1000"] is not None else "",
        f"{row['pss_bytes'] / 1e6:,.0f} MB",
        f"[red]{row['wrong']:,}[/]" if row["wrong"] else "0" if row["unchecked"] is not None else "-",
        f"[red]{failed(row):,}[/]" if failed(row) else "0",
    ]
