"""The detector: its recursion against a slow twin, its budget by simulation, and what it must not do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gateway.monitoring import detector
from gateway.monitoring.detector import Evidence, State

MINUTE_S = 60
NOBODY = np.zeros(1, bool)


def evidence(score: float, tolerated: float = 0.0, major: float = 0.0) -> Evidence:
    return Evidence(np.array([score]), np.array([tolerated]), np.array([major]))


def run(scores: list[float], **more: float) -> State:
    state = State.new(1)
    for at, score in enumerate(scores):
        chance = detector.uniforms("seed", ["x"], at * MINUTE_S)
        state, _ = detector.step(state, at * MINUTE_S, evidence(score, **more), NOBODY, chance)
    return state


def learnt_day(rng: np.random.Generator, n_columns: int = 1, days: int = 1) -> State:
    """A day of windows of which none said anything."""
    starts = np.arange(days * 1440) * MINUTE_S
    rows = tuple(rng.normal(size=n_columns).astype(np.float32) for _ in starts)
    return State(
        starts, rows, np.full(n_columns, -np.inf), *(np.zeros(n_columns) for _ in range(4)), np.ones(n_columns)
    )


def test_before_it_has_learnt_only_what_is_major_counts() -> None:
    state = run([9.0] * 5, tolerated=20.0, major=0.0)
    assert math.exp(state.log_m[0]) == pytest.approx(5.0)  # M = M + 1 at e = 1
    state = run([9.0], tolerated=20.0, major=30.0)
    assert state.log_m[0] == pytest.approx(30.0)


def test_the_recursion_and_the_beginning_are_those_of_a_slow_twin() -> None:
    rng = np.random.default_rng(7)
    log_es = rng.normal(-0.5, 2.0, size=200)
    state, m, run_best = State.new(1), 0.0, 0.0
    for at, log_e in enumerate(log_es):
        state, _ = detector.step(state, at * 60, evidence(0.0, major=float(log_e)), NOBODY, np.array([0.5]))
        m = (m + 1.0) * math.exp(log_e)
        best = max((sum(log_es[start : at + 1]), -start) for start in range(at + 1))
        assert state.log_m[0] == pytest.approx(math.log(m))
        run_best = state.log_run[0]
        assert run_best == pytest.approx(best[0])
        if run_best > 0.0:
            assert state.since_s[0] == -best[1] * 60


def test_once_learnt_a_window_like_those_before_excuses_any_distance_but_a_major_one() -> None:
    rng = np.random.default_rng(8)
    state = learnt_day(rng)
    step = evidence(0.0, tolerated=50.0)
    _, said = detector.step(state, 1440 * MINUTE_S, step, NOBODY, np.array([0.5]))
    assert said.n_like[0] == 181  # 90 minutes before that time of the day before, and 90 after
    assert said.log_e[0] < 0.5
    _, said = detector.step(state, 1440 * MINUTE_S, evidence(9.0, 50.0, 50.0), NOBODY, np.array([0.5]))
    assert said.log_e[0] == pytest.approx(50.0 - math.log(10.0), abs=0.1)


def test_a_major_distance_that_the_day_before_had_at_that_time_is_excused() -> None:
    state = learnt_day(np.random.default_rng(8))
    greatest = max(float(row[0]) for row in state.scores[:91])
    for score, is_excused in ((greatest, True), (1.4 * greatest, True), (1.6 * greatest, False)):
        _, said = detector.step(state, 1440 * MINUTE_S, evidence(score, -3.0, 50.0), NOBODY, np.array([0.5]))
        assert (said.log_e[0] < 0.5) == is_excused


def test_once_learnt_a_tolerated_distance_is_excused_however_unusual() -> None:
    state = learnt_day(np.random.default_rng(8))
    _, said = detector.step(state, 1440 * MINUTE_S, evidence(99.0, tolerated=-3.0), NOBODY, np.array([0.5]))
    assert said.p[0] < 1 / 180
    assert said.log_e[0] < -1.5


def test_only_windows_of_the_same_time_of_day_are_like() -> None:
    state = learnt_day(np.random.default_rng(9), days=2)
    like = state.starts_s[state.like(2 * 86400 + 600)] % 86400
    assert set(np.minimum(like, 86400 - like) // 3600) == {0, 1}
    assert like.size == 2 * 181


def test_ranks_of_exchangeable_windows_are_uniform() -> None:
    rng = np.random.default_rng(10)
    state, ps = learnt_day(rng, 50), []
    for at in range(1440, 1500):
        step = Evidence(rng.normal(size=50), np.zeros(50), np.zeros(50))
        chance = detector.uniforms("s", [str(k) for k in range(50)], at * 60)
        state, said = detector.step(state, at * 60, step, np.zeros(50, bool), chance)
        ps.append(said.p)
    found = np.concatenate(ps)
    for level in (0.01, 0.1, 0.5, 0.9):
        assert abs((found <= level).mean() - level) < 4 * math.sqrt(level * (1 - level) / found.size) + 0.004


def test_pages_come_no_oftener_than_the_budget_says_when_the_baseline_says_nothing() -> None:
    """e_tolerated and e_major at the worst that they may be: drawn with mean 1."""
    rng = np.random.default_rng(11)
    n_columns, n_windows, threshold = 400, 600, math.log(200.0)  # each column on its own, A = 200 windows
    state, pages = State.new(n_columns), 0
    for at in range(n_windows):
        log_e = rng.normal(-0.5, 1.0, size=n_columns)  # lognormal of mean 1
        state, _ = detector.step(
            state,
            at * 60,
            Evidence(np.zeros(n_columns), log_e, log_e),
            np.zeros(n_columns, bool),
            np.full(n_columns, 0.5),
        )
        fired = state.log_m >= threshold
        pages += int(fired.sum())
        state = state.restarted(fired)
    expected = n_columns * n_windows / 200
    assert pages <= expected + 3 * math.sqrt(expected)


def test_a_held_column_gathers_nothing_teaches_nothing_and_counts_its_calm() -> None:
    state = run([0.0] * 3, major=2.0)
    held, _ = detector.step(state, 180, evidence(0.5, major=9.0), np.array([True]), np.array([0.5]))
    assert held.log_m[0] == state.log_m[0]
    assert np.isnan(held.scores[-1][0])
    assert held.calm[0] == state.calm[0] + 1


def test_a_column_without_rows_is_left_alone() -> None:
    state = run([0.0] * 3, major=2.0)
    after, said = detector.step(state, 180, evidence(np.nan, 9.0, 9.0), NOBODY, np.array([0.5]))
    assert (after.log_m[0], after.n_windows[0], after.calm[0]) == (state.log_m[0], 3, 3)
    assert said.log_e[0] == 0.0


def test_a_restart_forgets_the_evidence_and_keeps_what_was_learnt() -> None:
    state = run([0.0] * 3, major=2.0).restarted(np.array([True]))
    assert state.log_m[0] == -np.inf
    assert state.n_windows[0] == 0
    assert len(state.scores) == 3


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "MAX_WINDOWS", 5)
    state = run([float(at) for at in range(9)])
    assert state.starts_s.tolist() == [240, 300, 360, 420, 480]
    assert [float(row[0]) for row in state.scores] == [4.0, 5.0, 6.0, 7.0, 8.0]


def test_windows_that_hang_together_are_found_and_those_that_do_not_count_each() -> None:
    rng = np.random.default_rng(12)
    fresh = rng.normal(size=(1440, 200))
    slow = fresh.copy()
    for at in range(1, 1440):
        slow[at] = 0.9 * slow[at - 1] + fresh[at]
    daily = fresh + 3.0 * np.sin(2 * np.pi * np.arange(1440) / 1440)[:, None]
    times = [detector.windows_together(each.astype(np.float32)) for each in (fresh, slow, daily)]
    assert np.median(times[0]) < 1.1
    assert 9.0 < np.median(times[1]) < 22.0  # (1 + .9) / (1 - .9) = 19, less what smoothing takes
    assert np.median(times[2]) < 1.3


def test_an_excursion_of_slow_traffic_counts_once_however_many_windows_it_lasts() -> None:
    state = learnt_day(np.random.default_rng(8))
    alone, _ = detector.step(state, 1440 * 60 + 60, evidence(9.0, tolerated=50.0), NOBODY, np.array([0.5]))
    together, _ = detector.step(
        replace(state, together=np.array([10.0])),
        1440 * 60 + 60,
        evidence(9.0, tolerated=50.0),
        NOBODY,
        np.array([0.5]),
    )
    assert together.log_m[0] == pytest.approx(alone.log_m[0] / 10.0, abs=0.15)


def test_the_column_that_moved_is_named_and_its_neighbours_are_not() -> None:
    names = [f"x{at}" for at in range(50)]
    state = State.new(50)
    major = np.where(np.arange(50) == 7, 12.0, -1.0)
    for at in range(3):
        state, _ = detector.step(
            state, at * 60, Evidence(np.zeros(50), major, major), np.zeros(50, bool), np.full(50, 0.5)
        )
    assert detector.named(state, names) == ("x7",)


def test_what_has_gathered_over_a_long_time_names_nobody() -> None:
    """M of ten thousand is what to expect after ten thousand windows in which nothing was wrong."""
    state = replace(State.new(2), log_m=np.log([10_000.0, 1.0]))
    assert detector.named(replace(state, n_windows=np.array([10_000, 1])), ("x", "y")) == ()
    assert detector.named(replace(state, n_windows=np.array([10, 1])), ("x", "y")) == ("x",)


def test_what_stands_for_chance_is_the_same_in_every_replay_and_spread_evenly() -> None:
    names = [str(at) for at in range(2000)]
    first = detector.uniforms("seed", names, 60)
    assert (first == detector.uniforms("seed", names, 60)).all()
    assert not (first == detector.uniforms("seed", names, 120)).any()
    assert abs(first.mean() - 0.5) < 0.03
    assert first.min() > 0.0
    assert first.max() < 1.0


def test_the_threshold_is_columns_times_windows_times_days() -> None:
    assert detector.log_threshold(50, 1440, 30.0) == pytest.approx(math.log(50 * 1440 * 30))
