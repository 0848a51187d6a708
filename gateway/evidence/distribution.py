"""Do the arms' answers, or other values, fall differently into frozen bins? All bins and all edges at once.

Given the bin a request fell in, its arm label is Bernoulli(pi) if the arms do not differ, whatever the common
distribution is and does. With S_b of N_b requests in bin b the candidate's, and BB the two-sided beta-binomial log
e-value of `numeric`,

    P_c = sum_b BB(S_b, N_b; pi, c)                        any change of shape
    Q_ec = BB(left of edge e) + BB(right of edge e)        shifts, as Kolmogorov and Smirnov look for them
    E = 1/2 mean_c exp(P_c) + 1/2 mean_ec exp(Q_ec),       c in {10, 100, 1000}

multiplied over runs of stages with the same pi, and mixed over restarts at later stages as in `label`.

Source: own composition (each request moves one bin, one side of each edge, so each factor has mean 1 given the past).
Guarantee: exact. H0 is plain equality, which two different models never satisfy to the last digit: with enough traffic
any harmless difference is found. So guardrails should tolerate: with `tolerated` = t > 1, H0 is "in every bin the
candidate's share is between 1/t and t times stable's" and E the same mean over one-sided label tests at t and 1/t, of
each bin and of each side of each edge. Exact too. Routing that misses its pi also shows here: check `ratio` first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gateway.evidence import label, sentence
from gateway.evidence.counts import BinnedStage, merge, rows
from gateway.evidence.likelihood import Indices, Labels
from gateway.evidence.numeric import Floats, as_float, log_beta_binomial, log_mean_exp
from gateway.evidence.restarts import mix
from gateway.evidence.verdict import Direction, Outcome, Verdict, outcome_of

PRIOR_WEIGHTS = np.array([10.0, 100.0, 1000.0])  # for changes by the double, by a third, by a tenth


def rollback(
    stages: Sequence[BinnedStage],
    log_threshold: float,
    *,
    tolerated: float = 1.0,
    what: str = "answers",
    bin_names: Sequence[str] | None = None,
) -> Verdict:
    """WORSE when the evidence against "distributed alike", or "within the tolerance", reaches the threshold.

    `effect` is the Kolmogorov-Smirnov distance between the arms, stages weighted by n_c n_b / (n_c + n_b): an estimate,
    biased upwards by about 1/sqrt(n). There is no promote test: what must not move much is a matter of `tolerated`.
    """
    stages = merge(stages)
    n_bins = len(stages[0].stable) if stages else 1
    for stage in stages:
        if len(stage.stable) != n_bins:
            raise ValueError(f"stages: got {len(stage.stable)} bins in stage {stage.index}, expected {n_bins}")
    if tolerated < 1.0:
        raise ValueError(f"tolerated: got {tolerated!r}, expected a factor of 1 or more")
    log_e = log_e_equal(stages) if tolerated == 1.0 else log_e_within(stages, tolerated)
    outcome = outcome_of(Direction.ROLLBACK, log_e, log_threshold)
    n = sum(stage.n for stage in stages)
    differences = _share_above(stages, n_bins)
    if not n:
        return Verdict(Outcome.UNKNOWN, log_e, log_threshold, 0, None, None, rows(stages), "no settled requests yet")
    said = "no comparison of the arms yet"
    if differences.size:
        edge = int(np.argmax(np.abs(differences)))
        name = f"bin {edge + 1}" if bin_names is None else bin_names[edge + 1]
        more = "more" if differences[edge] >= 0.0 else "fewer"
        said = (
            f"of the candidate's {what}, {sentence.percent(abs(float(differences[edge])))} {more} than of stable's"
            f" are in {name} or above, in {sentence.requests(n)} requests"
        )
    ending = sentence.undecided(log_e, log_threshold)
    if outcome is Outcome.WORSE:
        ending = sentence.risk(log_threshold)
    counts = tuple((s.index, s.pi, *s.stable, *s.candidate) for s in stages)
    effect = float(np.max(np.abs(differences))) if differences.size else None
    return Verdict(outcome, log_e, log_threshold, n, effect, None, counts, f"{said}; {ending}")


def log_e_equal(stages: Sequence[BinnedStage]) -> float:
    """ln E of the module's formula, against "the arms are distributed alike"."""
    stages = [stage for stage in merge(stages) if stage.n and 0.0 < stage.pi < 1.0]
    if not stages:
        return 0.0
    candidate = np.array([stage.candidate for stage in stages], np.float64)
    both = candidate + np.array([stage.stable for stage in stages], np.float64)
    pi = np.array([stage.pi for stage in stages])
    hits, all_ = _to_end_of_run(candidate, pi), _to_end_of_run(both, pi)
    left_hits, left = np.cumsum(hits, axis=1)[:, :-1], np.cumsum(all_, axis=1)[:, :-1]
    right_hits, right = hits.sum(axis=1, keepdims=True) - left_hits, all_.sum(axis=1, keepdims=True) - left
    n_bins, n_edges = hits.shape[1], left.shape[1]
    # one call for all: (stages, prior weights, bins | left sides | right sides)
    each = log_beta_binomial(
        np.concatenate([hits, left_hits, right_hits], axis=1)[:, None, :],
        np.concatenate([all_, left, right], axis=1)[:, None, :],
        pi[:, None, None],
        PRIOR_WEIGHTS[None, :, None],
    )
    of_bins = each[:, :, :n_bins].sum(axis=2)
    of_edges = each[:, :, n_bins : n_bins + n_edges] + each[:, :, n_bins + n_edges :]
    ends = np.flatnonzero(np.append(pi[1:] != pi[:-1], True))
    by_bins, by_edges = _with_later_runs(of_bins, ends), _with_later_runs(of_edges, ends)
    parts = [log_mean_exp(by_bins)]
    if n_edges:
        parts.append(log_mean_exp(by_edges.reshape(len(stages), -1)))
    by_start = log_mean_exp(np.stack(parts, axis=-1))
    return mix(by_start, [stage.index for stage in stages]).log_e


