"""A real worker process whose routes a test sets: what an agent does with a store, done with lines on stdin and stdout.

python -m tests.support.routedworker OPTIONS      a line {"model": route, ...} in; {"faults": {...}} out
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import uvloop

from tests.support.conditions import eventually
from tests.support.gatewayprocess import ROOT, START_S, free_port

EXIT_S = 60


class RoutedWorker:
    """Ready when the context is entered."""

    def __init__(self, models: Path, log: Path, **options: Any) -> None:
        self.port, self.grpc_port = free_port(), free_port()
        self._log, self._revision = log, 0
        self._options = {
            "models": str(models),
            "port": self.port,
            "grpc_port": self.grpc_port,
            "log_format": "json",
            **options,
        }

    def __enter__(self) -> RoutedWorker:
        read_fd, write_fd = os.pipe()
        command = [sys.executable, "-m", __name__, json.dumps({**self._options, "control_fd": write_fd})]
        path = [part for part in (os.environ.get("PYTHONPATH"),) if part]  # a debug build's copy goes first
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join((*path, str(ROOT)))},
                pass_fds=(write_fd,),
                text=True,
            )
        os.close(write_fd)
        os.set_blocking(read_fd, False)
        said = b""

        def is_ready() -> bool:
            nonlocal said
            assert self.process.poll() is None, f"the worker ended with {self.process.returncode}:\n{self.log}"
            with contextlib.suppress(BlockingIOError):
                said += os.read(read_fd, 65536)
            return b'"ready"' in said

        eventually(is_ready, "the worker is ready", START_S)
        self._control_fd = read_fd
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            assert self.process.wait(EXIT_S) == 0, self.log
        finally:
            self.process.kill()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe:
                    pipe.close()
            os.close(self._control_fd)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer

    def route(self, **routes: Any) -> dict[str, str]:
        """Put these in force, in place of those before; what in them does not serve."""
        self._revision += 1
        return dict(self._ask({"routes": routes, "revision": self._revision}))

    def statistics(self, model: str, version: str) -> dict[str, Any]:
        """Of its lane."""
        return dict(self._ask({"statistics": [model, version]}))


async def _live(options: Any) -> int:
    from gateway.routing.route import Route
    from gateway.serving.routing import RouteInForce
    from gateway.serving.worker import Worker

    worker = Worker(options)
    loop = asyncio.get_running_loop()

    def answer_to(question: dict[str, Any]) -> Any:
        if "routes" not in question:
            return worker.loader.lanes[tuple(question["statistics"])].statistics()
        revision = question["revision"]
        given = {model: Route.model_validate(route) for model, route in question["routes"].items()}
        return worker.routing.apply({model: RouteInForce(route, revision) for model, route in given.items()}, revision)

    def on_line() -> None:
        line = sys.stdin.readline()
        if not line:
            loop.remove_reader(sys.stdin.fileno())
            return
        try:
            answer = answer_to(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)

    loop.add_reader(sys.stdin.fileno(), on_line)
    return await worker.run()


def main() -> int:
    from gateway.config.deployment import WorkerOptions
    from gateway.observability import logs

    options = WorkerOptions.model_validate_json(sys.argv[1])
    logs.setup(options.log_format, worker=options.worker)
    return uvloop.run(_live(options))


if __name__ == "__main__":
    sys.exit(main())
