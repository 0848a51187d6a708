"""`python -m gateway.backends.footprint FOLDER < CONFIG`: the memory that one version adds, by itself in a process.

In a worker that serves, what a version takes cannot be told from what its neighbours do at the same moment.
"""

from __future__ import annotations

import gc
import json
import re
import sys
from pathlib import Path


def main() -> int:
    from gateway.backends import onnx
    from gateway.config.model import ModelConfig

    config = ModelConfig.model_validate_json(sys.stdin.read())
    folder = Path(sys.argv[1])
    gc.collect()
    before = resident_bytes()
    backend = onnx.load(folder, config)
    backend.warm_up()
    print(json.dumps({"added_bytes": max(0, resident_bytes() - before)}))
    return 0


def resident_bytes() -> int:
    """Of this process; 0 where nobody says."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    sys.exit(main())
