"""`gateway serve`: N worker processes on shared ports, kept alive, and stopped together with one exit code.

Workers report on a pipe, a JSON object per line: left_out (model, reason: folders that are no versions), listening,
version (model, version, state, reason, seconds), ready (the startup load is through, whatever came of it), drained,
fatal (error: no retry will help), ask and done (what concerns all workers: see relay). The supervisor loads no model
and answers no request. Standard asyncio loop, no threads but the ones that write out metrics: signals and SIGCHLD
arrive as callbacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import gateway
from gateway.config.deployment import FLAGS, STORE_VARIABLE, ControlOptions, Deployment, WorkerOptions
from gateway.errors import Code, ConfigError, GatewayError
from gateway.observability import logs
from gateway.observability.aggregate import Aggregate, Incarnation
from gateway.serving.backoff import Backoff
from gateway.serving.banner import VersionStatus, banner
from gateway.serving.controlprocess import ControlCommand, ControlProcess
from gateway.serving.ports import reserve
from gateway.serving.relay import Relay
from gateway.serving.workerprocess import Command, WorkerProcess, exit_text

MAX_START_DEATHS = 5
"""At start, in a row and before it was ever ready: then it is the configuration, and a person is waiting for the
answer.
"""
DRAIN_GRACE_S = 5.0
"""A worker gives up on requests by itself after the drain time; who is still here after that hangs."""
_KILL_PATIENCE_S = 5.0  # SIGKILL works at once, except on a process stuck in the kernel


class StartFailed(GatewayError):
    """The workers do not come up; the text carries the last one's error."""

    code = Code.FAILED_PRECONDITION


@dataclass(slots=True, eq=False)
class _Slot:
    """One of the N places, over the restarts of its worker."""

    index: int
    backoff: Backoff = field(default_factory=Backoff)
    process: WorkerProcess | None = None
    n_starts: int = 0
    n_start_deaths: int = 0
    started_at_s: float = 0.0
    is_listening: bool = False
    ready_at_s: float | None = None
    was_ever_ready: bool = False
    fatal: str = ""
    versions: dict[tuple[str, str], VersionStatus] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def worker_command(options: WorkerOptions) -> list[str]:
    """The real worker. Run from a folder that is not the code's own, -P keeps a stray gateway.py there from being
    imported.
    """
    own_folder = Path(gateway.__file__).resolve().parent.parent
    isolation = [] if own_folder == Path.cwd() else ["-P"]
    return [sys.executable, *isolation, "-m", "gateway", "worker", "--options", options.model_dump_json()]


