"""Facts that need no second look: broken answers, failures in a row, a candidate that is gone.

They are counted as they happen, before the evidence is settled, so that a version which harms everybody it answers is
gone within a second. A rule that blames on sight must not blame for what stable does as well: each asks what stable did
with the same requests, and has a part of HARD_SHARE of the plan's risk.
"""

from __future__ import annotations

from gateway.rollout import onsight
from gateway.rollout.onsight import INCIDENT_RUN, LEAST_BROKEN
from gateway.rollout.phase import Stage, is_serving
from gateway.rollout.plan import HARD_SHARE, Plan
from gateway.rollout.snapshot import Facts, Snapshot, Worker

LEAST_CRASHES = 3  # of workers; one or two may be anybody's
_RULES = 2  # that share the risk: broken answers and failures in a row


def blamed(plan: Plan, snapshot: Snapshot) -> tuple[str, ...]:
    """What the candidate is taken back for at once, one sentence each."""
    facts, alpha = snapshot.facts, plan.risk.rollback * HARD_SHARE / _RULES
    found = []
    if facts.broken_pairs >= LEAST_BROKEN:
        found.append(f"the candidate alone gave {facts.broken_pairs} broken answers (NaN, infinity, shape) in shadow")
    if _is_breaking(snapshot, alpha):
        of = f"{facts.broken_candidate} of {facts.n_candidate}"
        found.append(f"the candidate gave broken answers (NaN, infinity, shape) to {of} requests, stable to none")
    if _is_failing(snapshot, alpha):
        found.append(
            f"the candidate failed {facts.run_candidate} requests in a row ({facts.failed_candidate} of"
            f" {facts.n_candidate} in all), stable {facts.failed_stable} of {facts.n_stable}"
        )
    if onsight.is_constant(facts.constant_candidate, facts.constant_stable):
        found.append(
            f"the candidate gave {facts.constant_candidate} different requests the same answer, stable at most"
            f" {facts.constant_stable}"
        )
    if facts.crashes >= LEAST_CRASHES:
        found.append(f"{facts.crashes} workers died while the candidate was with them")
    if is_lost(snapshot):
        found.append("no worker has the candidate ready any more")
    if not shared_incident(facts):
        found += [f"worker {worker.incarnation} took weight from it: {worker.lowered}" for worker in lowered(snapshot)]
    return tuple(found)


def shared_incident(facts: Facts) -> str:
    """Both versions fail at once: somebody else's fault, and no time for a decision. Empty when there is none."""
    if min(facts.run_stable, facts.run_candidate) < INCIDENT_RUN:
        return ""
    return f"both versions fail: stable {facts.run_stable} times in a row, the candidate {facts.run_candidate}"


def lowered(snapshot: Snapshot) -> list[Worker]:
    return [worker for worker in snapshot.workers if worker.lowered]


def is_lost(snapshot: Snapshot) -> bool:
    """It has callers, or copies of their requests, and nobody can run it."""
    sees_requests = is_serving(snapshot.cursor.stage) or snapshot.cursor.stage is Stage.SHADOW
    return sees_requests and bool(snapshot.workers) and not any(worker.candidate_ready for worker in snapshot.workers)


def _is_breaking(snapshot: Snapshot, alpha: float) -> bool:
    facts, baseline = snapshot.facts, snapshot.baseline
    broken_stable, n_stable = facts.broken_stable + baseline.n_broken, facts.n_stable + baseline.n
    return onsight.is_breaking(facts.broken_candidate, facts.n_candidate, broken_stable, n_stable, alpha)


def _is_failing(snapshot: Snapshot, alpha: float) -> bool:
    facts, baseline = snapshot.facts, snapshot.baseline
    failed_stable, n_stable = facts.failed_stable + baseline.n_errors, facts.n_stable + baseline.n
    return onsight.is_failing(facts.run_candidate, facts.n_candidate, facts.run_stable, failed_stable, n_stable, alpha)
