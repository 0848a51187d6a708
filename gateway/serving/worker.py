"""One data-plane process, from start to exit: listen, load, serve, drain.

SIGTERM: not ready, GOAWAY, finish what is in flight within `drain_s`, exit 0; a second one exits now. The same when the
supervisor is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import signal
import time
from importlib.metadata import version as package_version
from typing import Any

import uvloop

from gateway.config.deployment import WorkerOptions
from gateway.errors import GatewayError
from gateway.native.connection import Hub
from gateway.native.http2 import SessionLimits
from gateway.observability import logs
from gateway.registry.repository import scan
from gateway.serving.catalog import Catalog, ServedVersion
from gateway.serving.faults import FaultLog
from gateway.serving.listener import Listener, tls_context
from gateway.serving.loader import Loader
from gateway.serving.rpc import Services

SWEEP_EVERY_S = 1.0
DRAIN_POLL_S = 0.02
FINAL_GOAWAY_AFTER_S = 1.0
"""Peers that do not answer the ping which follows the first GOAWAY."""

MMAP_FROM_BYTES = 4 * 2**20
"""Messages and tensors from this size on are mapped one by one, and given back when freed. glibc would raise its own
threshold to 32 MiB, and keep ten times of what is in use in the holes of its heaps.
"""
_M_MMAP_THRESHOLD = -3  # malloc.h


def run(options: WorkerOptions) -> int:
    """Serve until told to stop; the exit code: 0 drained, 1 could not start or did not finish in time."""
    logs.setup(options.log_format, worker=options.worker)
    _map_large_blocks()
    return uvloop.run(Worker(options).run())


def _map_large_blocks() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; others give large blocks back by themselves
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_FROM_BYTES)


class Worker:
    """Runs once, on its own loop."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._log = logs.get()
        self._stop = asyncio.Event()
        self.listener: Listener | None = None

    async def run(self) -> int:
        options = self._options
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        if options.lifeline_fd is not None:
            loop.add_reader(options.lifeline_fd, self._on_orphaned, options.lifeline_fd)
        self.catalog = Catalog()
        services = Services(self.catalog, package_version("gateway"), ["schedule_policy"])
        limits = options.limits
        self.hub = Hub(
            SessionLimits(**{name: getattr(limits, name) for name in _SESSION_LIMITS}),
            limits.max_in_flight_bytes,
            services.unary,
            services.streaming,
            FaultLog(loop, part="data plane").add,
            loop,
            limits.max_connections,
            int(limits.header_timeout_s * 1e6),
            int(limits.send_timeout_s * 1e6),
            int(limits.idle_timeout_s * 1e6),
        )
        self.catalog.subscribe(self.hub.wake)
        self.loader = Loader(self.catalog, self.hub, options.workers, self._on_settled)
        sweeper = loop.create_task(self._sweep())
        try:
            tls = tls_context(options.tls_cert, options.tls_key) if options.tls_cert and options.tls_key else None
            self.listener = Listener(options.host, [options.port, options.grpc_port], self.hub.protocol, tls)
            folders = scan(options.models)
            if options.accept == "at_once":
                await self._listen()
            if not await self._unless_stopped(self.loader.load_all(folders)):
                os._exit(0)  # nothing was accepted, and a load in a thread, which cannot be stopped, would hold up an exit
            if options.accept == "when_ready":
                await self._listen()
            gc.collect()
            gc.freeze()  # models and modules live as long as the process: no collection need visit them again
            self.catalog.started = True
            self._tell(event="ready")
            await self._stop.wait()
            return await self._drain()
        except GatewayError as error:
            self._tell(event="fatal", error=str(error))
            if options.control_fd is None:
                self._log.error("worker cannot start", error=str(error))
            return 1
        finally:
            sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeper
            if self.listener:
                await self.listener.close()
            self.loader.close()
            self.hub.close()

    async def _listen(self) -> None:
        assert self.listener
        port, grpc_port = await self.listener.open()
        self._tell(event="listening", port=port, grpc_port=grpc_port)

    async def _unless_stopped(self, work: Any) -> bool:
        """False: told to stop while loading. What loads in a thread is left behind; the process is about to exit."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            for future in (task, stop):
                future.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await future

    async def _drain(self) -> int:
        began_s = time.monotonic()
        self.catalog.draining = True
        self.hub.drain()
        assert self.listener
        await self.listener.close()
        is_final = False
        while True:
            passed_s = time.monotonic() - began_s
            if not self.hub.connections and self.loader.is_idle():
                break
            if passed_s > self._options.drain_s:
                n_left = self.hub.n_open_calls
                self.hub.abort()
                if n_left:
                    self._log.error("drain time is over", calls_given_up=n_left, drain_s=self._options.drain_s)
                    return 1
                break
            if not is_final and passed_s > FINAL_GOAWAY_AFTER_S:
                is_final = True
                self.hub.finish_drain()
            await asyncio.sleep(DRAIN_POLL_S)
        self._tell(event="drained")
        return 0

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self.hub.sweep()

    # --- reports and signals

    def _on_settled(self, entry: ServedVersion, seconds: float) -> None:
        fields = {"model": entry.model, "version": entry.version}
        self._tell(event="version", state=entry.state.value, reason=entry.reason, seconds=round(seconds, 3), **fields)
        if not entry.is_ready:
            self._log.error("version unavailable", **fields, reason=entry.reason)

    def _tell(self, **event: Any) -> None:
        """A line to the supervisor. It may be gone: the lifeline tells that."""
        if self._options.control_fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._options.control_fd, json.dumps(event).encode() + b"\n")

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            self._log.warning("exiting at once", signal=number.name)
            os._exit(128 + number)
        self._stop.set()

    def _on_orphaned(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)
        self._log.error("the supervisor is gone, draining")
        self._stop.set()


_SESSION_LIMITS = (
    "max_message_bytes",
    "max_header_list_bytes",
    "max_continuations",
    "reset_burst",
    "resets_per_s",
    "max_concurrent_streams",
    "stream_window_bytes",
    "connection_window_bytes",
    "max_stream_pending",
)
