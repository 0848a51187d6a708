"""Tries a candidate on golden examples, for NaN, for latency beside stable and for memory, before its first request.

One worker is asked, by an order in the store; it runs both versions' backends itself, on a thread of its own with low
priority, so no lane, no caller and no counter sees any of it. Orders are looked for and results written in the agent's
thread; the loop has no part in it.
"""

from __future__ import annotations

import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from gateway.backends.base import Array, Backend, Signature, TensorSpec
from gateway.backends.samples import find_samples
from gateway.errors import GatewayError
from gateway.observability import logs
from gateway.registry import golden
from gateway.rollout import acceptance as judge
from gateway.rollout.trial import ORDER_KIND, RESULT_KIND, Order, Result
from gateway.serving.held import Held, Holdings

if TYPE_CHECKING:
    from gateway.serving.agent import Agent
    from gateway.store import Report, Store

KIND, EVERY_S = RESULT_KIND, 1.0
ORDER_TTL_S = 24 * 3600.0
"""An order older than this is of a rollout that gave up on it long ago."""

NICENESS = 10
CHUNK_ROWS = 64
LOAD_S = 0.5
"""For each size of a batch; a version that is slow is run a few times all the same."""
MIN_RUNS, MAX_RUNS = 5, 300
LOAD_ROWS = (1, 16)
FOOTPRINT_S = 300.0

Key = tuple[str, str]


class Trials:
    """One per worker. `holdings` belongs to the loop, and is read there."""

    def __init__(self, holdings: Holdings, wall: Callable[[], float] = time.time) -> None:
        self._holdings, self._wall = holdings, wall
        self._begun: set[str] = set()
        self._done: queue.SimpleQueue[tuple[Order, Result]] = queue.SimpleQueue()

    def source(self, agent: Agent) -> Callable[[], list[Report]]:
        """For the agent: nothing to read on the loop but what is in service; the rest is an errand for its thread."""

        def read() -> list[Report]:
            held = {(entry.model, entry.version): each for entry, each in self._holdings.items()}
            agent.errand(lambda store: self.work(store, agent.incarnation, held))
            return []

        return read

    def work(self, store: Store, incarnation: str, held: dict[Key, Held]) -> None:
        """In the agent's thread: begin what is asked of this worker, and write what was found."""
        from gateway.store import Report

        for report in store.reports(ORDER_KIND, since=self._wall() - ORDER_TTL_S):
            order = Order.from_report(report.key, report.model, report.version, report.body)
            stable, candidate = held.get((order.model, order.stable)), held.get((order.model, order.candidate))
            if order.incarnation != incarnation or order.key in self._begun or not stable or not candidate:
                continue
            self._begun.add(order.key)
            threading.Thread(target=self._run, args=(order, stable, candidate), name="acceptance", daemon=True).start()
        found = []
        while not self._done.empty():
            order, result = self._done.get()
            found.append(Report(RESULT_KIND, order.model, order.candidate, order.key, result.body(), self._wall()))
        if found:
            store.put_reports(incarnation, found)

    def _run(self, order: Order, stable: Held, candidate: Held) -> None:
        if sys.platform == "linux":  # elsewhere it would be the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        began_s = time.monotonic()
        try:
            result = Try(order, stable, candidate).result()
        except Exception as error:
            logs.get().exception("acceptance failed", model=order.model, version=order.candidate, error=str(error))
            result = Result(f"it could not be tried: {type(error).__name__}: {error}")
        fields = {"model": order.model, "version": order.candidate, "seconds": round(time.monotonic() - began_s, 3)}
        logs.get().info("candidate tried", **fields, fault=result.fault, seen=result.seen)
        self._done.put((order, result))


