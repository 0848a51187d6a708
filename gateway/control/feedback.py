"""What callers have reported, as a decision about a rollout reads it: integers by epoch and arm, one value a request.

Reports are read from the store in the order in which they were written, and each once: what was counted is remembered
between two looks. Only requests that were drawn for `stable` or `candidate` count, with the probability that their token
says; who named a version was not drawn. What came in for another generation of the route than those of `stages` waits
until that generation is among them.

    metric       bins    by level, of the value of the guardrail's name; LEVELS + 1 bins
    fairness     groups  requests with the event, by group and arm
    correctness  pairs   shadow pairs with a label: only those three counts; `n` and `n_differ` are 0 here and are the
                         comparer's to add, for this guardrail too (see Evidence.compared)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from gateway.rollout.evidence import Evidence
from gateway.rollout.plan import Plan

if TYPE_CHECKING:
    from gateway.store import Store

LEVELS = 100
"""K of evidence.betting: a metric is counted at one of K + 1 levels, dithered by the token's random id, so that the mean
of the levels is the mean of the values.
"""


class Watched(Protocol):
    """gateway.control.evidence.Watched has these."""

    @property
    def model(self) -> str: ...

    @property
    def stages(self) -> Mapping[int, tuple[int, float]]:
        """Generation of the route -> (epoch, probability of the candidate)."""

    @property
    def plan(self) -> Plan: ...


def evidence(store: Store, watched: Watched) -> Evidence:
    """Of the plan's guardrails that read feedback; add it to the others' with `+`. Empty, without a look at the store,
    when the plan has none. StoreUnavailable.
    """
    return Evidence()  # nothing is counted yet
