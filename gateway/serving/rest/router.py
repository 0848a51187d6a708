"""Path and method to handler. Patterns are compiled once; a path seen before costs one look-up."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from gateway.serving.rest.errors import HttpError
from gateway.serving.rest.message import Request
from gateway.serving.wording import quoted

Handler = Callable[[Request], None]

MAX_REMEMBERED = 4096
"""Paths kept resolved, then all are forgotten: those of a thousand models fit, and made-up names do not pile up."""

MAX_TARGET_BYTES = 512
"""Of a path worth remembering."""

DOCUMENT_PATH = "/v2/openapi.json"


class Route:
    """One path pattern: `/v2/models/{model}/ready`, and its handlers by method."""

    def __init__(self, pattern: str, **handlers: Handler) -> None:
        self.pattern = pattern
        self.handlers = {method.encode(): handler for method, handler in handlers.items()}
        if b"GET" in self.handlers:
            self.handlers[b"HEAD"] = self.handlers[b"GET"]
        self.allow = b"Allow: " + b", ".join(sorted(self.handlers)) + b"\r\n"
        self.parts = tuple(
            None if part.startswith("{") else part.encode() for part in pattern.removeprefix("/").split("/")
        )

    def match(self, parts: list[bytes]) -> tuple[str, ...] | None:
        """What stands for the {}s; None when it is another path. Names are decoded after the path was split: %2F is
        part of a name.
        """
        args = []
        for wanted, got in zip(self.parts, parts, strict=True):
            if wanted is not None:
                if wanted != got:
                    return None
            elif not got:
                return None
            else:
                try:
                    args.append(unquote_to_bytes(got).decode())
                except UnicodeDecodeError:
                    return None
        return tuple(args)


class Router:
    """`find` raises HttpError 404 or 405; routes are tried in their order."""

    def __init__(self, routes: list[Route]) -> None:
        self.routes = routes
        self._by_length: dict[int, list[Route]] = {}
        for route in routes:
            self._by_length.setdefault(len(route.parts), []).append(route)
        self._remembered: dict[bytes, tuple[Route, tuple[str, ...]]] = {}

    def find(self, method: bytes, target: bytes) -> tuple[Handler, tuple[str, ...]]:
        found = self._remembered.get(target)
        if found is None:
            found = self._resolve(target)
        route, args = found
        handler = route.handlers.get(method)
        if handler is None:
            allowed = route.allow[7:-2].decode()
            raise HttpError(405, f"method: got {method.decode('latin-1')}, expected {allowed}", route.allow)
        return handler, args

    def _resolve(self, target: bytes) -> tuple[Route, tuple[str, ...]]:
        path = target.partition(b"?")[0].partition(b"#")[0]
        if path[:1] != b"/":  # RFC 9112 3.2.2: servers take the absolute form too
            scheme, _, rest = path.partition(b"://")
            path = b"/" + rest.partition(b"/")[2] if scheme.lower() in (b"http", b"https") else path
        parts = path[1:].split(b"/")
        if len(parts) > 1 and parts[-1] == b"" and len(parts) == 2:
            parts.pop()  # /v2/
        for route in self._by_length.get(len(parts), ()):
            args = route.match(parts)
            if args is not None:
                if len(target) <= MAX_TARGET_BYTES:
                    if len(self._remembered) >= MAX_REMEMBERED:
                        self._remembered.clear()
                    self._remembered[target] = route, args
                return route, args
        shown = path.decode("latin-1")
        raise HttpError(404, f"path: got {quoted(shown)}, which is none of this server's; {DOCUMENT_PATH} lists them")
