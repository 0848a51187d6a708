"""`python -m bench.rollouts`: a gateway, callers, rollouts; prints what it found, keeps it in bench/rollouts/results.

detection    the median and p99 from the last request that the judge needs to weight 0 everywhere; requests harmed
alike        50 rollouts of a version's twin, from acceptance to promotion: how many go back
controller   what the control process takes with 50 live rollouts
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import results
from bench.rollouts import detection, many
from bench.rollouts.world import default_gateway

FOLDER = Path(__file__).parent / "results"
STUDIES = ("detection", "alike", "controller")
TARGET_S = 1.5


def main() -> int:
    options = parse_arguments()
    names = options.names or list(STUDIES)
    started_s = time.monotonic()
    stamped = results.stamp("quick" if options.quick else "full", "rollouts")
    stamped["command"] = shlex.join(["python", "-m", "bench.rollouts", *sys.argv[1:]])

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started_s:5.0f} s] {text}", file=sys.stderr, flush=True)

    studies: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            say(name)
            folder = Path(scratch, name)
            if name == "detection":
                records = list(detection.run(options.gateway, folder, 2 if options.quick else 12, say))
                studies[name] = summary(records) | {"each": records}
            elif name == "alike":
                studies[name] = many.alike(options.gateway, folder, 10 if options.quick else 50, say)
            else:
                studies[name] = many.controller(options.gateway, folder, 10 if options.quick else 50, say)
    document = {"stamp": stamped | {"seconds": round(time.monotonic() - started_s)}, "studies": studies}
    shown = {name: {key: value for key, value in found.items() if key != "each"} for name, found in studies.items()}
    print(json.dumps(document if options.json else shown, indent=1))
    if not options.no_save:
        for name, found in studies.items():
            path = FOLDER / f"{name}{'-quick' if options.quick else ''}.json"
            results.write(path, {"stamp": document["stamp"], name: found})
    return 0


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """By case, of those that were taken back."""
    found: dict[str, Any] = {"target_s": TARGET_S}
    for case in detection.CASES:
        mine = [record for record in records if record["case"] == case]
        took = sorted(record["took_s"] for record in mine if record["took_s"] is not None)
        harmed = [(record["harmed"], record["least"]) for record in mine if record["least"]]
        found[case] = {
            "rollouts": len(mine),
            "taken_back": sum(record["stage"] in ("rolled_back", "rolling_back") for record in mine),
            "median_s": round(float(np.median(took)), 3) if took else None,
            "p99_s": round(float(np.quantile(took, 0.99)), 3) if took else None,
            "worst_s": took[-1] if took else None,
            "harmed_median": float(np.median([a for a, _ in harmed])) if harmed else None,
            "least_median": float(np.median([b for _, b in harmed])) if harmed else None,
        }
    return found


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench.rollouts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="STUDY", choices=[[], *STUDIES], help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rollouts: does it run?")
    parser.add_argument("--json", action="store_true", help="all records on stdout; progress stays on stderr")
    parser.add_argument("--no-save", action="store_true", help="keep nothing")
    parser.add_argument("--gateway", type=Path, default=default_gateway(), help="the gateway command to start")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
