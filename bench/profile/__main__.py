"""`python -m bench.profile`: where the time of one request goes, from its first byte to its last.

Prints a table (processor nanoseconds by perf, instructions by callgrind, by stage of a request's way) and writes it
with a flame graph into build/profile, or with --keep into bench/profile/results. A tool that is missing is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from bench import results
from bench.errors import BenchError, NotMeasured
from bench.profile import flame, tools
from bench.profile.stages import OTHER, STAGES

KEPT = Path(__file__).parent / "results"
ORDER = [*(stage.name for stage in STAGES), OTHER]


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.profile", description=__doc__)
    parser.add_argument("--load", action="append", choices=[load.name for load in tools.LOADS], help="default: all")
    parser.add_argument("--tool", choices=["perf", "callgrind"], help="default: both")
    parser.add_argument("--keep", action="store_true", help="into bench/profile/results, to be committed")
    parser.add_argument("--json", action="store_true", help="the tables as JSON")
    options = parser.parse_args()
    loads = tuple(load for load in tools.LOADS if not options.load or load.name in options.load)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every finally runs and no server stays
    started_s = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started_s:5.0f} s] {text}", file=sys.stderr, flush=True)

    times: dict[str, tools.Times] = {}
    counts: dict[str, Counter[str]] = {}
    stamped = results.stamp("profile", "gateway")
    with tempfile.TemporaryDirectory(prefix="profile-") as scratch:
        bench = tools.Bench(Path(scratch), say)
        try:
            if options.tool != "callgrind":
                times = tools.time_stages(bench, loads)
        except NotMeasured as reason:
            say(f"no times: {reason}")
        try:
            if options.tool != "perf":
                counts = tools.count_stages(bench, loads)
        except NotMeasured as reason:
            say(f"no instructions: {reason}")
        except BenchError as error:
            print(f"bench.profile: {error}", file=sys.stderr)
            return 1
    if not times and not counts:
        print("bench.profile: neither perf nor valgrind could be used", file=sys.stderr)
        return 1
    folder = KEPT if options.keep else Path("build/profile")
    folder.mkdir(parents=True, exist_ok=True)
    tables = {load.name: rows(times.get(load.name), counts.get(load.name)) for load in loads}
    document = {"stamp": stamped, "loads": tables}
    for load in loads:
        if load.name in times:
            found = times[load.name]
            cost = f"{found.ns_per_request:,.0f} ns of processor time"
            title = f"One request of {load.name}: {cost}, commit {stamped['commit']}"
            scale = found.ns_per_request / max(1, found.folded.total())
            flame.write(folder / f"{load.name}.svg", found.folded, ORDER, title, "ns", scale)
    results.write(folder / "profile.json", document)
    text = table(tables)
    (folder / "profile.md").write_text(text)
    print(json.dumps(document, indent=1) if options.json else text)
    say(f"written to {folder}")
    return 0


def rows(times: tools.Times | None, counts: Counter[str] | None) -> dict[str, dict[str, Any]]:
    """By stage: ns and instructions for each request."""
    found: dict[str, dict[str, Any]] = {}
    for name in ORDER:
        row: dict[str, Any] = {}
        if times is not None:
            row["ns"] = round(times.ns(name), 1)
        if counts is not None:
            row["instructions"] = counts[name]
        if any(row.values()):
            found[name] = row
    return found


def table(tables: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Markdown: a row by stage, two columns by load."""
    columns = [(load, key) for load, found in tables.items() for key in ("ns", "instructions") if _total(found, key)]
    head = [f"{load} {'ns' if key == 'ns' else 'instr.'}" for load, key in columns]
    lines = ["| stage | " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(head)]
    for name in ORDER:
        cells = [_cell(tables[load].get(name, {}).get(key), _total(tables[load], key)) for load, key in columns]
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| **sum** | " + " | ".join(f"**{_total(tables[load], key):,.0f}**" for load, key in columns) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: float | None, total: float) -> str:
    return f"{value:,.0f} ({value / total:.0%})" if value else ""


def _total(found: dict[str, dict[str, Any]], key: str) -> float:
    return float(sum(row.get(key, 0) for row in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
