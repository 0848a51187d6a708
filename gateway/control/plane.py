"""What the parts of the control plane share: the store, the workers' count, who asks, and who leads."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Request
from prometheus_client.core import Metric

from gateway.control.fleet import LIVE_S, Expected, living
from gateway.control.leader import Leader
from gateway.control.registration import Registrar
from gateway.control.storekeeper import StoreKeeper
from gateway.errors import GatewayError
from gateway.feedback.desk import Desk
from gateway.observability.aggregate import Totals

if TYPE_CHECKING:
    from gateway.store import Store, WorkerRecord

POLL_S = 0.01
"""How often somebody who waits for the workers looks for their word."""


@dataclass(slots=True)
class Plane:
    """One per control process. `totals` asks what the supervisor's workers have counted."""

    models: Path
    keeper: StoreKeeper
    leader: Leader
    registrar: Registrar
    expected: Expected
    totals: Callable[[], Awaitable[Totals | None]]
    is_ephemeral: bool = False
    started_at: float = field(default_factory=time.time)
    webhooks: tuple[str, ...] = ()
    """Names of those that are told of alarms."""
    commit: threading.Lock = field(default_factory=threading.Lock)
    """Held while a change is checked against the store and written to it."""
    desk: Desk = field(init=False)
    """Takes what callers report."""

    def __post_init__(self) -> None:
        self.desk = Desk(self.keeper.get)

    @property
    def store(self) -> Store:
        """Unavailable."""
        return self.keeper.get()

    def drift_families(self) -> list[Metric]:
        """Gauges of drift; none while the store cannot be read: a scrape must not fail with it."""
        from gateway.control import drift, driftmetrics

        try:
            found = drift.reports(self.store)
            live = [drift.alarm_of(record) for record in self.store.alarms(states=drift.LIVE)]
        except GatewayError:
            return []
        return list(driftmetrics.families(found, live))

    def rollout_families(self) -> list[Metric]:
        """Of rollouts; none while the store cannot be read."""
        from gateway.control import rolloutmetrics

        try:
            return list(rolloutmetrics.families(self.store.rollouts(live=True), self.store.rollout_outcomes()))
        except GatewayError:
            return []

    def feedback_families(self) -> list[Metric]:
        """Counters of feedback; none while the store cannot be read."""
        from gateway.control import feedbackmetrics

        try:
            return list(feedbackmetrics.families(self.store.feedback_sums()))
        except GatewayError:
            return []

    def live(self) -> list[WorkerRecord]:
        return living(self.store.workers(seen_within_s=LIVE_S))


def plane_of(request: Request) -> Plane:
    plane: Plane = request.app.state.plane
    return plane


def actor_of(request: Request) -> str:
    """Who says they are asking; for the record, not a proof."""
    named = request.headers.get("x-actor", "").strip()
    return named or f"anonymous@{request.client.host if request.client else 'unknown'}"


def until(deadline_s: float, probe: Callable[[], Any]) -> Any:
    """The last answer of `probe`, as soon as it is empty or the deadline has come."""
    while (answer := probe()) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    return answer
