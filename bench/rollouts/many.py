"""Many rollouts at once: candidates that are stable's twin, and what the control process spends on watching."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.rollouts.world import Callers, World, model, world

AT_ONCE, AA_RATE_PER_S = 10, 60.0
AA_PATIENCE_S = 90.0
LIVE, LIVE_RATE_PER_S, WATCHED_S = 50, 10.0, 20.0
OVER = ("promoted", "rolled_back", "refused", "needs_operator")


def alike(gateway: Path, scratch: Path, n: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Rollouts from acceptance to promotion, all guardrails on: none of them should go back."""
    names = [f"a{i}" for i in range(n)]
    versions = {name: {1: model(label=name), 2: model(label=f"{name} candidate")} for name in names}
    ended: Counter[str] = Counter()
    reasons, took_s = [], []
    with world(gateway, scratch, versions) as found, Callers(found.port) as callers:
        for first in range(0, n, AT_ONCE):
            batch = names[first : first + AT_ONCE]
            callers.rates = dict.fromkeys(batch, AA_RATE_PER_S)
            time.sleep(8.0)  # stable's latency is known from tiles, which are told every 5 s
            began_s = time.monotonic()
            rollouts = {found.start(_short(name)): name for name in batch}
            for rollout in rollouts:
                patience_s = AA_PATIENCE_S - (time.monotonic() - began_s)
                seen = found.wait(rollout, OVER, max(patience_s, 1.0))
                ended[seen["stage"]] += 1
                if seen["stage"] == "promoted":
                    took_s.append(time.monotonic() - began_s)
                else:
                    reasons.append(
                        f"{rollouts[rollout]}: {seen['stage']}: {seen['reason'] or seen['status'].get('headline')}"
                    )
                    found.ask("POST", f"/v1/rollouts/{rollout}/abort", {"reason": "time is over"})
            say(f"{first + len(batch)} of {n}: {dict(ended)}")
        harmed = sum(one.has_failed or one.is_broken for one in callers.seen)
        return {
            "rollouts": n, "ended": dict(ended), "not_promoted": reasons, "requests": len(callers.seen),
            "failed_requests": harmed, "lost_requests": callers.n_lost,
        }  # fmt: skip


def _short(name: str) -> dict[str, Any]:
    quick = {"min_time": "1s", "max_time": "10min", "min_requests": 20}
    return {
        "model": name, "candidate": 2, "strategy": "canary",
        "steps": [{"weight": 20, **quick}, {"weight": 50, **quick}],
        "bake": {"time": "1s", "max_time": "10min", "control": 20, "min_requests": 20},
        "guardrails": {
            "errors": {"margin": 10, "negligible": 0.05},
            "latency": {"margin": 20, "tolerated": 2, "quantiles": [0.5], "shown": 0.5},
        },
        "acceptance": {"latency": 100},
    }  # fmt: skip


def controller(gateway: Path, scratch: Path, n: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Processor time of the control process with n live rollouts, beside none."""
    names = [f"c{i}" for i in range(n)]
    versions = {name: {1: model(label=name), 2: model(label=f"{name} candidate")} for name in names}
    with world(gateway, scratch, versions) as found, Callers(found.port) as callers:
        callers.rates = dict.fromkeys(names, LIVE_RATE_PER_S)
        time.sleep(8.0)
        idle = _share(found)
        say(f"none live: {idle:.1%} of a core")
        rollouts = [found.start(_long(name)) for name in names]
        n_live = sum(found.wait(rollout, ("step",), 120.0)["stage"] == "step" for rollout in rollouts)
        time.sleep(3.0)
        live = _share(found)
        say(f"{n_live} live: {live:.1%} of a core")
        return {
            "rollouts": n_live,
            "cores_idle": round(idle, 4),
            "cores": round(live, 4),
            "requests": len(callers.seen),
        }


def _share(found: World) -> float:
    before_s, began_s = found.control_cpu_s(), time.monotonic()
    time.sleep(WATCHED_S)
    return (found.control_cpu_s() - before_s) / (time.monotonic() - began_s)


def _long(name: str) -> dict[str, Any]:
    return {
        "model": name, "candidate": 2, "strategy": "canary",
        "steps": [{"weight": 20, "min_time": "1h", "max_time": "2h"}, {"weight": 50}],
        "guardrails": {"latency": {"quantiles": [0.5, 0.9, 0.95]}}, "acceptance": {"latency": 100},
    }  # fmt: skip
