"""`python -m bench.batching`: eager batching beside the best fixed (batch size, delay) of each work.

Prints a table and keeps it in bench/batching/results. Each load is written down when it is measured: a run that was
stopped goes on where it was (same machine, same commit, same WORKs; --fresh begins anew).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from bench import results
from bench.batching import search, twin
from bench.context import Context
from bench.errors import BenchError

FOLDER = Path(__file__).parent / "results"
TARGET = 0.95  # of the best fixed setting


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.batching", description=__doc__)
    parser.add_argument("works", nargs="*", metavar="WORK", help=", ".join(work.model.name for work in search.WORKS))
    parser.add_argument("--quick", action="store_true", help="a quarter of the work; not kept")
    parser.add_argument("--no-save", action="store_true")
    parser.add_argument("--fresh", action="store_true", help="begin anew, whatever a run that was stopped has measured")
    parser.add_argument("--gateway", type=Path, default=Path(sys.executable).with_name("gateway"), metavar="PATH")
    parser.add_argument("--twin", action="store_true", help="simulate it instead, and keep nothing: half a minute")
    options = parser.parse_args()
    if options.twin:
        return twin.main()
    known = [work.model.name for work in search.WORKS]
    if unknown := set(options.works) - set(known):
        parser.error(f"no work is called {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    stamped = results.stamp("quick" if options.quick else "full", "batching")
    stamped["command"] = shlex.join(["python", "-m", "bench.batching", *sys.argv[1:]])
    works = [work for work in search.WORKS if not options.works or work.model.name in options.works]
    notes = Notes(stamped, [work.model.name for work in works])
    rows = [] if options.fresh else notes.read()
    started_s = time.monotonic()
    seconds, rounds, pairs = (0.2, 2, 3) if options.quick else (0.4, 4, 11)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every finally runs and no server stays
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        context = Context(options.quick, options.gateway, None, Path(scratch), started_s)
        if rows:
            context.say(f"goes on with a run that has {len(rows)} loads; --fresh begins anew")
        try:
            for work in works:
                done = [row["load"].split(",")[0] for row in rows if row["work"] == work.model.name]
                for found in search.run(context, work, seconds, rounds, pairs, done):
                    rows.append(found.as_dict())
                    notes.write(rows)
        except BenchError as error:
            print(f"bench.batching: {error}", file=sys.stderr)
            return 1
    stamped["seconds"] = round(time.monotonic() - started_s)
    print(table(rows))
    notes.forget()
    if not options.quick and not options.no_save:
        path = results.dated(stamped, FOLDER)
        results.write(path, {"stamp": stamped, "rows": rows})
        print(f"kept as {os.path.relpath(path)}")
    return 0


class Notes:
    """What a run has measured so far, outside the repository."""

    def __init__(self, stamped: dict[str, Any], works: list[str]) -> None:
        cache = Path(os.environ.get("GATEWAY_BENCH_CACHE") or Path.home() / ".cache" / "gateway-bench")
        self.path = cache / "batching.json"
        self._of = {key: stamped[key] for key in ("commit", "dirty", "mode", "cpu", "cores")} | {"works": works}

    def read(self) -> list[dict[str, Any]]:
        """Nothing unless it is of the same code, machine and works."""
        try:
            noted = json.loads(self.path.read_text())
            return list(noted["rows"]) if noted["of"] == self._of and not self._of["dirty"] else []
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def write(self, rows: list[dict[str, Any]]) -> None:
        results.write(self.path, {"of": self._of, "rows": rows})

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown. Of latencies the share is best / eager, so that above 1 eager is the better in every row."""
    lines = [
        "| work | load | best fixed setting | eager, of it (above 1: better) | range of pairs | target |",
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
