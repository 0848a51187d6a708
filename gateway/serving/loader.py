"""Brings versions into service and takes them out: load and warm in threads, then lane, then route.

At start, a version that cannot be loaded is UNAVAILABLE with its reason, and the others serve. Later, a load of a model
is all or nothing: whatever fails, what served before goes on serving. A version is replaced without losing a request:
the new lane is there first, then the table is swapped, then the old lane finishes what it had admitted and lets go of
its model. Affinity: owning loop, except for the loading itself.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from gateway.backends.base import Backend, Signature
from gateway.backends.choice import load
from gateway.batching.policy import lane_policy
from gateway.config.model import ModelConfig
from gateway.errors import GatewayError, LoadError, NotFound, ServersDown, Unavailable
from gateway.feedback import prediction
from gateway.native import signature as native_signature
from gateway.native.connection import Hub
from gateway.native.lane import Lane
from gateway.observability import logs
from gateway.registry.repository import ModelFolder, find
from gateway.serving import override
from gateway.serving.captures import Captures, Tap
from gateway.serving.catalog import Catalog, ServedVersion, State
from gateway.serving.executors import Executors, connect, relay_for, remote_of
from gateway.serving.faults import FaultLog
from gateway.serving.feedback import Feedback
from gateway.serving.held import Held, Holdings, Source, fingerprint
from gateway.serving.modelconfig import to_triton
from gateway.serving.monitors import Monitors, Watch
from gateway.serving.retries import Retries
from gateway.serving.routing import Routing
from gateway.serving.shadows import twin
from gateway.serving.wording import listed, quoted

if TYPE_CHECKING:
    from gateway.backends.triton.remote import Remote

RETIRE_POLL_S = 0.005
UNLOADED = "unloaded"


class Report(Protocol):
    def __call__(self, entry: ServedVersion, seconds: float) -> None: ...


class Loader:
    """One per worker, over the model repository `models`. `on_settled(entry, seconds)` hears of each version that
    became READY or UNAVAILABLE by a load.
    """

    def __init__(
        self,
        catalog: Catalog,
        hub: Hub,
        workers: int,
        on_settled: Report,
        models: Path,
        holdings: Holdings | None = None,
        routing: Routing | None = None,
        monitors: Monitors | None = None,
        captures: Captures | None = None,
        feedback: Feedback | None = None,
    ) -> None:
        self._catalog, self._hub, self._workers = catalog, hub, workers
        self._routing = routing or Routing(partial(setattr, hub, "routes"), catalog.defaults)
        self._monitors = monitors
        self._captures = captures
        self._feedback = feedback
        self._on_settled = on_settled
        self._models = models
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        hub.occupancy.n_cores = max(1, self._cores // workers)
        self._at_once = asyncio.Semaphore(max(1, self._cores // workers))
        self._holdings: Holdings = {} if holdings is None else holdings
        self._retiring: dict[Held, asyncio.Task[None]] = {}
        self._executors = Executors(hub.completed)
        hub.relays = partial(relay_for, hub)
        self._retries = Retries(self.load_version)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._is_started = asyncio.Event()
        self._n_opening = 0
        self._log = logs.get()

    # --- at start

    async def load_all(
        self,
        folders: Iterable[ModelFolder],
        control: Mapping[str, Path | None] | None = None,
        unwanted: Collection[tuple[str, str]] = (),
    ) -> None:
        """Every version of every model, a few at a time; returns when all are settled. `control` by model is what was
        asked before this worker started: the folder of an override, None for unloaded. Of `unwanted` (model, version)
        nothing is loaded.
        """
        control = control or {}
        by_name = {folder.name: folder for folder in folders}
        for model, wish in control.items():
            if wish is not None:
                by_name[model] = self._overridden(model, wish, by_name.get(model))
        work = []
        for _, folder in sorted(by_name.items()):
            for version in folder.versions:
                entry = self._catalog.add(folder.name, str(version.number))
                if control.get(folder.name, version.path) is None or (entry.model, entry.version) in unwanted:
                    self._catalog.move(entry, State.UNAVAILABLE, UNLOADED)
                else:
                    work.append(self._load_one(entry, folder, version.path))
        self._publish()
        await asyncio.gather(*work)
        self._is_started.set()

    def _overridden(self, model: str, wish: Path, folder: ModelFolder | None) -> ModelFolder:
        try:
            return override.folder(self._models, model, wish).folder
        except GatewayError as error:  # it was fine when it was asked for: the folder is gone since
            if folder is None:
                self._log.error("override cannot be repeated", model=model, error=str(error))
            return replace(folder or ModelFolder(model, wish, None, None, ()), config=None, error=str(error))

    async def _load_one(self, entry: ServedVersion, folder: ModelFolder, path: Path) -> None:
        began_s = time.monotonic()
        try:
            if folder.config is None:
                raise LoadError(folder.error or "no configuration")
            backend, source = await self._open(entry.model, entry.version, path, folder.config)
            self._serve(entry, backend, source)
        except Exception as error:
            self._catalog.move(entry, State.UNAVAILABLE, self._reason(entry.model, entry.version, error))
            if isinstance(error, ServersDown):
                self._retries.later(entry)
        self._publish()
        self._on_settled(entry, time.monotonic() - began_s)

    # --- on request

    async def load(self, model: str, wish: Path | None = None) -> None:
        """Serve what lies in the repository now, or in the folder of an override; returns when it serves.

        A version that has not changed is left alone, one that is no longer there is unloaded. NotFound: no such model.
        LoadError names each version that failed; nothing has changed then. Waits for the start, and for an earlier
        load or unload of the same model.
        """
        await self._is_started.wait()
        async with self._lock(model):
            self._refuse_when_draining()
            began_s = time.monotonic()
            wanted = await asyncio.to_thread(override.folder, self._models, model, wish)
            folder, config = wanted.folder, wanted.folder.config
            if config is None:
                raise LoadError(f"model {quoted(model)}: {folder.error}; nothing was changed")
            changed = self._changed(wanted, config)
            self._publish()
            work = (self._open(model, entry.version, path, config) for entry, path in changed.items())
            opened = dict(zip(changed, await asyncio.gather(*work, return_exceptions=True), strict=True))
            failures = {
                entry: self._reason(model, entry.version, result)
                for entry, result in opened.items()
                if isinstance(result, BaseException)
            }
            fresh = {entry: result for entry, result in opened.items() if not isinstance(result, BaseException)}
            fault = listed((f"version {entry.version}: {why}" for entry, why in failures.items()), "; ")
            if not failures:
                fault = self._disagreement(wanted, fresh)
            if fault or self._catalog.draining:
                await self._give_up(changed, [backend for backend, _ in fresh.values()], failures, fault, began_s)
                self._refuse_when_draining()
                raise LoadError(f"model {quoted(model)} was not loaded, nothing was changed; {fault}")
            # From here to the new table nothing waits: a request meets the old versions or the new ones.
            for entry, (backend, source) in fresh.items():
                replaced = self._holdings.get(entry)
                self._serve(entry, backend, source)
                if replaced:
                    self._retire(replaced)
            numbers = {str(version.number) for version in folder.versions}
            gone = [
                each for each in self._catalog.versions(model) if each.version not in numbers and each in self._holdings
            ]
            leaving = self._withdraw(gone)
            self._publish()
            self._routing.repin(model)
            seconds = time.monotonic() - began_s
            for entry in fresh:
                self._on_settled(entry, seconds)
            loaded, unloaded = [entry.version for entry in fresh], [entry.version for entry in gone]
            self._log.info("model loaded", model=model, versions=loaded, unloaded=unloaded, seconds=round(seconds, 3))
            await self._finish(gone, leaving)

    async def unload(self, model: str) -> None:
        """Take every version out of service; returns when requests in flight are answered and the memory is given back.
        NotFound: not in the catalog. Nothing happens to a model that is unloaded already.
        """
        await self._is_started.wait()
        async with self._lock(model):
            self._refuse_when_draining()
            entries = self._catalog.versions(model)
            if not entries:
                here = listed(map(quoted, self._catalog.models()))
                raise NotFound(f"model {quoted(model)} not found; models here: {here}")
            began_s = time.monotonic()
            going = [entry for entry in entries if entry in self._holdings]
            self._retries.forget(entries)
            leaving = self._withdraw(going)
            self._publish()
            await self._finish(going, leaving)
            if going:
                seconds = round(time.monotonic() - began_s, 3)
                versions = [entry.version for entry in going]
                self._log.info("model unloaded", model=model, versions=versions, seconds=seconds)

    async def load_version(self, model: str, version: str) -> None:
        """Serve one version as it lies in the repository; the model's others are left alone. Nothing happens to one
        that serves. NotFound: no such folder. LoadError: why it does not serve, as the catalog says it too.
        """
        await self._is_started.wait()
        async with self._lock(model):
            self._refuse_when_draining()
            entry = next((each for each in self._catalog.versions(model) if each.version == version), None)
            if entry and entry in self._holdings:
                if not entry.is_ready:
                    raise LoadError(entry.reason)  # it is loaded, and its servers are not there
                return
            began_s = time.monotonic()
            folder = await asyncio.to_thread(find, self._models, model)
            path = next((each.path for each in folder.versions if str(each.number) == version), None)
            if path is None:
                there = listed(str(each.number) for each in folder.versions) or "none"
                raise NotFound(f"model {quoted(model)}: no folder of version {version} in {folder.path}; there {there}")
            if entry is None:
                entry = self._catalog.add(model, version)
            else:
                self._catalog.move(entry, State.LOADING, entry.reason)  # why it was not there, until it is
            self._publish()
            await self._load_one(entry, folder, path)
            seconds = round(time.monotonic() - began_s, 3)
            if not entry.is_ready:
                raise LoadError(entry.reason)
            self._log.info("version loaded", model=model, version=version, seconds=seconds)

    async def unload_version(self, model: str, version: str) -> None:
        """Take one version out of service; returns when its requests are answered and its memory is given back.
        Nothing happens when it does not serve.
        """
        await self._is_started.wait()
        async with self._lock(model):
            self._refuse_when_draining()
            entries = [each for each in self._catalog.versions(model) if each.version == version]
            going = [each for each in entries if each in self._holdings]
            self._retries.forget(entries)
            leaving = self._withdraw(going)
            self._publish()
            await self._finish(going, leaving)
            if going:
                self._log.info("version unloaded", model=model, version=version)

    def _lock(self, model: str) -> asyncio.Lock:
        return self._locks.setdefault(model, asyncio.Lock())  # gone with the last who holds it or waits for it

    def _refuse_when_draining(self) -> None:
        if self._catalog.draining:
            raise Unavailable("the server is draining; it loads and unloads no more")

    def _changed(self, wanted: override.Wanted, config: ModelConfig) -> dict[ServedVersion, Path]:
        """Where to load each version from that is new or is not what it was; a new one is LOADING now."""
        model = wanted.folder.name
        there = {entry.version: entry for entry in self._catalog.versions(model)}
        changed = {}
        for version in wanted.folder.versions:
            entry = there.get(str(version.number))
            held = self._holdings.get(entry) if entry else None
            if held and held.source == Source(version.path, config, wanted.fingerprints[version.number]):
                continue
            if entry is None:
                entry = self._catalog.add(model, str(version.number))
            elif held is None:
                self._catalog.move(entry, State.LOADING)
            changed[entry] = version.path
        return changed

    def _disagreement(self, wanted: override.Wanted, fresh: Mapping[ServedVersion, tuple[Backend, Source]]) -> str:
        """Why an override describes another model than this one; "" when it does not."""
        if wanted.override is None:
            return ""
        actuals = []
        for version in wanted.folder.versions:
            entry = next(e for e in self._catalog.versions(wanted.folder.name) if e.version == str(version.number))
            if entry in fresh:
                backend, source = fresh[entry]
            else:
                backend, source = self._holdings[entry].backend, self._holdings[entry].source
            policy = self._policy(backend, source.config)
            actuals.append(to_triton(entry.model, backend, policy, source.config))
        return wanted.override.disagreement(actuals)

    async def _give_up(
        self,
        entries: Iterable[ServedVersion],
        backends: Iterable[Backend],
        failures: Mapping[ServedVersion, str],
        fault: str,
        began_s: float,
    ) -> None:
        """A load is not to be: let go of what it had opened; what was not there before says why it is not now."""
        for entry in entries:
            if entry not in self._holdings:
                reason = failures.get(entry) or f"not put into service: {fault or 'the server is draining'}"
                self._catalog.move(entry, State.UNAVAILABLE, reason)
                self._on_settled(entry, time.monotonic() - began_s)
            elif entry in failures:
                fields = {"model": entry.model, "version": entry.version, "reason": failures[entry]}
                self._log.error("reload failed, the version loaded before goes on serving", **fields)
        self._publish()
        for backend in backends:
            await asyncio.to_thread(backend.close)

    # --- parts of both

    async def _open(self, model: str, version: str, path: Path, config: ModelConfig) -> tuple[Backend, Source]:
        self._n_opening += 1
        try:
            async with self._at_once:
                return await asyncio.to_thread(_open, path, config, self._cores, model, version)
        finally:
            self._n_opening -= 1

    def _reason(self, model: str, version: str, error: BaseException) -> str:
        if isinstance(error, LoadError):
            return str(error)
        self._log.error("version failed to load", model=model, version=version, exc_info=error)
        return f"{type(error).__name__}: {error}"

    def _policy(self, backend: Backend, config: ModelConfig) -> Any:
        return lane_policy(
            config.batching,
            max_batch_size=backend.max_batch_size,
            cores=self._cores,
            workers=self._workers,
            is_one_thread=backend.is_one_thread,
            in_flight=backend.in_flight,
            costs_us=backend.costs_us,
        )

    def _serve(self, entry: ServedVersion, backend: Backend, source: Source) -> None:
        """A lane for it; `_publish` makes it known."""
        loop = asyncio.get_running_loop()
        policy = self._policy(backend, source.config)
        run = Tap(backend.run)
        name, on_state = f"{entry.model}/{entry.version}", partial(self._hinder, entry, backend)
        executor, background = self._executors.pair(name, backend, run, policy.instances, on_state)
        faults = FaultLog(loop, model=entry.model, version=entry.version)
        signature = _native(entry, backend.signature)
        shadow_lane = twin(self._hub, signature, backend, policy, faults.add, background)
        # What other machines run leaves the cores of this one to shadows.
        occupancy = None if backend.runs_elsewhere else self._hub.occupancy
        lane = Lane(
            signature,
            run,
            executor.submit,
            faults.add,
            self._hub.timers,
            self._hub.pending,
            **policy.as_arguments(),
            sampler=self._hub.sampler,
            occupancy=occupancy,
            twin=shadow_lane,
            buffers=backend.buffers(),
        )
        connect(lane, executor, self._hub.wake)
        for rows, cost_us in backend.costs_us:
            lane.learn(rows, cost_us)
        if self._monitors and source.watch:
            self._monitors.attach(entry.model, entry.version, lane, source.watch)
            shadow_lane.monitor = lane.monitor
        if self._feedback and source.prediction:
            self._feedback.attach(lane, signature, source.prediction)
        if self._captures:
            self._captures.attach(entry.model, entry.version, backend.signature, run)
        self._holdings[entry] = Held(lane, executor, backend, policy, source, background)
        self._catalog.move(entry, State.READY, signature=backend.signature, platform=backend.platform)

    def _hinder(self, entry: ServedVersion, backend: Backend, reason: str) -> None:
        """The servers that run it are gone, or back."""
        held = self._holdings.get(entry)
        if held and held.backend is backend:
            self._log.warning(
                "version cannot be served" if reason else "version is served again",
                model=entry.model,
                version=entry.version,
                reason=reason or "its servers are back",
            )
            self._catalog.hinder(entry, reason)
            self._publish()

    def _publish(self) -> None:
        """What is ready now, and why the rest is not: a new route table."""
        models: dict[str, dict[str, Lane | str]] = {}
        for model in self._catalog.models():
            models[model] = versions = {}
            for entry in self._catalog.versions(model):
                held = self._holdings.get(entry) if entry.is_ready else None
                versions[entry.version] = held.lane if held else f"{entry.state.value} {entry.reason}".strip()
        self._routing.publish(models)

    def _withdraw(self, entries: Iterable[ServedVersion]) -> list[asyncio.Task[None]]:
        """Take READY versions out; the next table is without them. The tasks end when their memory is given back."""
        tasks = []
        for entry in entries:
            self._catalog.move(entry, State.UNLOADING)
            tasks.append(self._retire(self._holdings.pop(entry)))
        return tasks

    async def _finish(self, entries: Iterable[ServedVersion], leaving: list[asyncio.Task[None]]) -> None:
        """See out what was withdrawn."""
        if leaving:
            await asyncio.wait(leaving)
        for entry in entries:
            self._catalog.move(entry, State.UNAVAILABLE, UNLOADED)
        self._publish()

    def _retire(self, held: Held) -> asyncio.Task[None]:
        """Let a lane that no table leads to finish, and its model go."""
        held.lane.close()
        task = self._retiring[held] = asyncio.get_running_loop().create_task(self._see_out(held))
        return task

    async def _see_out(self, held: Held) -> None:
        try:
            while not held.is_idle:  # noqa: ASYNC110 - the last answer leaves from native code, which tells nobody
                await asyncio.sleep(RETIRE_POLL_S)
            held.executor.close()
            held.background.close()
            held.lane.release()
            await asyncio.to_thread(held.backend.close)
        except Exception:
            self._log.exception("a version was not let go of cleanly", path=str(held.source.path))
        finally:
            del self._retiring[held]

    # --- questions, and the end

    @property
    def lanes(self) -> dict[tuple[str, str], Lane]:
        """By model and version, what is in service."""
        return {(entry.model, entry.version): held.lane for entry, held in self._holdings.items()}

    @property
    def remotes(self) -> dict[tuple[str, str], Remote]:
        """By model and version, the servers of what runs elsewhere."""
        found = {(entry.model, entry.version): remote_of(held.executor) for entry, held in self._holdings.items()}
        return {key: remote for key, remote in found.items() if remote}

    def is_idle(self) -> bool:
        """Nothing queued, nothing running, also in lanes that are on their way out."""
        return all(held.lane.is_idle for held in (*self._holdings.values(), *self._retiring))

    @property
    def is_opening(self) -> bool:
        """A thread is loading; it cannot be interrupted."""
        return self._n_opening > 0

    def close(self) -> None:
        """End the executors; the process is about to exit."""
        self._retries.close()
        for held in (*self._holdings.values(), *self._retiring):
            held.lane.close()
            held.executor.close()
            held.background.close()

    async def closed(self) -> None:
        """After `close`: servers elsewhere know it too."""
        await self._executors.closed()


def _open(path: Path, config: ModelConfig, threads: int, model: str, version: str) -> tuple[Backend, Source]:
    source = Source(path, config, fingerprint(path))  # first: what changes during the load is found by the next one
    backend = load(path, config, threads, model=model, version=version)
    if config.feedback.enabled:
        try:
            told = prediction.choose(config.feedback, backend.signature.outputs, backend.signature.batched)
        except LoadError:
            backend.close()
            raise
        source = replace(source, prediction=told)
    backend.warm_up()
    if not config.monitoring.enabled:
        return backend, source
    return backend, replace(source, watch=Watch.of(path, backend.signature, model, version))


def _native(entry: ServedVersion, signature: Signature) -> native_signature.Signature:
    inputs = [(spec.name, spec.datatype, spec.shape) for spec in signature.inputs]
    outputs = [(spec.name, spec.datatype, spec.shape) for spec in signature.outputs]
    return native_signature.Signature(entry.model, entry.version, inputs, outputs, signature.batched)
