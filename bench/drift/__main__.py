"""`python -m bench.drift`: simulates, prints tables, and keeps figures and picture in bench/drift/results."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench import results
from bench.drift import detection, false_alarms, picture, realdata, report, worlds

FOLDER = Path(__file__).parent / "results"
STREAMS, REPETITIONS = 4, 10
STUDIES = ("false_alarms", "detection", "realdata")


def main() -> int:
    options = parse_arguments()
    console = Console(stderr=True, highlight=False)
    folder = options.folder or FOLDER
    path = folder / "drift.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    for name in options.names or STUDIES:
        parts = [f"false_alarms/{each.name}" for each in worlds.WORLDS if options.world in (None, each.name)]
        for part in parts if name == "false_alarms" else [name]:
            began_s = time.monotonic()
            with console.status(part) as status:
                rows = _rows(part, options, status.update)
            stamped = results.stamp("quick" if options.quick else "full", "drift")
            stamped |= {"command": shlex.join(["python", "-m", "bench.drift", *sys.argv[1:]]), "seed": options.seed}
            stamped["seconds"] = round(time.monotonic() - began_s)
            kept["parts"][part] = {"stamp": stamped, "rows": [row.as_dict() for row in rows]}
            if not options.no_save:
                results.write(path, kept)
    studies = {name: [row for part, each in kept["parts"].items() if part.split("/")[0] == name for row in each["rows"]]
               for name in STUDIES}  # fmt: skip
    if options.json:
        print(json.dumps(kept, indent=1))
    else:
        report.show(studies)
    if not options.no_save and studies["false_alarms"]:
        console.print("kept as", os.path.relpath(path), *map(os.path.relpath, picture.draw(studies, folder)))
    return 1 if any(row["is_kept"] is False for row in studies["false_alarms"]) else 0


def _rows(part: str, options: argparse.Namespace, say: Any) -> list[Any]:
    study, _, world = part.partition("/")
    # Each part has a generator of its own: run alone it gives the same figures.
    rng = np.random.default_rng([options.seed, *part.encode()])
    if study == "false_alarms":
        return list(false_alarms.run(rng, 1 if options.quick else STREAMS, say, world))
    if study == "detection":
        return list(detection.run(rng, 2 if options.quick else REPETITIONS, say))
    return list(realdata.run(rng, say))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.drift", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="STUDY", choices=[[], *STUDIES], help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--world", choices=[each.name for each in worlds.WORLDS], help="of false_alarms, this one")
    parser.add_argument("--quick", action="store_true", help="few streams: does it run?")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout; progress stays on stderr")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers; the same seed, the same figures")
    parser.add_argument("--no-save", action="store_true", help="keep nothing")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep it there instead of bench/drift/results")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
