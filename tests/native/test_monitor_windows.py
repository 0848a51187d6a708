"""Minutes of a monitor: aligned to the wall clock, told until they are over, none lost, none told twice as new."""

import threading

import numpy as np
import pytest

from gateway.monitoring.tile import decode
from gateway.native.arm import Arm
from gateway.native.monitor import Monitor
from gateway.native.tileplan import TilePlan
from tests.support import tiletwin as twin

START_S = 1_000_000_020.0  # a whole minute
US = 1_000_000


class Clocks:
    """A monitor under two clocks that the test holds: `wall` is ahead of the monotonic one by START_S."""

    def __init__(self, columns=None):
        columns = columns or [twin.numeric("x", [0.0, 1.0, 2.0])]
        self.monitor = Monitor(TilePlan(columns), twin.signature([("x", "FP32", (-1, 1))]))
        self.now_us = 0
        self.ahead_s = START_S
        assert self.cut() == {}

    def note(self, n=1, arm=None):
        rows = np.full((n, 1), 0.5, np.float32)
        self.monitor.note_rows([rows], [rows], arm, self.now_us)

    def cut(self):
        """Rows by (arm, stage, seconds after START_S)."""
        cuts = self.monitor.cut(self.now_us / US + self.ahead_s, self.now_us)
        return {
            (arm, stage, start - int(START_S)): decode(self.monitor.plan, blob).n_rows
            for arm, stage, start, blob in cuts
        }

    def wait(self, s):
        self.now_us += int(s * US)


def test_a_minute_is_told_with_more_each_time_and_a_last_time_when_it_is_over():
    clocks = Clocks()
    clocks.note(2)
    assert clocks.cut() == {("", 0, 0): 2}
    clocks.wait(5)
    assert clocks.cut() == {}
    clocks.note(3)
    assert clocks.cut() == {("", 0, 0): 5}
    clocks.wait(54.9)
    clocks.note(1)
    clocks.wait(0.2)
    clocks.note(7)
    assert clocks.cut() == {("", 0, 0): 6, ("", 0, 60): 7}
    assert clocks.cut() == {}


def test_a_minute_that_is_over_is_told_though_nobody_asked_meanwhile():
    clocks = Clocks()
    for minute in range(5):
        clocks.note(minute + 1)
        clocks.wait(60)
    assert clocks.cut() == {("", 0, 60 * minute): minute + 1 for minute in range(5)}


def test_a_minute_that_was_told_in_full_is_not_told_again_when_it_is_over():
    clocks = Clocks()
    clocks.note()
    assert clocks.cut() == {("", 0, 0): 1}
    clocks.wait(61)
    assert clocks.cut() == {}


def test_a_minute_begins_where_the_wall_clock_says():
    clocks = Clocks()
    clocks.wait(30)
    clocks.note()
    clocks.wait(29.999999)
    clocks.note()
    clocks.wait(0.000001)
    clocks.note()
    assert clocks.cut() == {("", 0, 0): 2, ("", 0, 60): 1}


def test_a_wall_clock_that_is_set_back_a_little_goes_on_with_the_minute():
    clocks = Clocks()
    clocks.wait(61)
    clocks.note()
    assert clocks.cut() == {("", 0, 60): 1}
    clocks.ahead_s -= 3
    assert clocks.cut() == {}
    clocks.note()
    assert clocks.cut() == {("", 0, 60): 2}
    clocks.wait(63)
    clocks.note()
    assert clocks.cut() == {("", 0, 120): 1}


@pytest.mark.parametrize("jump_s", [-86_400, 86_400])
def test_a_wall_clock_that_is_set_far_off_is_followed(jump_s):
    clocks = Clocks()
    clocks.note(2)
    clocks.ahead_s += jump_s
    assert clocks.cut() == {("", 0, 0): 2}
    clocks.note(3)
    assert clocks.cut() == {("", 0, jump_s): 3}


def test_each_arm_and_stage_has_its_own_tile_and_a_new_arm_of_the_same_name_goes_on_with_it():
    clocks = Clocks()
    clocks.note(1, Arm("m", "1", "stable", 1))
    clocks.note(2, Arm("m", "1", "stable", 2))
    clocks.note(4, Arm("m", "1", "candidate", 2))
    clocks.note(8, Arm("m", "1", "stable", 1))
    assert clocks.cut() == {("stable", 1, 0): 9, ("stable", 2, 0): 2, ("candidate", 2, 0): 4}


def test_more_stages_than_a_minute_has_room_for_are_counted_together():
    clocks = Clocks()
    for stage in range(1, 200):
        clocks.note(1, Arm("m", "1", "stable", stage))
    found = clocks.cut()
    assert sum(found.values()) == 199
    assert len(found) == 65
    assert found["", 0, 0] == 199 - 64


def test_tiles_that_nobody_fetches_are_bounded_and_the_oldest_go():
    clocks = Clocks()
    for _ in range(300):
        clocks.note()
        clocks.wait(60)
    found = clocks.cut()
    assert len(found) == 256
    assert max(start for _, _, start in found) == 299 * 60
    assert clocks.monitor.n_dropped == 300 - 256


def test_threads_that_count_at_once_lose_nothing():
    """Large batches without the GIL and small ones with it, on two arms, while another thread cuts and minutes pass."""
    columns = [twin.numeric("x", [0.0, 0.25, 0.5]), twin.categorical("k", [0])]
    monitor = Monitor(TilePlan(columns), twin.signature([("x", "FP32", (-1, 1))]), 1)
    arms = [Arm("m", "1", "stable", 1), Arm("m", "1", "candidate", 1)]
    sizes = (1, 30_000, 7, 9_000)
    turns, n_threads = 40, 4
    last: dict[tuple[str, int, int], bytes] = {}
    clock = threading.Lock()
    now_us = [0]

    def work(seed):
        random = np.random.default_rng(seed)
        for turn in range(turns):
            rows = random.random((sizes[turn % 4], 1)).astype(np.float32)
            with clock:
                now_us[0] += 50_000  # minutes of a second each
            monitor.note_rows([rows], [rows], arms[(turn + seed) % 2], now_us[0])

    def cut():
        for arm, stage, start_s, blob in monitor.cut(START_S + now_us[0] / US, now_us[0]):
            last[arm, stage, start_s] = blob

    cut()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(n_threads)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        cut()
        threads[0].join(0.001)
    now_us[0] += 5 * US
    cut()
    found = [decode(monitor.plan, blob) for blob in last.values()]
    n_rows = n_threads * turns // 4 * sum(sizes)
    assert sum(tile.n_rows for tile in found) == n_rows
    for name in ("x", "k"):
        assert sum(tile.columns[name]["n"] for tile in found) == n_rows
    assert len(last) > 4
