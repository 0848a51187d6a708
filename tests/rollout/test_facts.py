"""Who is blamed on sight, and who is not because stable does the same."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gateway.rollout.baseline import Baseline
from gateway.rollout.cursor import Cursor
from gateway.rollout.hard import blamed, shared_incident
from gateway.rollout.phase import Stage
from gateway.rollout.snapshot import Facts, Now, Snapshot, Worker
from tests.support.rollouts import plan

HEALTHY = Worker("w0", 1, 500, True, True)


def blame(facts: Facts, baseline: Baseline | None = None, *workers: Worker) -> tuple[str, ...]:
    cursor = Cursor("", Stage.STEP, 0, 1, 500)
    known = baseline or Baseline(n=10_000)
    return blamed(plan(), Snapshot(cursor, Now(1.0), workers or (HEALTHY,), facts=facts, baseline=known))


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (Facts(n_stable=900, n_candidate=50, broken_candidate=3), "gave broken answers"),
        (Facts(n_candidate=20, run_candidate=5, failed_candidate=5, n_stable=400), "failed 5 requests in a row"),
        (Facts(broken_pairs=3), "in shadow"),
        (Facts(constant_candidate=100, constant_stable=3), "the same answer"),
        (Facts(crashes=3), "3 workers died"),
    ],
)
def test_a_candidate_is_blamed_for_what_stable_does_not_do(facts: Facts, says: str) -> None:
    found = blame(facts)
    assert len(found) == 1
    assert says in found[0]


@pytest.mark.parametrize(
    "facts",
    [
        Facts(),
        Facts(n_stable=900, n_candidate=50, broken_candidate=2),
        Facts(n_stable=900, n_candidate=50, broken_candidate=3, broken_stable=1),
        Facts(n_candidate=19, run_candidate=5, failed_candidate=5, n_stable=400),
        Facts(n_candidate=500, run_candidate=50, run_stable=3, n_stable=400, failed_stable=300),
        Facts(n_candidate=5000, run_candidate=5, n_stable=9000, failed_stable=3000),
        Facts(constant_candidate=100, constant_stable=21),
        Facts(crashes=2),
    ],
)
def test_a_candidate_is_not_blamed_for_little_or_for_what_stable_does_too(facts: Facts) -> None:
    assert blame(facts) == ()


def test_at_even_weights_and_without_a_baseline_it_takes_more_broken_answers_to_blame() -> None:
    few, more = (Facts(n_stable=500, n_candidate=500, broken_candidate=k) for k in (6, 12))
    assert blame(few, Baseline()) == ()
    assert blame(more, Baseline()) != ()


def test_a_candidate_that_no_worker_has_is_lost() -> None:
    gone = Worker("w0", 1, 500, False, True)
    assert blame(Facts(), None, gone) == ("no worker has the candidate ready any more",)
    assert blame(Facts(), None, gone, HEALTHY) == ()


def test_a_worker_that_took_weight_away_is_believed_unless_stable_fails_as_well() -> None:
    worker = Worker("w0", 1, 0, True, True, lowered="5 failures in a row")
    assert "w0 took weight from it: 5 failures in a row" in blame(Facts(), None, worker)[0]
    assert blame(Facts(run_stable=4, run_candidate=5), None, worker) == ()


def test_an_incident_is_shared_when_both_fail_in_a_row() -> None:
    assert "both versions fail" in shared_incident(Facts(run_stable=3, run_candidate=5))
    assert shared_incident(Facts(run_stable=2, run_candidate=50)) == ""


def test_a_version_like_stable_is_blamed_for_a_row_of_failures_less_often_than_the_risk_says() -> None:
    rng = np.random.default_rng(7)
    n, share, n_false = 2000, 0.2, 0
    for _ in range(200):
        fails = rng.random(n) < share
        ends = np.flatnonzero(~np.append(fails, False))
        longest = int(np.max(np.diff(np.append(-1, ends))) - 1)
        failed = round(share * 10_000)
        facts = Facts(n_candidate=n, run_candidate=longest, n_stable=10_000, failed_stable=failed)
        n_false += bool(blame(facts, Baseline()))
    assert n_false <= 200 * plan().risk.rollback * 0.1 + 3 * math.sqrt(200 * 0.001) + 1
