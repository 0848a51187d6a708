"""Brings versions into service: load and warm in threads, then lane, then route; and takes failures for the log.

A version that cannot be loaded is UNAVAILABLE with its reason, and the others serve. Affinity: owning loop, except for
the loading itself.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gateway.backends import onnx
from gateway.backends.base import Backend, Signature
from gateway.batching.dispatch import Executor
from gateway.batching.policy import lane_policy
from gateway.config.model import ModelConfig
from gateway.errors import LoadError
from gateway.native import signature as native_signature
from gateway.native.batch import Batch
from gateway.native.connection import Hub
from gateway.native.lane import Lane
from gateway.native.routetable import RouteTable
from gateway.observability import logs
from gateway.registry.repository import ModelFolder
from gateway.serving.catalog import Catalog, ServedVersion, State
from gateway.serving.faults import FaultLog

Report = Callable[[ServedVersion, float], None]


class Loader:
    """One per worker. `on_settled(entry, seconds)` hears of each version that became READY or UNAVAILABLE."""

    def __init__(self, catalog: Catalog, hub: Hub, workers: int, on_settled: Report) -> None:
        self._catalog, self._hub, self._workers = catalog, hub, workers
        self._on_settled = on_settled
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._lanes: dict[ServedVersion, tuple[Lane, Executor[Batch], Backend]] = {}
        self._log = logs.get()

    async def load_all(self, folders: Iterable[ModelFolder]) -> None:
        """Every version of every model, a few at a time; returns when all are settled."""
        entries = []
        for folder in folders:
            for version in folder.versions:
                entry = self._catalog.add(folder.name, str(version.number))
                entries.append((entry, folder, version.path))
        self._publish()
        at_once = asyncio.Semaphore(max(1, self._cores // self._workers))

        async def load(entry: ServedVersion, folder: ModelFolder, path: Path) -> None:
            async with at_once:
                await self._load(entry, folder, path)

        await asyncio.gather(*(load(*item) for item in entries))

    async def _load(self, entry: ServedVersion, folder: ModelFolder, path: Path) -> None:
        began_s = time.monotonic()
        try:
            if folder.config is None:
                raise LoadError(folder.error or "no configuration")
            backend = await asyncio.to_thread(_open, path, folder.config, self._cores, entry)
            self._serve(entry, backend, folder.config)
        except Exception as error:
            if not isinstance(error, LoadError):
                self._log.exception("version failed to load", model=entry.model, version=entry.version)
            reason = str(error) if isinstance(error, LoadError) else f"{type(error).__name__}: {error}"
            self._catalog.move(entry, State.UNAVAILABLE, reason)
        self._publish()
        self._on_settled(entry, time.monotonic() - began_s)

    def _serve(self, entry: ServedVersion, backend: Backend, config: ModelConfig) -> None:
        loop = asyncio.get_running_loop()
        policy = lane_policy(
            config.batching,
            max_batch_size=backend.max_batch_size,
            cores=self._cores,
            workers=self._workers,
            is_one_thread=backend.is_one_thread,
        )
        name = f"{entry.model}/{entry.version}"
        executor = Executor(name, backend.run, policy.instances, loop, self._hub.completed)
        faults = FaultLog(loop, model=entry.model, version=entry.version)
        lane = Lane(
            _native(entry, backend.signature),
            backend.run,
            executor.submit,
            faults.add,
            self._hub.timers,
            self._hub.pending,
            **policy.as_arguments(),
            sampler=self._hub.sampler,
        )
        for rows, cost_us in backend.costs_us:
            lane.learn(rows, cost_us)
        self._lanes[entry] = lane, executor, backend
        self._catalog.move(entry, State.READY, signature=backend.signature, platform=backend.platform)

    def _publish(self) -> None:
        """A new route table over what is ready now: a model's default is its highest ready version."""
        models: dict[str, dict[str, Any]] = {}
        for model in self._catalog.models():
            targets: dict[str, Any] = {}
            unready = []
            for entry in self._catalog.versions(model):
                held = self._lanes.get(entry) if entry.is_ready else None
                targets[entry.version] = held[0] if held else f"{entry.state.value} {entry.reason}".strip()
                if held:
                    targets[""] = held[0]
                else:
                    unready.append(f"version {entry.version} is {targets[entry.version]}")
            targets.setdefault("", "; ".join(unready) or "it has no version")
            models[model] = targets
        self._hub.routes = RouteTable(models)

    @property
    def lanes(self) -> dict[tuple[str, str], Lane]:
        """By model and version, what is loaded."""
        return {(entry.model, entry.version): lane for entry, (lane, _, _) in self._lanes.items()}

    def is_idle(self) -> bool:
        """Nothing queued, nothing running."""
        return all(lane.is_idle for lane, _, _ in self._lanes.values())

    def close(self) -> None:
        """End the executors; the process is about to exit."""
        for lane, executor, _ in self._lanes.values():
            lane.close()
            executor.close()


def _open(path: Path, config: ModelConfig, threads: int, entry: ServedVersion) -> Backend:
    backend = onnx.load(path, config, threads, model=entry.model, version=entry.version)
    backend.warm_up()
    return backend


def _native(entry: ServedVersion, signature: Signature) -> native_signature.Signature:
    inputs = [(spec.name, spec.datatype, spec.shape) for spec in signature.inputs]
    outputs = [(spec.name, spec.datatype, spec.shape) for spec in signature.outputs]
    return native_signature.Signature(entry.model, entry.version, inputs, outputs, signature.batched)