class Try:
    """One candidate, once."""

    def __init__(self, order: Order, stable: Held, candidate: Held) -> None:
        self._terms = order.terms
        self._stable, self._candidate = stable, candidate
        self._is_compared = not order.terms.is_breaking
        self._seen: list[str] = []

    def result(self) -> Result:
        for step in (self._signature, self._golden, self._beside_stable, self._memory):
            if fault := step():
                return Result(fault, tuple(self._seen))
        return Result("", tuple(self._seen))

    def _signature(self) -> str:
        if not self._is_compared:
            self._seen.append("its signature may differ from stable's (breaking)")
            return ""
        fault = judge.signature_fault(self._stable.backend.signature, self._candidate.backend.signature)
        self._seen += [] if fault else ["same signature as stable"]
        return fault and f"signature: {fault}"

    def _golden(self) -> str:
        backend, folder = self._candidate.backend, self._candidate.source.path
        self._examples = _read(folder, backend.signature)
        if isinstance(self._examples, str):
            return self._examples
        if self._examples is None:
            if self._terms.golden_required:
                return f"{folder / golden.FILE_NAME}: is not there, and the plan requires it (acceptance.golden)"
            self._seen.append("no golden examples")
            return ""
        n, furthest = self._examples.n, 0.0
        for rows in _chunks(self._examples, backend):
            try:
                outputs = backend.run(self._examples.arrays(backend.signature, rows))
            except GatewayError as error:
                return self._guilty(rows, error)
            for spec, got in zip(backend.signature.outputs, outputs, strict=True):
                expected = self._examples.outputs.get(spec.name)
                if expected is None:
                    continue
                got = _plain(got if backend.signature.batched else got[None], spec)
                compared = judge.compare(spec.name, expected[rows], got, self._terms.tolerance, rows.start, n)
                if compared.fault:
                    return compared.fault
                furthest = max(furthest, compared.furthest)
        self._seen.append(f"{n} golden examples right, within {furthest:.1g}")
        return ""

    def _guilty(self, rows: slice, error: GatewayError) -> str:
        """Which of the examples it was."""
        assert isinstance(self._examples, golden.Golden)
        backend, n = self._candidate.backend, self._examples.n
        for row in range(rows.start, rows.stop):
            try:
                backend.run(self._examples.arrays(backend.signature, slice(row, row + 1)))
            except GatewayError as alone:
                return judge.failed(row, n, _reason(alone))
        return f"golden examples {rows.start + 1} to {rows.stop} of {n} together: {_reason(error)}"

    def _beside_stable(self) -> str:
        """NaN, and how long both take for the same rows."""
        timed = []
        stable, candidate = self._stable.backend, self._candidate.backend
        most = min(stable.max_batch_size, candidate.max_batch_size) if self._is_compared else candidate.max_batch_size
        sizes = [rows for rows in LOAD_ROWS if rows <= most] if candidate.signature.batched else [1]
        for rows in sizes or [1]:
            inputs = self._inputs(rows)
            if inputs is None:
                self._seen.append("not run on made-up inputs: it refuses them")
                return ""
            where = f"with {'made-up inputs' if not self._has_examples else 'the inputs of the golden examples'}"
            try:
                answers = candidate.run(inputs)
            except GatewayError as error:
                return f"{where}, {rows} at once: expected an answer, got: {_reason(error)}"
            same = self._for_stable(inputs)
            beside = _answers(stable, same) if self._is_compared else None
            for at, spec in enumerate(candidate.signature.outputs):
                other = beside.get(spec.name) if beside is not None else None
                if fault := judge.broken_fault(spec.name, other, _plain(answers[at], spec), where):
                    return fault
            if beside is not None:
                timed.append(_timed(stable, same, candidate, inputs, rows))
        if fault := judge.latency_fault(timed, self._terms.latency):
            return fault
        self._seen += [judge.latency_seen(timed)] if timed else []
        return ""

    def _for_stable(self, inputs: list[Array]) -> list[Array]:
        """In the order that stable takes them in."""
        if not self._is_compared:
            return []
        by_name = {
            spec.name: array for spec, array in zip(self._candidate.backend.signature.inputs, inputs, strict=True)
        }
        return [by_name[spec.name] for spec in self._stable.backend.signature.inputs]

    @property
    def _has_examples(self) -> bool:
        return isinstance(self._examples, golden.Golden)

    def _inputs(self, rows: int) -> list[Array] | None:
        signature = self._candidate.backend.signature
        if isinstance(self._examples, golden.Golden):
            if not signature.batched:
                return self._examples.arrays(signature, slice(0, 1))
            whole = self._examples.arrays(signature, slice(0, min(rows, self._examples.n)))
            return [np.ascontiguousarray(np.resize(array, (rows, *array.shape[1:]))) for array in whole]
        batched = rows if signature.batched else None
        samples, _, _ = find_samples(self._candidate.backend.run, signature.inputs, batched)
        return samples.make(batched) if samples else None

    def _memory(self) -> str:
        if self._terms.memory_bytes is None:
            return ""
        if self._candidate.backend.runs_elsewhere:
            self._seen.append("its memory is not in this process, and not measured")
            return ""
        added = _footprint(self._candidate)
        if isinstance(added, str):
            return added
        fault = judge.memory_fault(added, self._terms.memory_bytes)
        self._seen += [] if fault else [f"{added / 2**20:.0f} MiB of memory"]
        return fault


