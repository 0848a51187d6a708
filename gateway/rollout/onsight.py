"""The rules that need no second look, on plain counts: `hard` asks them of all workers, each worker of itself.

They stand apart because a worker must not pay for what a judge imports. Each blames only for what stable does not do
with requests of the same kind, and is wrong with probability `alpha` at most for a candidate that is like stable.
"""

from __future__ import annotations

LEAST_BROKEN = 3
LEAST_RUN = 5
LEAST_ANSWERS = 20  # before failures in a row mean anything: the first requests meet cold caches
INCIDENT_RUN = 3  # failures in a row of stable: then it is not the candidate alone
LEAST_CONSTANT = 100  # equal answers in a row, and so many times as many as stable ever gave:
CONSTANT_TIMES = 5


def is_breaking(broken: int, n: int, broken_stable: int, n_stable: int, alpha: float) -> bool:
    """The first k broken answers were all the candidate's: by chance that has probability q^k, q its share of all."""
    if broken < LEAST_BROKEN or broken_stable:
        return False  # what stable gives as well is compared, by the guardrail `broken`
    if not n_stable:
        return True  # it passed its golden examples, which have no such thing
    return bool((n / (n + n_stable)) ** broken <= alpha)


def is_failing(run: int, n: int, run_stable: int, failed_stable: int, n_stable: int, alpha: float) -> bool:
    """So many in a row, somewhere in all its requests, are less likely than alpha for a version that is like stable."""
    if run < LEAST_RUN or n < LEAST_ANSWERS or run_stable >= INCIDENT_RUN:
        return False
    share = (failed_stable + 1) / (n_stable + 2)
    return bool(share**run * n <= alpha)


def is_constant(same: int, same_stable: int) -> bool:
    """It says the same to everybody, and stable does not."""
    return same >= max(LEAST_CONSTANT, CONSTANT_TIMES * same_stable)
