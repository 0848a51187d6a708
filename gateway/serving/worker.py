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
import re
import signal
import time
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import uvloop

from gateway.config.deployment import STORE_VARIABLE, WorkerOptions
from gateway.errors import GatewayError
from gateway.native.connection import Hub
from gateway.native.http2 import SessionLimits
from gateway.observability import logs
from gateway.observability.access import AccessLog
from gateway.registry.repository import ModelFolder, scan
from gateway.serving import acceptance, signatures
from gateway.serving.agent import Agent
from gateway.serving.captures import EVERY_S as CAPTURES_EVERY_S
from gateway.serving.captures import KIND as CAPTURE_KIND
from gateway.serving.captures import Captures
from gateway.serving.catalog import Catalog, ServedVersion
from gateway.serving.commands import Commands, Handler
from gateway.serving.evidence import COST_KIND, COSTS_EVERY_S, Evidence
from gateway.serving.evidence import KIND as EVIDENCE_KIND
from gateway.serving.faults import FaultLog
from gateway.serving.feedback import LINK_KIND, LINKS_EVERY_S, Feedback
from gateway.serving.front import Front
from gateway.serving.held import Holdings
from gateway.serving.listener import Listener, tls_context
from gateway.serving.loader import Loader
from gateway.serving.monitors import EVERY_S as TILES_EVERY_S
from gateway.serving.monitors import KIND as TILE_KIND
from gateway.serving.monitors import Monitors
from gateway.serving.relay import kept_control
from gateway.serving.repository import Repository
from gateway.serving.rest import surface
from gateway.serving.rest.classification import Labels
from gateway.serving.routing import Routing
from gateway.serving.rpc import CONTROL_EXTENSIONS, EXTENSIONS, Services
from gateway.serving.shadows import Shadows
from gateway.serving.statistics import Tally
from gateway.serving.telemetry import Telemetry

SYNC_PATIENCE_S = 2.0
"""For the store's orders, before this worker says that it is ready. Without them it serves by the last routes it has.
"""
SHADOWS_EVERY_S = 2.0
"""What shadows answered is looked at by people who have just started one."""
SWEEP_EVERY_S = 1.0
DRAIN_POLL_S = 0.02
FINAL_GOAWAY_AFTER_S = 1.0
"""Peers that do not answer the ping which follows the first GOAWAY."""

MMAP_FROM_BYTES = 16 * 2**20
"""Messages and tensors from this size on are mapped one by one, and given back when freed. glibc would raise its own
threshold to 32 MiB, and keep ten times of what is in use in the holes of its heaps.
"""
KEEP_BYTES = 64 * 2**20
"""Free memory at the top of a heap that is not handed back at once. Setting the threshold above by hand freezes this
one at 128 KiB, and then every message of some 600 kB pays for its pages again: half of the throughput.
"""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def run(options: WorkerOptions) -> int:
    """Serve until told to stop; the exit code: 0 drained, 1 could not start or did not finish in time."""
    logs.setup(options.log_format, worker=options.worker)
    if options.store is None:
        options = options.model_copy(update={"store": os.environ.get(STORE_VARIABLE)})
    _map_large_blocks()
    return uvloop.run(_live(Worker(options)))


async def _live(worker: Worker) -> int:
    code = await worker.run()
    if worker.loader.is_opening:
        os._exit(code)  # a load in a thread cannot be interrupted, and exit would wait for it
    return code


def _map_large_blocks() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; others give large blocks back by themselves
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_FROM_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES)


