"""From the arrival of the last request that the judge needs to weight 0 in every worker; and how many were harmed.

One rollout after the other, each of a model of its own, at one weight that it does not leave. The callers know what
each request met; the same test, asked after each of their failures in order of arrival, says which was the last needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.rollouts.world import Callers, Seen, World, model, world
from gateway.evidence import label
from gateway.evidence.counts import Stage
from gateway.evidence.verdict import Outcome
from gateway.rollout import onsight
from gateway.rollout.plan import HARD_SHARE, parse

WEIGHT, RATE_PER_S = 25, 500.0
PATIENCE_S = 40.0
CASES: dict[str, dict[str, float]] = {"fails 10 %": {"failing": 0.10}, "breaks 30 %": {"broken": 0.30}}


def plan_of(name: str) -> dict[str, Any]:
    """Only what is measured: errors, and facts."""
    return {
        "model": name, "candidate": 2, "strategy": "canary",
        "steps": [{"weight": WEIGHT, "min_time": "10min", "max_time": "1h"}, {"weight": 50}],
        "guardrails": {"latency": "off", "outputs": "off", "disagreement": "off", "broken": "off"},
        "acceptance": {"latency": 100},
    }  # fmt: skip


def run(gateway: Path, scratch: Path, n: int, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """A record for each rollout."""
    names = {f"m{i}": case for i, case in enumerate([*CASES] * n)}
    versions = {
        name: {1: model(label=name), 2: model(label=f"{name} candidate", **CASES[case])} for name, case in names.items()
    }
    with world(gateway, scratch, versions) as found, Callers(found.port) as callers:
        for name, case in names.items():
            record = {"case": case, **_one(found, callers, name)}
            say(f"{name}, {case}: " + ", ".join(f"{key} {value}" for key, value in record.items() if key != "case"))
            yield record


def _one(found: World, callers: Callers, name: str) -> dict[str, Any]:
    callers.rates = {name: RATE_PER_S}
    rollout = found.start(plan_of(name))
    end_s = time.monotonic() + PATIENCE_S
    zero_s: dict[str, float] = {}
    seen: dict[str, Any] = {}
    while time.monotonic() < end_s:
        seen = found.show(rollout)
        gone = [stage["generation"] for stage in seen["stages"] if not stage["weight_percent"]]
        records = found.workers()
        for record in records if gone else ():
            if record.generations.get(name, 0) >= gone[-1]:
                zero_s.setdefault(record.incarnation, record.seen_at)
        if zero_s and len(zero_s) == len(records):
            break
        time.sleep(0.02)
    callers.rest()
    requests = callers.of(name)
    needed = last_needed(requests)
    harmed = [one for one in requests if one.version == "2" and (one.has_failed or one.is_broken)]
    return {
        "rollout": rollout,
        "stage": found.show(rollout)["stage"],
        "cause": seen.get("cause", ""),
        "took_s": round(max(zero_s.values()) - requests[needed].sent_s, 3) if zero_s and needed is not None else None,
        "last_answer_s": round(_last_answer(requests) - requests[needed].sent_s, 3) if needed is not None else None,
        "harmed": len(harmed),
        "least": sum(requests[i].version == "2" and (requests[i].has_failed or requests[i].is_broken)
                     for i in range(needed + 1)) if needed is not None else None,
        "requests": len(requests),
    }  # fmt: skip


def _last_answer(requests: list[Seen]) -> float:
    """When the last request arrived that the candidate answered."""
    return max((one.sent_s for one in requests if one.version == "2"), default=0.0)


def last_needed(requests: list[Seen]) -> int | None:
    """The place of the request with which the test, or a fact, first had its evidence; None: it never had."""
    plan = parse(plan_of("m"))
    log_threshold, alpha = plan.budget().log_threshold("errors"), plan.risk.rollback * HARD_SHARE / 2
    n = [0, 0]
    k = [0, 0]
    broken = [0, 0]
    for place, one in enumerate(requests):
        side = int(one.version == "2")
        is_bad = one.has_failed or one.is_broken
        n[side] += 1
        k[side] += is_bad
        broken[side] += one.is_broken
        if not (is_bad and side):
            continue
        stage = Stage(1, WEIGHT / 100.0, n[0], n[1], k[0], k[1])
        tolerated = plan.guardrails["errors"].tolerated  # type: ignore[union-attr]
        if label.rollback((stage,), log_threshold, tolerated=tolerated).outcome is Outcome.WORSE:
            return place
        if onsight.is_breaking(broken[1], n[1], broken[0], n[0], alpha):
            return place
    return None
