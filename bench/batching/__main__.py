"""`python -m bench.batching`: eager batching beside the best fixed (batch size, delay) of each work.

Prints a table and keeps it in bench/batching/results: about five minutes, a quarter with --quick.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from bench import results
from bench.batching import search
from bench.context import Context
from bench.errors import BenchError

FOLDER = Path(__file__).parent / "results"
TARGET = 0.95  # of the best fixed setting


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.batching", description=__doc__)
    parser.add_argument("works", nargs="*", metavar="WORK", help=", ".join(work.model.name for work in search.WORKS))
    parser.add_argument("--quick", action="store_true", help="a quarter of the work; not kept")
    parser.add_argument("--no-save", action="store_true")
    parser.add_argument("--gateway", type=Path, default=Path(sys.executable).with_name("gateway"), metavar="PATH")
    options = parser.parse_args()
    stamped = results.stamp("quick" if options.quick else "full", "batching")
    started_s = time.monotonic()
    rows: list[dict[str, Any]] = []
    seconds, rounds, pairs = (0.2, 2, 3) if options.quick else (0.4, 3, 9)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        context = Context(options.quick, options.gateway, None, Path(scratch), started_s)
        try:
            for work in search.WORKS:
                if not options.works or work.model.name in options.works:
                    rows += [found.as_dict() for found in search.run(context, work, seconds, rounds, pairs)]
        except BenchError as error:
            print(f"bench.batching: {error}", file=sys.stderr)
            return 1
    stamped["seconds"] = round(time.monotonic() - started_s)
    print(table(rows))
    if not options.quick and not options.no_save:
        path = results.dated(stamped, FOLDER)
        results.write(path, {"stamp": stamped, "rows": rows})
        print(f"kept as {os.path.relpath(path)}")
    return 0


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| work | load | best fixed setting | eager, of it | range of pairs | target |",
        "| --- | --- | --- | ---: | --- | --- |",
    ]
    for row in rows:
        ratios = sorted(b / a if row["unit"] == "us" else a / b for a, b in zip(row["eager"], row["best"], strict=True))
        load = row["load"] + (", p99" if row["unit"] == "us" else "")
        told = "met" if row["ratio"] >= TARGET else "**missed**"
        lines.append(
            f"| {row['work']} | {load} | {row['best_setting']} | {row['ratio']:.2f} "
            f"| {ratios[0]:.2f} to {ratios[-1]:.2f} | {TARGET} {told} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