def _read(folder: object, signature: Signature) -> golden.Golden | str | None:
    try:
        return golden.read(folder, signature)  # type: ignore[arg-type]
    except GatewayError as error:
        return str(error)


def _chunks(examples: golden.Golden, backend: Backend) -> Iterator[slice]:
    step = max(1, min(CHUNK_ROWS, backend.max_batch_size)) if backend.signature.batched else 1
    for start in range(0, examples.n, step):
        yield slice(start, min(start + step, examples.n))


def _plain(array: Array, spec: TensorSpec) -> Array:
    """BF16 as numbers."""
    return (array.astype(np.uint32) << 16).view(np.float32) if spec.datatype == "BF16" else array


def _answers(backend: Backend, inputs: list[Array]) -> dict[str, Array] | None:
    """By output; None when it refuses."""
    try:
        outputs = backend.run(inputs)
    except GatewayError:
        return None
    return {spec.name: _plain(array, spec) for spec, array in zip(backend.signature.outputs, outputs, strict=True)}


def _timed(stable: Backend, same: list[Array], candidate: Backend, inputs: list[Array], rows: int) -> judge.Timed:
    """Runs that alternate, so that whatever else the machine does slows both."""
    clock = time.thread_time if stable.is_one_thread and candidate.is_one_thread else time.perf_counter
    took: tuple[list[float], list[float]] = ([], [])
    until_s = time.monotonic() + LOAD_S
    while len(took[0]) < MIN_RUNS or (time.monotonic() < until_s and len(took[0]) < MAX_RUNS):
        for backend, arrays, times in zip((stable, candidate), (same, inputs), took, strict=True):
            began = clock()
            backend.run(arrays)
            times.append(clock() - began)
    return judge.Timed(rows, statistics.median(took[0]) * 1e6, statistics.median(took[1]) * 1e6)


def _footprint(held: Held) -> int | str:
    """Bytes that the version adds to a process which has nothing else; or what went wrong."""
    words = [sys.executable, "-m", "gateway.backends.footprint", str(held.source.path)]
    config = held.source.config.model_dump_json(by_alias=True)
    try:
        done = subprocess.run(words, input=config, capture_output=True, text=True, timeout=FOOTPRINT_S)
    except subprocess.TimeoutExpired:
        return f"memory: it was not loaded within {FOOTPRINT_S:g} s in a process of its own"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return f"memory: the process that loads it alone ended with {done.returncode}: {last}"
    return int(json.loads(done.stdout)["added_bytes"])


def _reason(error: GatewayError) -> str:
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return f"{error}{cause}"[:600]
