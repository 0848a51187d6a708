"""The search for the best fixed setting: who is given up, what a share says, and where a stopped run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.batching import search, twin
from bench.batching.__main__ import Notes, table
from bench.batching.search import EAGER, Setting
from tests.support.slowlane import SlowLinger

FAST, FAIR, SLOW = Setting(8, 0), Setting(16, 0), Setting(1, 0)
STAMP = {"commit": "abc", "dirty": False, "mode": "full", "cpu": "one", "cores": 2, "date": "today"}


def test_who_is_far_behind_the_best_fixed_setting_gets_no_more_rounds_but_eager_always() -> None:
    per_s = {EAGER: 10.0, FAST: 100.0, FAIR: 80.0, SLOW: 5.0}
    assert search.still_good(per_s, list(per_s), False, 0.7) == [EAGER, FAST, FAIR]
    assert search.still_good(per_s, list(per_s), False, 0.9) == [EAGER, FAST]
    p99_us = {EAGER: 900.0, FAST: 100.0, FAIR: 120.0, SLOW: 700.0}
    assert search.still_good(p99_us, list(p99_us), True, 0.7) == [EAGER, FAST, FAIR]
    assert search.still_good(p99_us, [EAGER, FAIR, SLOW], True, 0.9) == [EAGER, FAIR]


def test_above_one_eager_is_the_better_in_throughput_and_in_latency() -> None:
    closed = search.Found("m", "8x16", "/s", "b", eager=[110.0, 110.0], best=[100.0, 100.0])
    opened = search.Found("m", "open loop, 9/s", "us", "b", eager=[100.0, 100.0], best=[110.0, 110.0])
    late = search.Found("m", "open loop, 9/s", "us", "b", eager=[200.0, 200.0], best=[100.0, 100.0])
    assert closed.ratio == opened.ratio == pytest.approx(1.1)
    assert late.ratio == 0.5
    text = table([closed.as_dict(), opened.as_dict(), late.as_dict()])
    assert "| m | 8x16 | b | 1.10 | 1.10 to 1.10 | 0.95 met |" in text
    assert "| m | open loop, 9/s, p99 | b | 1.10 | 1.10 to 1.10 | 0.95 met |" in text
    assert "| 0.50 | 0.50 to 0.50 | 0.95 **missed** |" in text


def test_a_stopped_run_goes_on_and_one_of_other_code_works_or_machine_begins_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GATEWAY_BENCH_CACHE", str(tmp_path))
    rows = [search.Found("m", "8x16", "/s", "b", [1.0], [1.0]).as_dict()]
    assert Notes(STAMP, ["m"]).read() == []
    Notes(STAMP, ["m"]).write(rows)
    assert Notes(STAMP | {"date": "tomorrow"}, ["m"]).read() == json.loads(json.dumps(rows))
    for other in ({"commit": "abd"}, {"cpu": "two"}, {"mode": "quick"}, {"dirty": True}):
        assert Notes(STAMP | other, ["m"]).read() == []
    assert Notes(STAMP, ["m", "n"]).read() == []
    (tmp_path / "batching.json").write_text("{")
    assert Notes(STAMP, ["m"]).read() == []
    Notes(STAMP, ["m"]).forget()
    Notes(STAMP, ["m"]).forget()


def test_what_was_measured_is_known_by_its_load() -> None:
    names = [search.load_name(load) for work in search.WORKS for load in work.loads]
    assert {"8x16", "64x1", "4x4", "open loop"} == set(names)
    assert search.Found("m", f"{search.OPEN}, 20,000/s", "us", "b").load.split(",")[0] == search.OPEN


@pytest.mark.parametrize(("connections", "streams", "rows", "delay_us"), [(4, 4, 8, 3000), (16, 2, 16, 1000)])
def test_in_the_twin_eager_comes_near_the_best_fixed_setting_and_once_did_not(
    connections: int, streams: int, rows: int, delay_us: int
) -> None:
    world = twin.World(connections, streams)
    best = twin.Simulation(world, twin.Fixed(rows, delay_us)).run()
    assert twin.Simulation(world, twin.Eager()).run() >= 0.95 * best
    assert twin.Simulation(world, twin.Fixed(256, 0)).run() < 0.85 * best


@given(st.lists(st.tuples(st.sampled_from(["arrived", "answered", "hold"]), st.integers(1, 20), st.integers(0, 500))))
@settings(max_examples=50, deadline=None)
def test_the_twins_rule_is_the_slow_twin_of_the_native_one(steps: list[tuple[str, int, int]]) -> None:
    rule, slow = twin.Eager(), SlowLinger()
    now_us = 1_000_000
    for name, n, after_us in steps:
        now_us += after_us
        if name == "arrived":
            rule.arrived(n, now_us)
            for _ in range(n):
                slow.arrived(now_us)
        elif name == "answered":
            rule.answered(n, now_us)
            slow.answered(n, twin.FIXED_US, now_us)
        else:
            theirs = slow.hold_until_us(n, n + 10, 2, twin.FIXED_US, now_us)
            assert rule.hold_until_us(n, n + 10, 2, now_us, now_us) == theirs