class Worker:
    """Runs once, on its own loop."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._log = logs.get()
        self._stop = asyncio.Event()
        self.listener: Listener | None = None
        self._ports: dict[str, int] = {}
        self._telemetry: Telemetry | None = None
        self.agent: Agent | None = None
        self.evidence: Evidence | None = None

    async def run(self) -> int:
        options = self._options
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        if options.lifeline_fd is not None:
            loop.add_reader(options.lifeline_fd, self._on_orphaned, options.lifeline_fd)
        self.catalog = Catalog()
        holdings: Holdings = {}
        handlers: dict[str, Handler] = {"load": self._load, "unload": self._unload, "statistics": self._statistics}
        self.commands = Commands(options.command_fd, self._tell, handlers)
        self.feedback = Feedback(options.store_url(), options.state, lambda: self.hub.wake())
        self.services = services = Services(
            self.catalog,
            package_version("gateway"),
            (*EXTENSIONS, *(CONTROL_EXTENSIONS if options.model_control else ())),
            holdings=holdings,
            workers=self.commands if options.workers > 1 else None,
            repository=Repository(self.commands, options.scratch) if options.model_control else None,
            more=self.feedback.streaming,
            wake=lambda: self.hub.wake(),
        )
        limits = options.limits
        self.hub = Hub(
            SessionLimits(
                **{name: getattr(limits, name) for name in _SESSION_LIMITS},
                forward_pattern=re.compile(options.forward_headers) if options.forward_headers else None,
            ),
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
        access = AccessLog() if options.access_log else None
        if access:
            self.hub.sampler.record, self.hub.sampler.every = access.record, options.access_log
        report = FaultLog(loop, part="REST").add
        labels = Labels(options.models)
        release = package_version("gateway")
        router = surface.build(
            self.hub,
            self.catalog,
            services,
            labels,
            limits,
            release,
            report,
            self.hub.limits.forward_pattern,
            self.feedback.post,
        )
        self.front = Front(self.hub, router, limits, report)
        self.hub.http1 = self.front.connect
        self.routing = Routing(partial(setattr, self.hub, "routes"), self.catalog.defaults)
        self.monitors = Monitors()
        self.captures = Captures()
        self.loader = Loader(
            self.catalog,
            self.hub,
            options.workers,
            self._on_settled,
            options.models,
            holdings,
            self.routing,
            self.monitors,
            self.captures,
            self.feedback,
        )
        self.shadows = Shadows(self.hub, options.shadows)
        sweeper = loop.create_task(self._sweep())
        if url := options.store_url():
            self.agent = Agent(
                url,
                options.worker,
                self.catalog,
                self.loader,
                self.routing,
                state=options.state,
                folder=options.routes_folder or options.state,
                is_first=options.accept == "at_once" and options.control_fd is not None,
            )
            self.feedback.errand = self.agent.errand
            self.hub.mirror.links = self.feedback.links
            self.agent.add_source(LINK_KIND, LINKS_EVERY_S, self.feedback.read_links)
            self.agent.add_source(TILE_KIND, TILES_EVERY_S, self.monitors.read)
            self.agent.add_source(CAPTURE_KIND, CAPTURES_EVERY_S, self.captures.source(self.agent))
            self.agent.add_source(acceptance.KIND, acceptance.EVERY_S, acceptance.Trials(holdings).source(self.agent))
            self.agent.add_source(signatures.KIND, signatures.EVERY_S, signatures.Signatures(self.catalog).read)
            self.agent.add_source("shadow", SHADOWS_EVERY_S, self.shadows.read)
            self.evidence = Evidence(self.routing, self.hub.mirror, lambda: self.loader.lanes)
            self.shadows.closing = self.evidence.closing
            self.agent.add_source(EVIDENCE_KIND, self.evidence.every_s, self.evidence.read)
            self.agent.add_source(COST_KIND, COSTS_EVERY_S, self.evidence.read_costs)
            self.evidence.start()
        if options.telemetry_fd is not None:
            self._telemetry = Telemetry(
                options.telemetry_fd,
                self.hub,
                lambda: self.loader.lanes,
                self.catalog,
                self.routing.arms,
                self.agent,
                self.shadows,
                lambda: self.loader.remotes,
            )
        try:
            tls = tls_context(options.tls_cert, options.tls_key) if options.tls_cert and options.tls_key else None
            self.listener = Listener(options.host, [options.port, options.grpc_port], self.hub.protocol, tls)
            folders = scan(options.models, may_be_empty=options.model_control)
            for folder in folders:
                if left_out := folder.left_out:
                    self._tell(event="left_out", model=folder.name, reason=left_out)
            if options.accept == "at_once":
                await self._listen()
            if not await self._unless_stopped(self._start(folders)):
                os._exit(0)  # nothing was accepted; a load in a thread cannot be stopped and would hold up an exit
            if options.accept == "when_ready":
                await self._listen()
            gc.collect()
            gc.freeze()  # models and modules live as long as the process: no collection need visit them again
            self.catalog.started = True
            self._tell(event="ready")
            if options.control_fd is None:  # alone: nobody else tells that it serves, and where
                n_ready = sum(
                    entry.is_ready for model in self.catalog.models() for entry in self.catalog.versions(model)
                )
                self._log.info("worker ready", host=options.host, versions=n_ready, **self._ports)
            if self.agent:
                self.agent.serving()
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
            if self.evidence:
                self.evidence.close()
            if self.agent:
                await self.agent.close()
            if self._telemetry:
                await self._telemetry.close()
            if access:
                access.close()
            if self.listener:
                await self.listener.close()
            self.commands.close()
            self.feedback.close()
            self.loader.close()
            await self.loader.closed()
            self.shadows.close()
            self.hub.close()

    async def _start(self, folders: list[ModelFolder]) -> None:
        """Load what is to be served, by the routes in force."""
        control = kept_control(self._options.scratch)
        if self.agent is None:
            await self.loader.load_all(folders, control)
            return
        self.agent.start()
        await self.loader.load_all(folders, control, self.agent.unwanted)
        await self.agent.settled(SYNC_PATIENCE_S)

    async def _listen(self) -> None:
        assert self.listener
        port, grpc_port = await self.listener.open()
        self._ports = {"port": port, "grpc_port": grpc_port}
        self._tell(event="listening", **self._ports)

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
        if self.agent:
            self.agent.drain()
        self.hub.drain()
        self.front.drain()
        assert self.listener
        await self.listener.close()
        is_final = False
        while True:
            passed_s = time.monotonic() - began_s
            if not self.hub.connections and not self.hub.http1_connections and self.loader.is_idle():
                break
            if passed_s > self._options.drain_s:
                n_left = self.hub.n_open_calls + self.front.n_open
                self.hub.abort()
                self.front.abort()
                if n_left:
                    self._log.error("drain time is over", calls_given_up=n_left, drain_s=self._options.drain_s)
                    return 1
                break
            if not is_final and passed_s > FINAL_GOAWAY_AFTER_S:
                is_final = True
                self.hub.finish_drain()
                self.front.finish_drain()
            await asyncio.sleep(DRAIN_POLL_S)
        self._tell(event="drained")
        return 0

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self.hub.sweep()
            self.front.sweep()

    # --- commands: what any worker may ask of all

    async def _load(self, model: str, override: str | None) -> None:
        await self.loader.load(model, Path(override) if override else None)

    async def _unload(self, model: str) -> None:
        await self.loader.unload(model)

    async def _statistics(self, model: str, version: str) -> list[Tally]:
        return self.services.tallies(model, version)

    # --- reports and signals

    def _on_settled(self, entry: ServedVersion, seconds: float) -> None:
        fields = {"model": entry.model, "version": entry.version}
        if self._telemetry:
            self._telemetry.settled(entry, seconds)
        self._tell(event="version", state=entry.state.value, reason=entry.reason, seconds=round(seconds, 3), **fields)
        if not entry.is_ready:
            self._log.error("version unavailable", **fields, reason=entry.reason)

    def _tell(self, **event: Any) -> None:
        """A line to the supervisor. It may be gone: the lifeline tells that."""
        if self._options.control_fd is not None:
            line = json.dumps(event).encode() + b"\n"
            with contextlib.suppress(OSError):
                while line:
                    line = line[os.write(self._options.control_fd, line) :]

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
