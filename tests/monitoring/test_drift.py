"""`assess` on streams of tiles: what pages, what does not, and what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.monitoring import drift, driftstate
from gateway.monitoring.baseline import SCHEMA, Baseline, Settings
from gateway.monitoring.drift import DriftState
from gateway.monitoring.driftreport import DriftReport
from gateway.monitoring.profile import Profile
from tests.support import drifting
from tests.support.drifting import START_S, WORDS, tile

N_COLUMNS = 8


def a_profile(digest: str = "0" * 64) -> Profile:
    rng = np.random.default_rng(20)
    columns = [drifting.numeric(f"x{at}", rng.normal(at, 2.0, size=4000), at) for at in range(N_COLUMNS)]
    columns.append(drifting.categorical("colour", rng.choice(WORDS, p=[0.5, 0.3, 0.2], size=4000).tolist()))
    return drifting.profile(
        columns, [drifting.numeric("score", rng.beta(2, 5, size=4000), None, "score")], digest=digest
    )


PROFILE = a_profile()
BASELINE = Baseline.of(PROFILE)


def rows(rng: np.random.Generator, n: int = 400) -> dict[str, Any]:
    values: dict[str, Any] = {f"x{at}": rng.normal(at, 2.0, size=n) for at in range(N_COLUMNS)}
    values["colour"] = rng.choice(WORDS, p=[0.5, 0.3, 0.2], size=n).tolist()
    values["score"] = rng.beta(2, 5, size=n)
    return values


class Stream:
    """Minutes one after the other, each judged when it is over."""

    def __init__(self, baseline: Baseline = BASELINE, of: Profile = PROFILE) -> None:
        self.rng = np.random.default_rng(21)
        self.baseline, self.of = baseline, of
        self.state: DriftState | None = None
        self.minute = 0
        self.held: frozenset[str] = frozenset()

    def feed(
        self, n_minutes: int = 1, n: int = 400, accepted: frozenset[str] = frozenset(), **changed: Any
    ) -> DriftReport:
        """`changed`: column -> function of its values."""
        n_violations = changed.pop("n_violations", 0)
        n_requests = changed.pop("n_requests", None)
        for _ in range(n_minutes):
            values = rows(self.rng, n)
            for name, change in changed.items():
                values[name] = change(values[name])
            one = tile(self.of, values, self.minute, n_violations=n_violations, n_requests=n_requests)
            now_s = START_S + 60 * self.minute + 71
            report, self.state = drift.assess(self.baseline, [one], self.state, now_s, self.held, accepted)
            accepted = frozenset()
            self.minute += 1
        return report


def test_traffic_like_the_baseline_is_silent() -> None:
    report = Stream().feed(30)
    assert report.pages == ()
    assert report.sentence == f"nothing drifted in {N_COLUMNS + 3} columns"
    assert {column.status for column in report.columns} == {"ok"}


def test_a_column_that_drifts_pages_in_the_first_window_and_says_which_how_far_and_since_when() -> None:
    stream = Stream()
    stream.feed(5)
    report = stream.feed(1, x3=lambda x: x + 2.0)
    assert report.pages == ("x3",)
    worst = report.columns[0]
    assert (worst.name, worst.status, worst.side) == ("x3", "alarm", "input")
    assert worst.sentence.startswith(("mean 4.9", "mean 5.0", "mean 5.1", "mean 4.8", "mean 5,"))
    assert worst.since == START_S + 5 * 60
    psi = worst.windows["1m"].psi
    assert psi is not None
    assert 0.7 < psi < 1.4
    assert report.sentence == f"inputs drifted (x3; 1 of {N_COLUMNS + 1}), outputs hold"


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("x0", lambda x: np.where(np.arange(x.size) % 5 == 0, np.nan, x), "20 % missing, was 0 %"),
        ("x0", lambda x: np.where(np.arange(x.size) % 5 == 0, np.inf, x), "20 % missing, was 0 %"),
        ("x0", lambda x: x * 3, "spread"),
        ("x0", lambda x: np.full(x.size, 0.5), "spread 0, was 2"),
        ("x0", lambda x: np.where(np.arange(x.size) % 5 == 0, 1e6, x), "out of range"),
        ("colour", lambda x: ["pink" if at % 5 == 0 else each for at, each in enumerate(x)], "20 % unseen before"),
        ("colour", lambda x: ["" if at % 5 == 0 else each for at, each in enumerate(x)], "20 % missing"),
        ("colour", lambda x: ["blue"] * len(x), "blue 100 %, was 21 %"),
    ],
    ids=["nan", "infinity", "scale", "constant", "outlier", "new-category", "missing-word", "one-category"],
)
def test_every_kind_of_change_is_found_within_two_windows_and_named(name: str, change: Any, says: str) -> None:
    stream = Stream()
    stream.feed(3)
    report = stream.feed(2, **{name: change})
    assert report.pages == (name,)
    assert says in report.column(name).sentence


def test_output_drift_and_malformed_requests_are_told_apart_from_input_drift() -> None:
    stream = Stream()
    stream.feed(3)
    report = stream.feed(2, score=lambda x: np.sqrt(x))
    assert report.pages == ("score",)
    assert "outputs drifted (score; 1 of 1) while no input did by itself" in report.sentence
    stream = Stream()
    stream.feed(3)
    report = stream.feed(2, n_violations=100)
    assert report.pages == (SCHEMA,)
    assert report.sentence == "requests do not fit the model: a client changed what it sends"
    assert report.column(SCHEMA).sentence == "20 % of requests do not fit the model"


def test_requests_of_many_rows_that_are_alike_do_not_page() -> None:
    """Four customers a minute with a hundred equal rows each."""
    stream = Stream()
    report = stream.feed(30, n_requests=4, **{f"x{at}": lambda x: np.repeat(x[:4], 100) for at in range(N_COLUMNS)})
    assert report.pages == ()


def test_quiet_minutes_are_put_together_until_they_say_something() -> None:
    stream = Stream()
    report = stream.feed(9, n=10)
    assert {column.status for column in report.columns} == {"waiting"}
    assert report.sentence.startswith("nothing judged yet")
    report = stream.feed(1, n=10)
    assert {column.status for column in report.columns} == {"ok"}
    assert len(stream.state.detector.scores) == 1  # type: ignore[union-attr]


def test_a_minute_is_judged_once_and_late_tiles_still_show() -> None:
    values = rows(np.random.default_rng(1))
    on_time, late = tile(PROFILE, values, 0, "a"), tile(PROFILE, values, 0, "b")
    report, state = drift.assess(BASELINE, [on_time], None, START_S + 71)
    assert report.requests["10m"] == 400
    report, after = drift.assess(BASELINE, [late], state, START_S + 75)
    assert report.requests["10m"] == 800
    assert len(after.detector.scores) == len(state.detector.scores) == 1


def test_a_minute_that_is_not_over_waits() -> None:
    report, state = drift.assess(BASELINE, [tile(PROFILE, rows(np.random.default_rng(1)))], None, START_S + 65)
    assert state.detector.scores == ()
    assert report.judged_until == 0


def test_workers_together_are_judged_as_one_and_a_replay_gives_the_same_bits() -> None:
    rng = np.random.default_rng(3)
    whole, split = [], []
    for minute in range(4):
        values = rows(rng)
        whole.append(tile(PROFILE, values, minute, "w"))
        for at, part in enumerate((slice(0, 100), slice(100, 150), slice(150, 400))):
            split.append(tile(PROFILE, {name: each[part] for name, each in values.items()}, minute, str(at)))
    now_s = START_S + 4 * 60 + 11
    reports = [drift.assess(BASELINE, tiles, None, now_s)[0].model_dump_json() for tiles in (whole, split, split[::-1])]
    assert reports[0] == reports[1] == reports[2]


def test_a_held_column_pages_no_more_and_begins_anew_afterwards() -> None:
    stream = Stream()
    stream.feed(3)
    assert stream.feed(1, x1=lambda x: x + 3).pages == ("x1",)
    stream.held = frozenset({"x1"})
    report = stream.feed(3, x1=lambda x: x + 3)
    assert report.pages == report.named == ()
    assert report.column("x1").status == "alarm"
    stream.held = frozenset()
    assert stream.feed(3).pages == ()
    assert stream.feed(1, x1=lambda x: x + 3).pages == ("x1",)


def test_what_an_operator_accepted_is_normal_and_what_goes_beyond_is_not() -> None:
    stream = Stream()
    stream.feed(3)
    stream.feed(1, x1=lambda x: x + 2)
    stream.held = frozenset({"x1"})
    stream.feed(3, x1=lambda x: x + 2)
    stream.held = frozenset()
    report = stream.feed(1, accepted=frozenset({"x1"}), x1=lambda x: x + 2)
    assert report.pages == ()
    assert stream.feed(20, x1=lambda x: x + 2).pages == ()
    assert stream.feed(2, x1=lambda x: x + 6).pages == ("x1",)


def test_another_profile_begins_anew() -> None:
    stream = Stream()
    stream.feed(3)
    other = Baseline.of(a_profile("1" * 64))
    _, state = drift.assess(other, [], stream.state, START_S + 600)
    assert state.fingerprint == other.fingerprint
    assert state.detector.scores == ()


def test_a_baseline_of_few_rows_tolerates_its_own_noise() -> None:
    rng = np.random.default_rng(30)
    small = drifting.profile([drifting.numeric(f"x{at}", rng.normal(size=60), at) for at in range(40)])
    baseline = Baseline.of(small)
    state = None
    for minute in range(20):
        values = {f"x{at}": rng.normal(size=400) for at in range(40)}
        report, state = drift.assess(baseline, [tile(small, values, minute)], state, START_S + 60 * minute + 71)
        assert report.pages == ()


def test_a_constant_column_and_a_column_that_was_always_missing_are_judged() -> None:
    odd = drifting.profile(
        [drifting.numeric("constant", np.full(1000, 7.0)), drifting.categorical("never", [""] * 1000)]
    )
    baseline = Baseline.of(odd)
    same = {"constant": np.full(400, 7.0), "never": [""] * 400}
    report, state = drift.assess(baseline, [tile(odd, same, 0)], None, START_S + 71)
    assert report.pages == ()
    other = {"constant": np.full(400, 8.0), "never": ["word"] * 400}
    report, _ = drift.assess(baseline, [tile(odd, other, 1)], state, START_S + 131)
    assert set(report.pages) == {"constant", "never"}


def test_a_state_that_was_kept_goes_on_as_if_nothing_had_happened() -> None:
    stream = Stream()
    stream.feed(4, x1=lambda x: x + 0.6)
    twin = Stream()
    twin.state = driftstate.from_bytes(driftstate.to_bytes(stream.state), BASELINE)  # type: ignore[arg-type]
    twin.rng.bit_generator.state = stream.rng.bit_generator.state
    twin.minute = stream.minute
    assert twin.feed(3, x1=lambda x: x + 2) == stream.feed(3, x1=lambda x: x + 2)


def test_a_new_state_can_be_kept_too() -> None:
    state = DriftState.new(BASELINE)
    kept = driftstate.from_bytes(driftstate.to_bytes(state), BASELINE)
    assert kept.detector.scores == ()
    assert kept.held == frozenset()


def test_a_kept_state_that_is_cut_off_damaged_or_of_another_profile_is_refused() -> None:
    stream = Stream()
    stream.feed(2)
    content = driftstate.to_bytes(stream.state)  # type: ignore[arg-type]
    for at in range(0, len(content), max(1, len(content) // 40)):
        with pytest.raises(ValueError, match=r"cannot be read|another profile|columns|format"):
            driftstate.from_bytes(content[:at], BASELINE)
    with pytest.raises(ValueError, match="it is of another profile"):
        driftstate.from_bytes(content, Baseline.of(a_profile("1" * 64)))


def test_the_report_survives_its_way_through_json() -> None:
    report = Stream().feed(2)
    assert DriftReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"tolerance": 0.0}, "tolerance: got 0.0"),
     ({"major": 0.03}, r"major: got 0.03, expected tolerance \(0.04\) or more"),
     ({"least_requests": 0}, "least_requests: got 0"), ({"budget_days": -1.0}, "budget_days: got -1.0")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_by_name(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**wrong)
