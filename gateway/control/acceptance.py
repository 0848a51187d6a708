"""Has one worker try a candidate before anybody's request meets it, and reads what it found.

Call it at every look while the rollout warms: it is idempotent, and all that it remembers is in the store. A worker
that dies at the trial is replaced by another once; a second death is the candidate's doing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from gateway.control import fleet
from gateway.rollout.plan import Plan
from gateway.rollout.snapshot import Trial
from gateway.rollout.trial import ORDER_KIND, RESULT_KIND, Order, Result, Terms

if TYPE_CHECKING:
    from gateway.store import Store, WorkerRecord

MAX_TRIES = 2
WRITER = "control"


class Attempt(Protocol):
    """What must be known of a rollout's attempt."""

    @property
    def id(self) -> str: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def stable(self) -> str:
        """The version."""


def trial(store: Store, live: Sequence[WorkerRecord], attempt: Attempt) -> Trial:
    """How far it is. `live` as of Plane.live(). StoreUnavailable."""
    from gateway.store import Report

    plan, candidate = attempt.plan, str(attempt.plan.candidate)
    prefix = f"{attempt.id}/"
    for report in store.reports(RESULT_KIND, plan.model, candidate):
        if report.key.startswith(prefix):
            result = Result.from_body(report.body)
            return Trial(result.passed, result.fault, "; ".join(result.seen))
    orders = [
        Order.from_report(each.key, each.model, each.version, each.body)
        for each in store.reports(ORDER_KIND, plan.model, candidate)
        if each.key.startswith(prefix)
    ]
    last = max(orders, key=lambda order: order.number, default=None)
    here = {record.incarnation for record in live}
    if last is not None and last.incarnation in here:
        return Trial(None)
    if last is not None and last.number >= MAX_TRIES:
        return Trial(False, f"{last.number} workers died while they tried it, before it had any request")
    able = [
        record
        for record in sorted(live, key=lambda each: (each.host, each.index))
        if all(fleet.state(record, plan.model, version)[0] == fleet.READY for version in (candidate, attempt.stable))
    ]
    if not able:
        return Trial(None)
    terms = Terms(
        plan.acceptance.golden == "required",
        plan.acceptance.tolerance,
        plan.acceptance.latency,
        plan.acceptance.memory_bytes,
        plan.breaking,
    )
    number = last.number + 1 if last else 1
    order = Order(attempt.id, number, able[0].incarnation, plan.model, attempt.stable, candidate, terms)
    store.put_reports(WRITER, [Report(ORDER_KIND, order.model, order.candidate, order.key, order.body(), time.time())])
    return Trial(None)
