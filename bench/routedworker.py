"""`python -m bench.routedworker`: one worker with routes from its start, for what needs a route and no control plane.

Ends on SIGTERM like any worker; then it writes what its shadows counted to --report, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from bench.processes import Child, free_port
from bench.server import Server, wait_until_serving
from gateway.config.deployment import WorkerOptions
from gateway.routing.route import parse
from gateway.serving import worker as workers
from gateway.serving.routing import RouteInForce


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.routedworker", description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--routes", default="{}", help="JSON: {model: route}")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    return uvloop.run(_live(options))


async def _live(options: argparse.Namespace) -> int:
    ports = {"port": free_port(), "grpc_port": options.port}
    worker = workers.Worker(WorkerOptions(models=options.models, **ports))
    routes = {model: RouteInForce(parse(route), 1) for model, route in json.loads(options.routes).items()}
    serving = asyncio.ensure_future(worker.run())
    while not serving.done() and not (hasattr(worker, "catalog") and worker.catalog.started):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    if not serving.done() and routes:
        faults = worker.routing.apply(routes, 1)
        if faults:
            raise SystemExit(f"bench: {faults}")
    code = await serving
    if options.report:
        counts = {"/".join(key): asdict(found) for key, found in worker.shadows.counts().items()}
        options.report.write_text(json.dumps(counts))
    return code


@contextmanager
def routed(
    scratch: Path, models: Path, name: str, python: str, routes: dict[str, Any]
) -> Iterator[tuple[Server, Path]]:
    """Such a worker, SERVING, and where its report will be once it has been stopped."""
    port, report = free_port(), scratch / f"{name}.json"
    command = [python, "-m", "bench.routedworker", "--models", str(models), "--port", str(port)]
    child = Child([*command, "--routes", json.dumps(routes), "--report", str(report)], scratch / f"{name}.log")
    start_s = time.perf_counter()
    try:
        wait_until_serving(port, child)
        yield Server(port, child, time.perf_counter() - start_s), report
    finally:
        with contextlib.suppress(Exception):
            child.terminate()
        child.kill()


if __name__ == "__main__":
    raise SystemExit(main())
