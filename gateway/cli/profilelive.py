"""`gateway profile build --from-live N`: has the running gateway copy the next rows, and fetches them."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gateway.cli.failure import Refused
from gateway.errors import ConfigError

MAX_WAIT_US = 600 * 10**6
POLL_S = 0.3
_TIMEOUT_S = 60.0


@contextmanager
def live_rows(
    server: str, model: str, version: str, rows: int, wait_s: float, progress: Callable[[float], None]
) -> Iterator[Path]:
    """An npz with them, while the block lasts. Refused: the server says no, or too few come in time."""
    if not server.startswith(("http://", "https://")):
        raise ConfigError(f"--server: got {server!r}, expected an address such as http://127.0.0.1:8002")
    base = server.rstrip("/")
    made = json.loads(_ask(base, "POST", f"/v1/models/{model}/versions/{version}/captures", {"rows": rows}))
    path = f"/v1/captures/{made['id']}"
    try:
        deadline_s = time.monotonic() + wait_s
        while (captured := json.loads(_ask(base, "GET", path))["captured"]) < rows:
            if time.monotonic() >= deadline_s:
                raise Refused(
                    f"{model} version {version} answered {captured} of {rows} rows within {wait_s:g} s; "
                    f"wait longer (--wait) or ask for fewer (--from-live)"
                )
            progress(captured / rows)
            time.sleep(POLL_S)
        content = _ask(base, "GET", f"{path}/rows")
    finally:
        with suppress(Refused):
            _ask(base, "DELETE", path)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def _ask(base: str, method: str, path: str, body: Any = None) -> bytes:
    request = urllib.request.Request(
        base + path,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method=method,
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # --server says where; a proxy is for the web
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["error"]
        raise Refused(f"server at {base} (--server): {text}") from None
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise Refused(f"nothing answers at {base} (--server): {reason}") from None