def log_e_within(stages: Sequence[BinnedStage], tolerated: float) -> float:
    """ln E against "in every bin the candidate's share is between 1/t and t times stable's".

    If that holds for every bin it holds for every union of bins, so each one-sided label test is valid and so is any
    mean of them: half for the bins, half for both sides of all edges, in each both directions alike.
    """
    merged = merge(stages)
    if not merged:
        return 0.0
    n_bins = len(merged[0].stable)
    candidate = np.array([stage.candidate for stage in merged], np.float64)
    both = candidate + np.array([stage.stable for stage in merged], np.float64)
    # problems: bins, then what is above each edge, then what is below
    k, n = (
        np.concatenate([x, x[:, ::-1].cumsum(axis=1)[:, -2::-1], x.cumsum(axis=1)[:, :-1]], axis=1)
        for x in (candidate, both)
    )
    labels = Labels.from_events([(merged, n, k)], [1.0])
    log_t = np.full(n.shape[1], math.log(tolerated))
    yes, no = np.ones(n.shape[1], bool), np.zeros(n.shape[1], bool)
    above, _ = label.log_e_with_restarts(labels, log_t, yes, yes)
    below, _ = label.log_e_with_restarts(labels, -log_t, no, yes)
    each = log_mean_exp(np.stack([above, below], axis=-1))
    if n_bins == 1:
        return as_float(each[0])
    return as_float(log_mean_exp(np.array([log_mean_exp(each[:n_bins]), log_mean_exp(each[n_bins:])])))


def _to_end_of_run(counts: Floats, pi: Floats) -> Floats:
    """Counts of each stage and the later ones of its run: neighbours with the same pi are one sequence of labels."""
    sums = counts.copy()
    for i in range(len(pi) - 2, -1, -1):
        if pi[i] == pi[i + 1]:
            sums[i] += sums[i + 1]
    return sums


def _with_later_runs(log_es: Floats, ends: Indices) -> Floats:
    """To the evidence from each stage to the end of its run, add that of all later runs."""
    total = log_es.copy()
    for end in ends[-2::-1]:
        begin = int(np.max(ends[ends < end], initial=-1)) + 1
        total[begin : end + 1] += total[end + 1]
    return total


def _share_above(stages: Sequence[BinnedStage], n_bins: int) -> Floats:
    """For each edge, the candidate's share above it less stable's; empty before both arms have requests in a stage."""
    total, weights = np.zeros(n_bins - 1), 0.0
    for stage in stages:
        n_b, n_c = stage.n_stable, stage.n_candidate
        if n_b and n_c:
            weight = n_c / (n_c + n_b) * n_b
            shares = np.array(stage.candidate, np.float64) / n_c - np.array(stage.stable, np.float64) / n_b
            total += weight * np.cumsum(shares[::-1])[::-1][1:]
            weights += weight
    return total / weights if weights else np.zeros(0)
