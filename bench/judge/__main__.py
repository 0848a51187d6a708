"""`python -m bench.judge`: simulates, prints tables, and keeps figures and picture in bench/judge/results."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench import results
from bench.judge import comparison, detection, false_alarms, picture, report

FOLDER = Path(__file__).parent / "results"
ROLLOUTS = {"false_alarms": 4000, "detection": 1000, "comparison": 4000}
QUICK = 10  # times fewer with --quick
STUDIES: dict[str, Callable[..., Sequence[Any]]] = {
    "false_alarms": false_alarms.run,
    "detection": detection.run,
    "comparison": comparison.run,
}


def main() -> int:
    options = parse_arguments()
    names = options.names or list(STUDIES)
    console = Console(stderr=True, highlight=False)
    started_s = time.monotonic()
    mode = "quick" if options.quick else "full"
    stamped = results.stamp(mode, "judge")
    stamped["command"] = shlex.join(["python", "-m", "bench.judge", *sys.argv[1:]])
    stamped["seed"] = options.seed
    studies: dict[str, list[dict[str, Any]]] = {}
    with console.status("") as status:

        def say(text: str) -> None:
            line = f"[{time.monotonic() - started_s:5.0f} s] {text}"
            status.update(line)
            if not console.is_terminal:
                console.print(line, markup=False)

        for place, (name, study) in enumerate(STUDIES.items()):
            if name in names:
                rollouts = ROLLOUTS[name] // (QUICK if options.quick else 1)
                rng = np.random.default_rng([options.seed, place])  # each study has the same figures run alone
                studies[name] = [row.as_dict() for row in study(rng, rollouts, say)]
    document = {"stamp": stamped | {"seconds": round(time.monotonic() - started_s)}, "studies": studies}
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        report.show(document)
    if not options.no_save:
        folder = options.folder or FOLDER
        path = folder / f"judge{'-quick' if options.quick else ''}.json"
        if set(names) == set(STUDIES):
            results.write(path, document)
            console.print(f"kept as {os.path.relpath(path)}")
        if "comparison" in studies and not options.quick:
            console.print("kept as", *map(os.path.relpath, picture.draw(studies["comparison"], folder)))
    broken = [row for row in studies.get("false_alarms", []) if row["is_kept"] is False]
    return 1 if broken else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.judge", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="STUDY", choices=[[], *STUDIES], help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} times fewer rollouts: does it run?")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout; progress stays on stderr")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers; the same seed, the same figures")
    parser.add_argument("--no-save", action="store_true", help="keep nothing")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep it there instead of bench/judge/results")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
