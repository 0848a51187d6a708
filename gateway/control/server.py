"""The control plane's HTTP server on its port. It may fail to start; whoever runs it sees that, and tries again."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvicorn
from fastapi import FastAPI

MAX_CONNECTIONS = 64
"""Scrapers and people; above it the answer is 503."""
KEEP_ALIVE_S = 75
"""Longer than the pause between two scrapes."""
ANSWER_PATIENCE_S = 1


class _Server(uvicorn.Server):
    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()  # they are the process's own


async def serve(sock: socket.socket, app: FastAPI, stop: asyncio.Event) -> None:
    """Serve on `sock`, which is bound, until `stop`. RuntimeError: the server ended by itself."""
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=ANSWER_PATIENCE_S,
    )
    server = _Server(config)

    async def watch() -> None:
        await stop.wait()
        server.should_exit = True

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        await server.serve(sockets=[sock])
    except SystemExit as error:  # uvicorn exits where others raise
        raise RuntimeError(f"the control port's server ended with {error.code}") from error
    finally:
        watcher.cancel()
    if not stop.is_set():
        raise RuntimeError("the control port's server ended")
