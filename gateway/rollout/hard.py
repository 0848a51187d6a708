"""Facts that need no second look: broken answers, failures in a row, a candidate that is gone.

They are counted as they happen, before the evidence is settled, so that a version which harms everybody it answers is
gone within a second. A rule that blames on sight must not blame for what stable does as well: each asks what stable did
with the same requests, and has a part of HARD_SHARE of the plan's risk.
"""

from __future__ import annotations

from gateway.rollout.phase import Stage, is_serving
from gateway.rollout.plan import HARD_SHARE, Plan
from gateway.rollout.snapshot import Facts, Snapshot, Worker

LEAST_BROKEN = 3
LEAST_RUN = 5
LEAST_ANSWERS = 20  # before failures in a row mean anything: the first requests meet cold caches
INCIDENT_RUN = 3  # failures in a row of stable: then it is not the candidate alone
LEAST_CONSTANT = 100  # equal answers in a row, and so many times as many as stable ever gave:
CONSTANT_TIMES = 5
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
    if facts.constant_candidate >= max(LEAST_CONSTANT, CONSTANT_TIMES * facts.constant_stable):
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
    """The first k broken answers were all the candidate's: by chance that has probability q^k, q its share of all."""
    facts, baseline = snapshot.facts, snapshot.baseline
    k = facts.broken_candidate
    if k < LEAST_BROKEN or facts.broken_stable or baseline.n_broken:
        return False  # what stable gives as well is compared, by the guardrail `broken`
    n_stable = facts.n_stable + baseline.n
    if not n_stable:
        return True  # it passed its golden examples, which have no such thing
    share = facts.n_candidate / (facts.n_candidate + n_stable)
    return bool(share**k <= alpha)


def _is_failing(snapshot: Snapshot, alpha: float) -> bool:
    """So many in a row, somewhere in all its requests, are less likely than alpha for a version that is like stable."""
    facts, baseline = snapshot.facts, snapshot.baseline
    if facts.run_candidate < LEAST_RUN or facts.n_candidate < LEAST_ANSWERS or facts.run_stable >= INCIDENT_RUN:
        return False
    share = (facts.failed_stable + baseline.n_errors + 1) / (facts.n_stable + baseline.n + 2)
    return bool(share**facts.run_candidate * facts.n_candidate <= alpha)
