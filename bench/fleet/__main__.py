"""`python -m bench.fleet`: what befalls a fleet of two real tritonservers under load, with counts.

python -m bench.fleet [--n 2000] [--connects 10000] [--only killed,stopped] [--workers 2] [--out FILE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import results
from bench.fleet.scenarios import OF_WORKERS, SCENARIOS
from bench.fleet.world import World

RESULT = Path(__file__).parent / "results" / "fleet.json"
RESULT_OF_WORKERS = RESULT.with_name("workers.json")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("--n", type=int, default=2000, help="right answers in each phase of a scenario")
    parser.add_argument("--connects", type=int, default=10_000, help="connections of the scenario `connects`")
    parser.add_argument("--only", help="scenarios, with commas between (default: all)")
    parser.add_argument(
        "--workers", type=int, default=1, help="of the gateway; with several there is one more scenario"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    known = OF_WORKERS if arguments.workers > 1 else SCENARIOS
    names = arguments.only.split(",") if arguments.only else [*known]
    if unknown := set(names) - set(known):
        parser.error(f"--only: got {', '.join(sorted(unknown))}, expected some of {', '.join(known)}")
    found: dict[str, Any] = {}
    print(f"{'scenario':<12}{'sent':>9}{'right':>9}{'refused':>9}{'wrong':>7}{'slowest ms':>12}{'seconds':>9}")
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, World(Path(folder), arguments.workers) as world:
        for name in names:
            began_s = time.monotonic()
            counts = known[name](world, arguments.connects if name == "connects" else arguments.n)
            seconds = time.monotonic() - began_s
            found[name] = {**vars(counts), "seconds": round(seconds, 1)}
            row = f"{counts.sent:>9}{counts.right:>9}{counts.n_refused:>9}{counts.wrong:>7}{counts.slowest_ms:>12.0f}"
            print(f"{name:<12}{row}{seconds:>9.1f}", flush=True)
            for text, n in counts.refused.items():
                print(f"    refused {n}: {text}")
    results.write(
        arguments.out or (RESULT if arguments.workers == 1 else RESULT_OF_WORKERS),
        {"stamp": results.stamp("fleet", "gateway"), "scenarios": found},
    )
    return 1 if any(each["wrong"] for each in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
