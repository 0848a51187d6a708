"""`python -m bench --history`: the shares of every kept run of `make bench`, over our own versions, as plot and table.

A share is gateway / limit of the same round, so that runs on other machines may stand beside each other; what runs did
not measure is a gap. Figures have been renamed and added since the first run: one is known by its benchmark and name,
and whatever in a file is no share is passed over.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import results

BESIDE = ", beside no "
"""In the name of a figure that holds the gateway against itself without something."""

NEWEST = 8  # columns of the printed table


@dataclass(frozen=True, slots=True)
class Share:
    """One figure of one run. `rounds`: of each pair of rounds, where the file has them."""

    share: float
    rounds: tuple[float, ...] = ()
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One kept result: when, of which commit, on which machine, and its shares by series."""

    date: str
    commit: str
    machine: str
    is_dirty: bool = False
    shares: Mapping[str, Share] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.commit}{'+' if self.is_dirty else ''}"


def kept(folder: Path = results.FOLDER) -> list[Run]:
    """The whole runs of the gateway with a share in them, oldest first. What is none is said and passed over."""
    found = []
    for path in folder.glob("*.json"):
        try:
            run = _read(json.loads(path.read_text()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            print(f"bench: {path} is not a result of this benchmark ({error!r}); ignored", file=sys.stderr)
            continue
        if run is not None:
            found.append(run)
    return sorted(found, key=lambda run: run.date)


def _read(document: Mapping[str, Any]) -> Run | None:
    """None: a quick run, somebody else's server, or one without a share."""
    stamp = document["stamp"]
    if stamp.get("mode", "full") != "full" or stamp.get("subject", "gateway") != "gateway":
        return None
    shares = {}
    for figure in document["figures"]:
        if figure.get("share") is None or figure.get("unit") != "/s":  # of latencies, less is more
            continue
        rounds = tuple(float(each) for each in figure.get("shares") or ())
        shares[series(figure["bench"], figure["name"])] = Share(float(figure["share"]), rounds, figure.get("target"))
    if not shares:
        return None
    machine = f"{stamp.get('cpu', 'unknown processor')}, {stamp.get('cores', '?')} cores"
    return Run(stamp["date"], stamp["commit"], machine, bool(stamp.get("dirty")), shares)


def series(bench: str, name: str) -> str:
    """What a line is called: `small_mlp 8x16`, `monitored 8x16, beside no monitoring`, `REST JSON, 30 floats`."""
    _, _, short = bench.rpartition("__")
    name = name.replace(" requests", "")
    return name if short in ("shapes", "large_tensor") else f"{short} {name}"


def all_series(runs: Sequence[Run]) -> list[str]:
    """In the order in which they came to be measured."""
    return list(dict.fromkeys(name for run in runs for name in run.shares))


def is_of_limit(name: str) -> bool:
    """Whether it is a share of the limit of HTTP/2, and of nothing else."""
    return BESIDE not in name and "REST" not in name


def table(runs: Sequence[Run], newest: int | None = None) -> str:
    """Markdown: a row by figure, a column by run; median share, lowest and highest round."""
    shown = runs[-newest:] if newest else runs
    heads = [f"{run.name} {run.date[:10]} {run.date[11:16]}" for run in shown]
    lines = ["| share | target | " + " | ".join(heads) + " |", "| --- | ---: |" + " ---: |" * len(shown)]
    for name in sorted(all_series(shown), key=lambda name: (not is_of_limit(name), BESIDE in name)):
        targets = [run.shares[name].target for run in shown if name in run.shares]
        cells = [_cell(run.shares.get(name)) for run in shown]
        lines.append(f"| {name} | {'' if targets[-1] is None else targets[-1]} | " + " | ".join(cells) + " |")
    machines = dict.fromkeys(run.machine for run in shown)
    lines.append("")
    lines += [
        f"On {machine}: {', '.join(run.name for run in shown if run.machine == machine)}." for machine in machines
    ]
    return "\n".join(lines) + "\n"


def _cell(share: Share | None) -> str:
    if share is None:
        return ""
    if len(share.rounds) < 2:
        return f"{share.share:.2f}"
    return f"{share.share:.2f} ({min(share.rounds):.2f}-{max(share.rounds):.2f})"


def change(runs: Sequence[Run], name: str) -> float | None:
    """Newest share / median of those before it on the same machine, less 1; None where there is nothing to compare."""
    known = [run for run in runs if name in run.shares]
    before = [run.shares[name].share for run in known[:-1] if run.machine == known[-1].machine]
    return known[-1].shares[name].share / statistics.median(before) - 1 if before else None


def stretches(runs: Sequence[Run], name: str) -> Iterator[list[tuple[int, Share]]]:
    """(place, share) of a line, broken where the machine changes."""
    line: list[tuple[int, Share]] = []
    for place, run in enumerate(runs):
        if line and run.machine != runs[line[-1][0]].machine:
            yield line
            line = []
        if name in run.shares:
            line.append((place, run.shares[name]))
    if line:
        yield line


def main(folder: Path = results.FOLDER) -> int:
    """Writes history.svg, history.png and history.md into `folder`, and prints the newest runs."""
    runs = kept(folder)
    if not runs:
        print(f"bench: no kept run with a share in {folder}; `make bench` makes one", file=sys.stderr)
        return 1
    from bench import historypicture  # needs matplotlib, and nothing else here does

    written = historypicture.draw(runs, folder)
    file = folder / "history.md"
    file.write_text(table(runs))
    print(table(runs, NEWEST))
    for name in all_series(runs):
        if (moved := change(runs, name)) is not None and abs(moved) >= 0.05:
            print(f"{name}: {moved:+.0%} beside the median of the runs before")
    print("written: " + ", ".join(os.path.relpath(path) for path in (*written, file)))
    return 0
