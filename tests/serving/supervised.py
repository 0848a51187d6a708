"""A real supervisor process over tiny workers that speak the control protocol, and do what a few lines say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import gateway
from tests.support.conditions import eventually

CODE = Path(gateway.__file__).parents[1]
"""The tree under test: its source, or a debug build of it."""

SUPERVISOR = """
import json, os, sys
from gateway.config.deployment import Deployment
from gateway.errors import GatewayError
from gateway.observability import logs
from gateway.serving import supervisor

settings, worker = json.loads(sys.argv[1]), sys.argv[2]
supervisor.DRAIN_GRACE_S = 0.2
deployment = Deployment(**settings)
python = os.environ.get("WORKER_PYTHON", sys.executable)
logs.setup("json")
try:
    sys.exit(supervisor.run(deployment, lambda options: [python, "-S", worker, options.model_dump_json()]))
except GatewayError as error:
    print("refused:", error, file=sys.stderr)
    sys.exit(1)
"""

WORKER = """
import contextlib, json, os, signal, sys
options = json.loads(sys.argv[1])
here = os.path.dirname(sys.argv[0])

class Asked(BaseException):
    pass

def on_term(*_):
    raise Asked

def say(event, **fields):
    with contextlib.suppress(BrokenPipeError):
        os.write(options["control_fd"], json.dumps({"event": event, **fields}).encode() + b"\\n")

def note(**fields):
    with open(os.path.join(here, "notes"), "a") as notes:
        notes.write(json.dumps({"worker": options["worker"], "pid": os.getpid(), **fields}) + "\\n")

def starts():
    with open(os.path.join(here, "notes")) as notes:
        return sum(json.loads(line).get("did") == "start" for line in notes)

def serve():
    say("listening", port=options["grpc_port"])
    say("ready")
    wait()

def wait():
    try:
        os.read(options["lifeline_fd"], 1)
        note(did="lifeline")
    except Asked:
        note(did="asked")
    say("drained")

signal.signal(signal.SIGTERM, on_term)
note(did="start", **options)
"""


class Supervised:
    """`gateway.serving.supervisor.run` in a process of its own."""

    def __init__(self, folder: Path, body: str = "serve()", env: dict[str, str] | None = None, **settings: Any) -> None:
        self._folder = folder
        worker = folder / "worker.py"
        worker.write_text(WORKER + textwrap.dedent(body))
        deployment = {"models": str(folder), "port": 0, "grpc_port": 0, "drain_s": 5, **settings}
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISOR, json.dumps(deployment), str(worker)],
                stdout=out,
                stderr=err,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(CODE), **(env or {})},
            )

    def __enter__(self) -> Supervised:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for line in self.notes("start"):
            if is_alive(line["pid"]):
                os.kill(line["pid"], signal.SIGKILL)

    @property
    def out(self) -> str:
        return (self._folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self._folder / "err").read_text()

    def notes(self, did: str) -> list[dict[str, Any]]:
        path = self._folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [note for note in map(json.loads, lines) if note["did"] == did]

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.err.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    def until_announced(self) -> Supervised:
        eventually(lambda: "stops it" in self.out or self.process.poll() is not None, "the banner")
        assert self.process.poll() is None, self.err
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        return self.process.wait(timeout=60)


def is_alive(pid: int) -> bool:
    """A zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