def run(deployment: Deployment, command: Command = worker_command, control: ControlCommand | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. ConfigError: a port cannot be had. StartFailed: workers do not
    come up. Without `control`, nothing listens on the control port, and routes are what the repository makes them.
    """
    return asyncio.run(Supervisor(deployment, command, control).run())


class Supervisor:
    """Runs once."""

    def __init__(
        self,
        deployment: Deployment,
        command: Command = worker_command,
        control: ControlCommand | None = None,
        out: TextIO | None = None,
    ) -> None:
        self._deployment = deployment
        self._command = command
        self._control_command = control
        self._control: ControlProcess | None = None
        self._is_ephemeral = control is not None and deployment.store_url() is None
        self._aggregate = Aggregate(deployment.workers)
        self._out = out or sys.stdout
        self._log = logs.get()
        self._slots = [_Slot(index) for index in range(deployment.workers)]
        self._is_announced = False
        self._is_clean = True
        self._failure: StartFailed | None = None
        self._scratch: Path | None = None
        self._routes_folder: Path | None = None

    async def run(self) -> int:
        """0: stopped, all drained. 1: stopped, some did not. 128 + signal: killed by a second signal. Raises as `run`
        above.
        """
        self._loop = asyncio.get_running_loop()
        self._began_at_s = self._loop.time()
        self._stop = asyncio.Event()
        self._killed_by: asyncio.Future[int] = self._loop.create_future()
        self._is_ready = asyncio.Event()
        async with contextlib.AsyncExitStack() as held:
            self._make_folders(held)
            self._relay = Relay(self._processes, self._scratch)
            ports = {}
            for name in ("port", "grpc_port", "control_port") if self._control_command else ("port", "grpc_port"):
                sock = held.enter_context(reserve(self._deployment.host, getattr(self._deployment, name), FLAGS[name]))
                ports[name] = sock.getsockname()[1]
            self._deployment = self._deployment.model_copy(update=ports)
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._on_signal, number)
            self._loop.add_signal_handler(signal.SIGCHLD, self._on_child)
            keepers = [self._loop.create_task(self._keep(slot)) for slot in self._slots]
            try:
                if self._control_command:
                    options = ControlOptions(
                        **self._deployment.model_dump(exclude={"store"}), is_ephemeral=self._is_ephemeral
                    )
                    self._control = ControlProcess(self._control_command, options, sock, self._aggregate)
                    await held.enter_async_context(self._control.running(self._is_ready))
                all_ended: asyncio.Future[Any] = asyncio.gather(*keepers)
                waits: list[asyncio.Future[Any]] = [all_ended, self._killed_by]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if all_ended.done():
                    all_ended.result()  # a bug in a keeper must not look like a clean stop
            finally:
                await self._kill(keepers)
                if self._control and self._killed_by.done():
                    self._control.kill()
        if self._killed_by.done():
            return 128 + self._killed_by.result()
        if self._failure:
            raise self._failure
        return 0 if self._is_clean else 1

    def _make_folders(self, held: contextlib.ExitStack | contextlib.AsyncExitStack) -> None:
        """What is not asked to be kept is private to this user, and gone with us."""
        if self._deployment.store is not None:
            os.environ[STORE_VARIABLE] = self._deployment.store  # it may hold a password: not for a command line
        else:
            os.environ.pop(STORE_VARIABLE, None)
        if self._deployment.model_control or (self._control_command and self._deployment.state is None):
            folder = Path(
                held.enter_context(tempfile.TemporaryDirectory(prefix="gateway-", ignore_cleanup_errors=True))
            )
            if self._deployment.model_control:
                self._scratch = folder  # models that callers sent lie there
            self._routes_folder = folder
            if self._is_ephemeral:
                self._deployment = self._deployment.model_copy(update={"state": folder})
        if self._control_command and self._deployment.state:
            self._routes_folder = self._deployment.state
            try:
                self._deployment.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"--state {self._deployment.state}: cannot be made: {error.strerror}") from None

    # --- one worker

    async def _keep(self, slot: _Slot) -> None:
        """Start it, and again whenever it dies, until the stop; then see it out."""
        while not self._stop.is_set():
            exit_ = await self._live(slot)
            if self._stop.is_set():
                return
            pause_s = self._bury(slot, exit_)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause_s)

    async def _live(self, slot: _Slot) -> str:
        """One life, from start to end; how it ended."""
        accept: Literal["at_once", "when_ready"] = "when_ready" if slot.n_starts else "at_once"
        slot.n_starts += 1
        slot.started_at_s, slot.ready_at_s = self._loop.time(), None
        slot.is_listening, slot.fatal = False, ""
        options = WorkerOptions(
            **self._deployment.model_dump(exclude={"store"}),
            worker=slot.index,
            accept=accept,
            scratch=self._scratch,
            routes_folder=self._routes_folder,
        )
        life = self._aggregate.begin(slot.index)
        try:
            slot.process = WorkerProcess(
                self._command, options, lambda event: self._on_event(slot, event, life), life.on_line
            )
        except OSError as error:
            return f"could not be started: {error.strerror}"
        process = slot.process
        stopping = self._loop.create_task(self._see_out(slot, process))
        try:
            returncode = await process.exited
        finally:
            stopping.cancel()
            slot.process = None
            self._aggregate.end(slot.index)
            self._relay.on_end(process)
        if self._stop.is_set():
            never_served = not slot.is_listening and returncode == -signal.SIGTERM  # came before its handler was there
            if returncode != 0 and not never_served:
                self._is_clean = False
                self._log.error("worker did not end cleanly", worker=slot.index, exit=exit_text(returncode))
        return exit_text(returncode)

    async def _see_out(self, slot: _Slot, process: WorkerProcess) -> None:
        """Once the stop comes: SIGTERM, and SIGKILL for one that hangs."""
        await self._stop.wait()
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(self._deployment.drain_s + DRAIN_GRACE_S)
        self._log.error("worker hangs and is killed", worker=slot.index, drain_s=self._deployment.drain_s)
        process.send_signal(signal.SIGKILL)

    def _bury(self, slot: _Slot, exit_: str) -> float:
        """Report a death that nobody asked for; seconds until the restart. At start, it may be the end of all."""
        now_s = self._loop.time()
        healthy_s = 0.0 if slot.ready_at_s is None else now_s - slot.ready_at_s
        pause_s = slot.backoff.pause_s(healthy_s)
        why = {"error": slot.fatal} if slot.fatal else {}
        if slot.was_ever_ready:
            fields = {"worker": slot.index, "exit": exit_, "ready_s": healthy_s, "restart_in_s": pause_s, **why}
            self._log.error("worker died", **fields)
            return pause_s
        slot.n_start_deaths += 1
        if slot.fatal:
            self._give_up(slot.fatal)  # the command prints it; no line here, or a person reads it twice
            return pause_s
        self._log.error("worker died before it was ready", worker=slot.index, exit=exit_, deaths=slot.n_start_deaths)
        if slot.n_start_deaths >= MAX_START_DEATHS:
            self._give_up(f"worker {slot.index} died {slot.n_start_deaths} times before it was ready; last: {exit_}")
        return pause_s

    def _give_up(self, text: str) -> None:
        self._failure = self._failure or StartFailed(text)
        self._stop.set()

    # --- callbacks

    def _on_event(self, slot: _Slot, event: dict[str, Any], life: Incarnation) -> None:
        match event.get("event"):
            case "listening":
                slot.is_listening = True
            case "left_out":
                slot.left_out[str(event.get("model"))] = str(event.get("reason"))
            case "version":
                status = VersionStatus(str(event.get("state")), str(event.get("reason") or ""))
                slot.versions[str(event.get("model")), str(event.get("version"))] = status
            case "ready":
                slot.ready_at_s = self._loop.time()
                slot.was_ever_ready = True
                if slot.process:
                    slot.process.is_ready = True
                life.ready()
                if self._is_announced:
                    self._log.info("worker ready", worker=slot.index, seconds=slot.ready_at_s - slot.started_at_s)
                else:
                    self._announce()
            case "fatal":
                slot.fatal = str(event.get("error"))
            case "ask" if slot.process:
                self._relay.on_ask(slot.process, event)
            case "done":
                self._relay.on_done(event)

    def _processes(self) -> list[WorkerProcess]:
        return [slot.process for slot in self._slots if slot.process]

    def _announce(self) -> None:
        """Once, when the last of the workers is ready."""
        if any(slot.ready_at_s is None for slot in self._slots) or self._stop.is_set():
            return
        self._is_announced = True
        self._is_ready.set()
        seconds = self._loop.time() - self._began_at_s
        versions = self._versions()
        left_out = {model: reason for slot in self._slots for model, reason in slot.left_out.items()}
        if self._deployment.log_format == "json":
            self._log.info(
                "gateway ready",
                seconds=round(seconds, 3),
                host=self._deployment.host,
                port=self._deployment.port,
                grpc_port=self._deployment.grpc_port,
                **({"control_port": self._deployment.control_port} if self._control else {}),
                **({"state": str(self._deployment.state), "is_ephemeral": self._is_ephemeral} if self._control else {}),
                workers=self._deployment.workers,
                pid=os.getpid(),
                versions=[
                    {"model": model, "version": version, "state": status.state, "reason": status.reason}
                    for (model, version), status in versions.items()
                ],
                **({"left_out": left_out} if left_out else {}),
            )
            return
        with contextlib.suppress(OSError):  # nobody reads it: no reason to stop
            self._out.write(
                banner(
                    self._deployment,
                    versions,
                    seconds,
                    has_control=self._control is not None,
                    is_ephemeral=self._is_ephemeral,
                    left_out=left_out,
                )
            )
            self._out.flush()

    def _versions(self) -> dict[tuple[str, str], VersionStatus]:
        """Over all workers; one that could not load a version stands out, with its index when others could."""
        merged: dict[tuple[str, str], VersionStatus] = {}
        for slot in self._slots:
            for key, status in slot.versions.items():
                if status.state != "READY" and any(
                    other.versions.get(key, status).state == "READY" for other in self._slots
                ):
                    status = VersionStatus(status.state, f"in worker {slot.index}: {status.reason}")
                if merged.setdefault(key, status).state == "READY":
                    merged[key] = status
        return merged

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._stop.is_set():
            self._log.info("stopping", signal=number.name, drain_s=self._deployment.drain_s)
            self._stop.set()
        elif not self._killed_by.done():
            self._log.warning("stopping at once", signal=number.name)
            self._killed_by.set_result(number)

    def _on_child(self) -> None:
        if self._control:
            self._control.reap()
        for slot in self._slots:
            if slot.process:
                slot.process.reap()

    async def _kill(self, keepers: list[asyncio.Task[None]]) -> None:
        """Whatever happened: no child is left behind, and the ports are free when we are gone."""
        for slot in self._slots:
            if slot.process:
                slot.process.send_signal(signal.SIGKILL)
        self._stop.set()
        await asyncio.wait(keepers, timeout=_KILL_PATIENCE_S)
