"""`python -m demo.triton setup` gets tritonserver, once; `python -m demo.triton fleet MODELS` starts some."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo.triton import fleet, wheel


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.triton", description="Real tritonservers on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="download and unpack the server, unless that is done")
    start = commands.add_parser("fleet", help="start servers that run version 2 of the model `risk`")
    start.add_argument(
        "models", type=Path, metavar="MODELS", help="the gateway's model repository, with the demo models"
    )
    start.add_argument("--servers", type=int, default=2, metavar="N", help="how many (default: 2)")
    arguments = parser.parse_args()
    reason = wheel.why_not()
    if reason and arguments.command == "setup":
        print(f"no tritonserver here, so nothing that needs one is tested: {reason}")
        return 0
    try:
        wheel.install()
        return fleet.run(arguments.models, arguments.servers) if arguments.command == "fleet" else 0
    except wheel.NoTriton as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
