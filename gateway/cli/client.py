"""How the operator's commands talk to the control plane, and the flags that they share.

A refusal of the server is told in its own words, one line for each wrong field; a server that is not there, with what
to start or which flag to mend.
"""

from __future__ import annotations

import getpass
import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote, urlencode, urlsplit

import typer

from gateway.cli.failure import Refused, reported
from gateway.errors import ConfigError

DEFAULT_SERVER = "http://127.0.0.1:8002"
READ_PATIENCE_S = 20.0
CHANGE_PATIENCE_S = 400.0
"""A route to a version that is not loaded waits until it is; the server gives up before."""

Server = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="URL",
        envvar="GATEWAY_SERVER",
        show_envvar=False,
        help="The control plane (or $GATEWAY_SERVER).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's answer as JSON.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it goes into the audit log.", show_default=False)]
Actor = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="NAME",
        envvar="GATEWAY_ACTOR",
        show_envvar=False,
        help="Who asks, for the audit log (or $GATEWAY_ACTOR). [default: user@machine]",
        show_default=False,
    ),
]


class ServerRefused(Refused):
    """The control plane said no: `status` and the whole `body`."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(_in_words(status, body))
        self.status, self.body = status, body


class Client:
    """One command's view of the control plane at `server`. ConfigError: that is no URL."""

    def __init__(self, server: str, actor: str = "") -> None:
        self.server = server.rstrip("/")
        self._actor = actor
        try:
            parts = urlsplit(self.server)
            self._scheme, self._host, port = parts.scheme, parts.hostname or "", parts.port
        except ValueError:
            self._scheme, self._host, port, parts = "", "", None, urlsplit("")
        if self._scheme not in ("http", "https") or not self._host or parts.query:
            raise ConfigError(f"--server: got {server!r}, expected a URL such as {DEFAULT_SERVER}")
        self._port = port or (443 if self._scheme == "https" else 80)
        self._prefix = parts.path

    def get(self, *path: str, patience_s: float | None = None, **query: Any) -> Any:
        return self._ask("GET", path, query, None, patience_s or READ_PATIENCE_S)

    def put(self, *path: str, body: Any, **query: Any) -> Any:
        return self._ask("PUT", path, query, body, CHANGE_PATIENCE_S)

    def post(self, *path: str, body: Any, **query: Any) -> Any:
        return self._ask("POST", path, query, body, CHANGE_PATIENCE_S)

    def _ask(self, method: str, path: tuple[str, ...], query: Mapping[str, Any], body: Any, patience_s: float) -> Any:
        given = {name.rstrip("_"): value for name, value in query.items() if value is not None}
        target = self._prefix + "/" + "/".join(quote(part, safe="") for part in path)
        target += f"?{urlencode(given)}" if given else ""
        headers = {"Accept": "application/json"}
        if method != "GET":
            headers |= {"Content-Type": "application/json", "X-Actor": self._actor_header()}
        connection = self._connection(patience_s)
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            status, content = answer.status, answer.read()
        except TimeoutError:
            raise Refused(f"no answer from {self.server} (--server) within {patience_s:g} s") from None
        except socket.gaierror as error:
            raise Refused(f"{self.server} (--server): host {self._host!r}: {error.strerror}") from None
        except ConnectionRefusedError:
            raise Refused(
                f"nothing answers at {self.server}: start it with `gateway serve`, or say where it is with --server "
                "URL or $GATEWAY_SERVER (it is the control port, 8002 unless told otherwise)"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            text = str(error) or type(error).__name__
            raise Refused(f"{self.server} (--server): {text}; is this the control port?") from None
        finally:
            connection.close()
        return self._parsed(status, content)

    def _parsed(self, status: int, content: bytes) -> Any:
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        if 200 <= status < 300 and body is not None:
            return body
        if isinstance(body, dict) and isinstance(body.get("error"), str) and "faults" in body:
            raise ServerRefused(status, body)
        start = content[:80].decode("utf-8", "replace").strip()
        raise Refused(
            f"{self.server} (--server) answered {status} with {shown(start)!r}, which is no control plane's answer: "
            "it is on the control port, 8002 unless told otherwise"
        )

    def _connection(self, patience_s: float) -> http.client.HTTPConnection:
        if self._scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=patience_s, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=patience_s)

    def _actor_header(self) -> str:
        name = self._actor or _user()
        return "".join(letter if letter.isprintable() and letter.isascii() else "?" for letter in name)


@contextmanager
def answered() -> Iterator[None]:
    """Around a command: its errors as text and exit code, and a pipe that closes early is no error."""
    with reported():
        try:
            yield
        except BrokenPipeError:
            import sys

            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit from None


def shown(text: str) -> str:
    """Without what would move a terminal's cursor: names and reasons come from other people."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def _in_words(status: int, body: Mapping[str, Any]) -> str:
    """A line for each wrong field; else the server's text."""
    faults = [fault for fault in body.get("faults") or [] if isinstance(fault, dict)]
    if status == 422 and faults:
        return "\n".join(shown(": ".join(filter(None, (fault.get("field"), fault.get("message"))))) for fault in faults)
    return shown(str(body["error"]))
