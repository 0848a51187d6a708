"""The control plane's REST interface as a test talks to it."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


class ControlClient:
    """`url` such as http://127.0.0.1:8002. A refusal is an answer, not an exception: (status, body)."""

    def __init__(self, url: str, actor: str = "ada", timeout_s: float = 100.0) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._actor, self._timeout_s = actor, timeout_s

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status, and the body as JSON."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            headers = {"X-Actor": self._actor, "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
            is_json = (answer.getheader("content-type") or "").startswith("application/json")
            return answer.status, json.loads(content) if is_json else content.decode()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The body of a 200."""
        status, body = self.ask("GET", path)
        assert status == 200, (path, status, body)
        return body

    def try_get(self, path: str) -> Any:
        """The body of a 200, or None: for probes."""
        try:
            status, body = self.ask("GET", path)
        except OSError:
            return None
        return body if status == 200 else None

    def put_route(self, model: str, route: dict[str, Any], **more: Any) -> tuple[int, Any]:
        return self.ask("PUT", f"/v1/routes/{model}", {"route": route, **more})

    def generation(self, model: str) -> int:
        """0: it has no route yet."""
        found = self.try_get(f"/v1/routes/{model}")
        return int(found["generation"]) if found else 0
