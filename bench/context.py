"""What a benchmark is given: the options, a scratch folder, the server under test, and a way to say how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import server
from bench.models import Model
from bench.peers import mlserver
from bench.peers.limit import Limit
from bench.peers.limit import limit as started_limit


@dataclass(slots=True)
class Context:
    """`quick`: fewer rounds and requests, to see that it works; its figures are kept apart."""

    quick: bool
    gateway: Path
    target: str | None
    scratch: Path
    started_s: float  # time.monotonic()

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 5

    def scaled(self, amount: int) -> int:
        """`amount` of work, or a quarter of it when quick."""
        return max(1, amount // 4) if self.quick else amount

    def say(self, text: str) -> None:
        """Progress, to stderr: what runs now."""
        print(f"[{time.monotonic() - self.started_s:5.0f} s] {text}", file=sys.stderr, flush=True)

    @contextmanager
    def server(self, *models: Model) -> Iterator[server.Server]:
        """The gateway with these models, started for this; or the --target."""
        if self.target is not None:
            yield server.target(self.target)
            return
        self.say(f"starting {self.gateway.name} with {', '.join(model.name for model in models)}")
        with server.gateway(self.gateway, self.scratch, models) as running:
            yield running

    @contextmanager
    def limit(self, answer_bytes: int, *, wide_windows: bool = False) -> Iterator[Limit]:
        with started_limit(self.scratch, answer_bytes, wide_windows=wide_windows) as running:
            yield running

    @contextmanager
    def mlserver(self, model: Model) -> Iterator[int]:
        self.say("starting MLServer")
        with mlserver.serving(self.scratch, model) as port:
            yield port

    def body_file(self, name: str, body: bytes) -> Path:
        path = self.scratch / f"{name}.body"
        path.write_bytes(body)
        return path
