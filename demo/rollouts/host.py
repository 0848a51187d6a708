"""The gateway of the demo: `gateway serve` with two workers, as a user starts it, on ports that are free."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

START_S, STOP_S, ASK_S = 60.0, 20.0, 10.0
ACTOR = "demo"


class Failed(Exception):
    """The demo cannot go on; the text says why, for a person."""


class Host:
    """Serves while its context is open. `folder` takes the log, the state and nothing that was there before."""

    def __init__(self, models: Path, folder: Path, workers: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self.state = folder / "gateway.log", folder / "state"
        command = [sys.executable, "-m", "gateway", "serve", "--models", str(models), "--state", str(self.state)]
        command += ["--workers", str(workers), "--log-format", "json"]
        command += [word for port in ("--port", "--grpc-port", "--control-port") for word in (port, "0")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.port = self.control_port = 0

    def __enter__(self) -> Host:
        ready = self._until(lambda: self._event("gateway ready"), "the gateway did not become ready")
        self.port, self.control_port = int(ready["grpc_port"]), int(ready["control_port"])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    def wait_routed(self, *models: str) -> None:
        def routed() -> bool:
            return all(self.ask("GET", "v1", "routes", model, may_fail=True) for model in models)

        self._until(routed, "the models got no routes")

    def ask(
        self,
        method: str,
        *path: str,
        body: Any = None,
        query: dict[str, Any] | None = None,
        may_fail: bool = False,
    ) -> Any:
        """The control plane's answer, as JSON. Failed has its own words; None instead, if it `may_fail`."""
        url = "/".join((self.url, *(quote(each, safe="") for each in path)))
        url += f"?{urlencode(query)}" if query else ""
        headers = {"Content-Type": "application/json", "X-Actor": ACTOR}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=ASK_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if may_fail:
                return None
            raise Failed(f"{method} /{'/'.join(path)}: {error.code}: {text[:500]}") from None
        except OSError as error:
            if may_fail:
                return None
            raise Failed(f"{method} /{'/'.join(path)}: {error}") from None

    def _event(self, name: str) -> dict[str, Any] | None:
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found: dict[str, Any] = json.loads(line)
                if found.get("event") == name:
                    return found
        return None

    def _until(self, probe: Any, complaint: str) -> Any:
        deadline_s = time.monotonic() + START_S
        while not (answer := probe()):
            if self.process.poll() is not None:
                raise Failed(f"the gateway ended with {self.process.returncode}; its log is {self.log}")
            if time.monotonic() > deadline_s:
                raise Failed(f"{complaint} within {START_S:g} s; its log is {self.log}")
            time.sleep(0.05)
        return answer
