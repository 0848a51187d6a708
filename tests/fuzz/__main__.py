"""`python -m tests.fuzz --seconds 300`: the long run. Findings are written to --findings;
--keep rewrites the small corpus.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from tests.fuzz.loop import CORPUS, fuzz, kept
from tests.fuzz.targets import TARGETS

KEEP = 60
"""Inputs of a corpus: the shortest of each behaviour, the rarest behaviours first come, first kept."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each target (default 60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument(
        "--findings", type=Path, default=Path("build/fuzz"), help="folder for inputs that found something"
    )
    parser.add_argument(
        "--keep", action="store_true", help="rewrite tests/fuzz/corpus with one input for each behaviour"
    )
    wishes = parser.parse_args()
    n_findings = 0
    for target in wishes.target or TARGETS:
        run = fuzz(target, wishes.seed, seconds=wishes.seconds)
        print(
            f"{target}: {run.n_runs} runs, {len(run.behaviours)} behaviours, {len(run.findings)} findings", flush=True
        )
        for stuff, error in run.findings:
            n_findings += 1
            wishes.findings.mkdir(parents=True, exist_ok=True)
            file = wishes.findings / f"{target}-{hashlib.sha256(stuff).hexdigest()[:12]}"
            file.write_bytes(stuff)
            print(f"  {file}: {type(error).__name__}: {error}")
        if wishes.keep:
            small = sorted((stuff for stuff in run.behaviours.values() if len(stuff) < 600), key=len)
            step = max(1, len(small) // KEEP)
            for file in (CORPUS / target).iterdir():
                file.unlink()
            for stuff in small[::step][:KEEP]:
                (CORPUS / target / hashlib.sha256(stuff).hexdigest()[:12]).write_bytes(stuff)
            print(f"  kept {len(kept(target))} of {len(run.behaviours)}")
    return 1 if n_findings else 0


if __name__ == "__main__":
    sys.exit(main())
