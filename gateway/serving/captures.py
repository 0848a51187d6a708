"""Copies rows of live batches while somebody wants them for a profile, and hands them to the store.

A tap stands between a lane and its backend: one comparison a batch while nobody listens. Orders are looked for, and
rows encoded and written, in the agent's thread; the loop has no part in it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.backends.base import Array, Signature
from gateway.errors import InvalidArgument
from gateway.monitoring.capture import (
    MAX_BYTES,
    ORDER_KIND,
    ORDER_TTL_S,
    ROWS_KIND,
    Order,
    encode,
    piece_key,
)
from gateway.observability import logs

if TYPE_CHECKING:
    from gateway.serving.agent import Agent
    from gateway.store import Report, Store

KIND, EVERY_S = ROWS_KIND, 1.0

Run = Callable[[list[Array]], list[Array]]
Took = tuple[list[Array], list[Array]]


class Tap:
    """A backend's `run`. Any thread."""

    __slots__ = ("__weakref__", "_run", "capture")

    def __init__(self, run: Run) -> None:
        self._run = run
        self.capture: Capture | None = None

    def __call__(self, inputs: list[Array]) -> list[Array]:
        outputs = self._run(inputs)
        if self.capture is not None:
            self.note(inputs, outputs)
        return outputs

    def note(self, inputs: list[Array], outputs: list[Array]) -> None:
        """A batch that ran."""
        capture = self.capture
        if capture is not None:
            capture.add(inputs, outputs)


class Capture:
    """What one order has of one version. `add` from the threads that run batches, `take` from the agent's."""

    def __init__(self, order: Order, signature: Signature) -> None:
        self.order, self.signature = order, signature
        self.n_pieces = 0
        self.is_closed = False
        self._wanted, self._room = order.rows, MAX_BYTES
        self._lock = threading.Lock()
        self._took: list[Took] = []

    def add(self, inputs: list[Array], outputs: list[Array]) -> None:
        with self._lock:
            if self.is_closed:
                return
            if not self.signature.batched:
                inputs, outputs = [each[None] for each in inputs], [each[None] for each in outputs]
            rows = min(self._wanted, len(inputs[0]))
            n_bytes = sum(each[:rows].nbytes for each in (*inputs, *outputs))
            if n_bytes > self._room:
                self.is_closed = True
                return
            # Copies: the batch's own memory goes on to the answers.
            self._took.append(([each[:rows].copy() for each in inputs], [each[:rows].copy() for each in outputs]))
            self._wanted -= rows
            self._room -= n_bytes
            self.is_closed = self._wanted == 0

    def take(self) -> tuple[list[Took], int]:
        """What was added since the last time, and its rows."""
        with self._lock:
            took, self._took = self._took, []
        return took, sum(len(inputs[0]) for inputs, _ in took)


@dataclass(slots=True)
class Captures:
    """One per worker."""

    wall: Callable[[], float] = time.time
    _taps: dict[tuple[str, str], list[tuple[Signature, weakref.ref[Tap]]]] = field(default_factory=dict)
    _captures: dict[str, Capture] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    """Orders that this worker has failed on."""

    def attach(self, model: str, version: str, signature: Signature, tap: Tap) -> None:
        """On the loop, as a version's lane is made."""
        old = [each for each in self._taps.get((model, version), []) if each[1]() is not None]
        self._taps[model, version] = [*old, (signature, weakref.ref(tap))]

    def source(self, agent: Agent) -> Callable[[], list[Report]]:
        """For the agent: nothing to read on the loop, an errand for its thread instead."""

        def read() -> list[Report]:
            agent.errand(lambda store: self.work(store, agent.incarnation))
            return []

        return read

    def work(self, store: Store, incarnation: str) -> None:
        """In the agent's thread: follow the orders there are, and write what came since the last time."""
        orders = self._orders(store)
        for id_ in [id_ for id_ in self._captures if id_ not in orders]:
            self._stop(self._captures.pop(id_))
        self._over &= orders.keys()
        for order in orders.values():
            if order.id not in self._captures and order.id not in self._over:
                self._begin(order)
        if reports := [report for capture in self._captures.values() for report in self._reports(capture)]:
            store.put_reports(incarnation, reports)

    def _orders(self, store: Store) -> dict[str, Order]:
        found = store.reports(ORDER_KIND, since=self.wall() - ORDER_TTL_S)
        return {each.key: Order.from_report(each.key, each.model, each.version, each.body, each.at) for each in found}

    def _begin(self, order: Order) -> None:
        taps = self._taps.get((order.model, order.version), [])
        live = [(signature, tap) for signature, ref in taps if (tap := ref()) is not None]
        if not live:
            return  # not loaded here; maybe later
        capture = self._captures[order.id] = Capture(order, live[-1][0])
        for signature, tap in live:
            if signature == capture.signature:
                tap.capture = capture
        logs.get().info("live rows are copied", model=order.model, version=order.version, rows=order.rows)

    def _stop(self, capture: Capture) -> None:
        capture.is_closed = True
        for _, ref in self._taps.get((capture.order.model, capture.order.version), []):
            tap = ref()
            if tap is not None and tap.capture is capture:
                tap.capture = None

    def _reports(self, capture: Capture) -> list[Report]:
        from gateway.store import Report

        order = capture.order
        took, rows = capture.take()
        if capture.is_closed:
            self._stop(capture)
        if not took:
            return []
        try:
            body = encode(capture.signature, took)
        except InvalidArgument as error:
            logs.get().warning("live rows cannot be kept", model=order.model, version=order.version, reason=str(error))
            self._stop(capture)
            self._over.add(self._captures.pop(order.id).order.id)
            return []
        capture.n_pieces += 1
        key = piece_key(order.id, capture.n_pieces, rows)
        return [Report(ROWS_KIND, order.model, order.version, key, body, self.wall())]
