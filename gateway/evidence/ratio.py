"""Does the traffic split as it was drawn? The check that all other tests stand on.

Each request falls on the candidate with the probability pi of its stage. If the counted requests do not, requests are
lost or counted twice on one arm, or pi is not what was recorded, and no label test may be believed. Then decisions
freeze: neither rollback nor promotion on evidence, until someone has looked.

    log E = sum over runs of stages with the same pi of BB(n_candidate, n; pi, c),  c = 1000;   see `numeric`

Source: sequential sample-ratio test, Lindon & Malek (arXiv 2011.03567), with a beta prior, staged.
Guarantee: exact, if arms are drawn request by request. With sticky routing the unit drawn is the key: count each key
once a stage, or heavy users look like a broken split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gateway.evidence import sentence
from gateway.evidence.counts import Stage, merge
from gateway.evidence.numeric import log_beta_binomial
from gateway.evidence.verdict import Outcome, Verdict

PRIOR_WEIGHT = 1000.0  # finds a tenth more or less after some 10,000 requests
ALPHA = 0.001  # usual risk: a frozen rollout costs a look by a person


def check(stages: Sequence[Stage], log_threshold: float) -> Verdict:
    """UNKNOWN when the split is not the drawn one: freeze. UNDECIDED otherwise; a check never says OK or WORSE.

    `effect` is the candidate's requests over the expected number (1 is as drawn). Only n_stable and n_candidate count.
    """
    stages = merge(stages)
    log_e = log_e_of_split(stages)
    drawn = [stage for stage in stages if 0.0 < stage.pi < 1.0]
    n, seen = sum(stage.n for stage in drawn), sum(stage.n_candidate for stage in drawn)
    expected = sum(stage.pi * stage.n for stage in drawn)
    fired = log_e >= log_threshold
    if not n:
        said = "no requests yet whose arm was drawn"
    else:
        shares = f"{sentence.percent(seen / n)} of {sentence.requests(n)} requests are the candidate's"
        said = f"{shares}, {sentence.percent(expected / n)} were to be; "
        if fired:
            said += f"routing or counting is at fault and decisions are frozen; {sentence.risk(log_threshold)}"
        else:
            said += (
                f"no sign of a broken split: {sentence.undecided(log_e, log_threshold).removeprefix('not decided: ')}"
            )
    return Verdict(
        outcome=Outcome.UNKNOWN if fired or not n else Outcome.UNDECIDED,
        log_e=log_e,
        log_threshold=log_threshold,
        n=n,
        effect=seen / expected if n else None,
        interval=None,
        counts=tuple((stage.index, stage.pi, stage.n_stable, stage.n_candidate) for stage in stages),
        sentence=said,
    )


def log_e_of_split(stages: Sequence[Stage]) -> float:
    """ln E of the module's formula."""
    runs: list[tuple[float, int, int]] = []
    for stage in merge(stages):
        if 0.0 < stage.pi < 1.0:
            if runs and runs[-1][0] == stage.pi:
                runs[-1] = (stage.pi, runs[-1][1] + stage.n_candidate, runs[-1][2] + stage.n)
            else:
                runs.append((stage.pi, stage.n_candidate, stage.n))
    if not runs:
        return 0.0
    pi, seen, n = np.array(runs, np.float64).T
    return float(np.add.accumulate(log_beta_binomial(seen, n, pi, PRIOR_WEIGHT))[-1])


def freeze(verdict: Verdict, split: Verdict) -> Verdict:
    """The verdict as it stands if the split is sound; otherwise UNKNOWN, with its numbers and the split's sentence."""
    if split.log_e < split.log_threshold:
        return verdict
    return replace(verdict, outcome=Outcome.UNKNOWN, sentence=f"frozen: {split.sentence}")
