"""`python -m bench`: runs all benchmarks, or those named, one after the other, and keeps what they measured."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # before grpc is imported: it logs each refused connection

import bench.load
import bench.micro
from bench import history, report, results
from bench.context import Context
from bench.errors import BenchError, NotMeasured
from bench.figure import Figure
from bench.micro import harness
from bench.models import write_repository


def find_benchmarks() -> dict[str, ModuleType]:
    """Every module load_* and bench_*, by name, load first."""
    found = {}
    for package, prefix in ((bench.load, "load_"), (bench.micro, "bench_")):
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.startswith(prefix):
                found[module.name] = importlib.import_module(f"{package.__name__}.{module.name}")
    return found


def chosen(names: list[str], known: dict[str, ModuleType]) -> dict[str, ModuleType]:
    """The benchmarks whose name contains one of `names`; all of them when none is given."""
    for name in names:
        if not any(name in module for module in known):
            print(f"bench: no benchmark is called {name!r}; there are: {', '.join(known)}", file=sys.stderr)
            sys.exit(2)
    return {key: module for key, module in known.items() if not names or any(name in key for name in names)}


def main() -> int:
    options = parse_arguments()
    known = find_benchmarks()
    if options.list:
        for name, module in known.items():
            print(f"{name:32} {(module.__doc__ or '').strip().splitlines()[0]}")
        return 0
    if options.history:
        return history.main()
    if options.write_models:
        print(write_repository(options.write_models))
        return 0
    selected = chosen(options.names, known)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every finally runs and no server stays
    stamped = results.stamp("quick" if options.quick else "full", "target" if options.target else "gateway")
    last = results.last_records(stamped)
    figures: list[Figure] = []
    problems: dict[str, str] = {}
    is_broken = False
    started_s = time.monotonic()
    for name, module in selected.items():
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            context = Context(options.quick, options.gateway, options.target, Path(scratch), started_s)
            context.say(name)
            try:
                measured = harness.run(context, module) if name.startswith("bench_") else module.run(context)
                for figure in measured:  # one by one: what came before a failure is kept
                    figures.append(figure)
            except NotMeasured as reason:
                problems[name] = f"not measured: {reason}"
            except BenchError as error:
                problems[name] = f"FAILED: {error}"
                is_broken = True
    kept = results.save(stamped, figures, problems) if figures and not options.no_save else None
    if options.json:
        print(json.dumps(results.document(stamped, figures, problems), indent=1))
    else:
        report.show(stamped, figures, problems, last)
        if kept:
            print(f"kept as {os.path.relpath(kept)}")
    return 1 if is_broken else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a benchmark's name or a part of it; default: all")
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of the work: does it run? its results are kept apart"
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout; progress stays on stderr")
    parser.add_argument("--list", action="store_true", help="show the benchmarks and end")
    parser.add_argument("--history", action="store_true", help="plot and print the kept runs' shares, and end")
    parser.add_argument("--no-save", action="store_true", help="keep no file in bench/results")
    parser.add_argument(
        "--gateway", type=Path, default=Path(sys.executable).with_name("gateway"), metavar="PATH",
        help="the gateway command to start (default: the one beside this Python)",
    )  # fmt: skip
    parser.add_argument(
        "--target",
        metavar="127.0.0.1:PORT",
        help="measure a server that runs already and serves --write-models' models",
    )
    parser.add_argument("--write-models", type=Path, metavar="DIR", help="write the measured models into DIR and end")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
