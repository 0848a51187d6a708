"""The control plane on its port, inside the loop of whoever supervises the workers.

It may fail, and serving goes on: the fault is logged, nothing is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from gateway.observability import logs
from gateway.observability.aggregate import Aggregate

if TYPE_CHECKING:
    import uvicorn

BACKLOG = 64
MAX_CONNECTIONS = 64
"""Scrapers and people; above it the answer is 503."""
KEEP_ALIVE_S = 75
"""Longer than the pause between two scrapes."""
ANSWER_PATIENCE_S = 1
STOP_PATIENCE_S = 2.0


@contextlib.asynccontextmanager
async def serving(sock: socket.socket, aggregate: Aggregate) -> AsyncIterator[None]:
    """Serve on `sock`, which is bound; it is closed in the end."""
    with contextlib.suppress(OSError):  # it is tried again, and reported, below
        sock.listen(BACKLOG)  # at once: who comes early waits instead of being refused
    stop = asyncio.Event()
    task = asyncio.get_running_loop().create_task(_serve(sock, aggregate, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait({task}, timeout=STOP_PATIENCE_S)
        task.cancel()
        await asyncio.wait({task})


async def _serve(sock: socket.socket, aggregate: Aggregate, stop: asyncio.Event) -> None:
    try:
        await asyncio.sleep(0)
        # These take half a second to import; by now the workers are started and use it.
        import uvicorn

        from gateway.control.app import create_app

        class Server(uvicorn.Server):
            def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
                return contextlib.nullcontext()  # they are the supervisor's

        config = uvicorn.Config(
            create_app(aggregate),
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
        server = Server(config)
        watch = asyncio.get_running_loop().create_task(_stop(server, stop))
        try:
            await server.serve(sockets=[sock])
        finally:
            watch.cancel()
        if not stop.is_set():
            logs.get().error("control plane stopped", error="its server ended")
    except (Exception, SystemExit) as error:  # uvicorn exits where others raise
        logs.get().exception("control plane failed", error=f"{type(error).__name__}: {error}")
    finally:
        sock.close()


async def _stop(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True
