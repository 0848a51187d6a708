"""`python -m bench.profile.worker`: one worker of the gateway, the process that is looked at.

With --inline every batch runs on the loop, however slow: under callgrind all is fifty times slower, and would go to a
thread that it does not go to in earnest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import uvloop

from bench.processes import free_port
from gateway.batching import policy
from gateway.config.deployment import WorkerOptions
from gateway.serving.worker import Worker


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.profile.worker", description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--inline", action="store_true")
    options = parser.parse_args()
    if options.inline:
        policy.INLINE_BELOW_US = 10**9
    worker = Worker(WorkerOptions(models=options.models, port=free_port(), grpc_port=options.port))
    return uvloop.run(worker.run())


if __name__ == "__main__":
    raise SystemExit(main())
