"""`python -m demo.triton setup`: get tritonserver, once."""

from __future__ import annotations

import sys

from demo.triton import wheel


def main() -> int:
    if sys.argv[1:] != ["setup"]:
        print(f"usage: python -m demo.triton setup; got {' '.join(sys.argv[1:]) or 'nothing'}", file=sys.stderr)
        return 2
    if reason := wheel.why_not():
        print(f"no tritonserver here, so nothing that needs one is tested: {reason}")
        return 0
    try:
        wheel.install()
    except wheel.NoTriton as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
