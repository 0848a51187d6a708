"""Regions of shared memory: nobody gets one that a server may still look into, and never more than the limit."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.backends.triton.regions import LEAST_BYTES, MOVES, Region, Regions, Use, size_for

MIB = 1 << 20


def pool(limit: int = 8 * MIB) -> Regions:
    return Regions(limit)


def taken(regions: Regions, home: object, n_bytes: int) -> Region:
    region = regions.take(home, n_bytes, 0.0)
    if region is None:
        region = regions.make(home, n_bytes, 0.0)
        assert region
        regions.made(region, 0.0)
    return region


def test_one_that_was_answered_is_used_again_once_nobody_looks_into_it() -> None:
    regions = pool()
    first = taken(regions, "here", MIB)
    assert regions.take("here", 1, 0.0) is None
    regions.answered(first, 1.0)
    assert regions.take("here", 1, 1.0) is None
    assert not regions.released(first, 2.0)
    assert regions.take("elsewhere", 1, 2.0) is None
    assert regions.take("here", MIB + 1, 2.0) is None
    assert regions.take("here", MIB, 2.0) is first


def test_one_without_an_answer_counts_until_the_server_let_go_and_is_never_used_again() -> None:
    regions = pool(MIB)
    region = taken(regions, "here", MIB)
    assert regions.retire(region, 0.0)
    assert not regions.retire(region, 0.0)
    assert not regions.released(region, 1.0)
    assert regions.take("here", 1, 1.0) is None
    assert regions.make("here", MIB, 1.0) is None
    regions.forget(region, 2.0)
    assert regions.used_bytes == len(regions) == 0
    assert regions.make("here", MIB, 2.0)


def test_one_whose_end_nobody_told_is_not_trusted() -> None:
    regions = pool()
    region = taken(regions, "here", MIB)
    assert regions.released(region, 1.0)
    assert region.use is Use.RETIRED


def test_a_server_that_is_left_gets_back_what_it_had_as_it_becomes_free() -> None:
    regions = pool()
    free, held, out = (taken(regions, "here", MIB) for _ in range(3))
    other = taken(regions, "there", MIB)
    for region in (free, held, other):
        regions.answered(region, 0.0)
    for region in (free, other):
        regions.released(region, 0.0)
    assert regions.leave("here", 1.0) == [free]
    assert regions.make("here", 1, 1.0) is None
    assert regions.released(held, 2.0)
    regions.answered(out, 2.0)
    assert regions.released(out, 3.0)
    assert regions.take("there", 1, 3.0) is other


def test_the_smallest_that_fits_is_taken_and_idle_ones_make_room() -> None:
    regions = pool(4 * MIB)
    large, small = taken(regions, "here", 2 * MIB), taken(regions, "here", MIB)
    for turn, region in enumerate((large, small)):
        regions.answered(region, 0.0)
        regions.released(region, float(turn))
    assert regions.take("here", MIB - 1, 1.0) is small
    assert regions.make("here", 2 * MIB, 2.0) is None
    assert regions.crowd_out(2 * MIB, 0.9) == []  # it was used just now
    assert regions.crowd_out(4 * MIB, 2.0) == []  # that would not be enough
    assert regions.crowd_out(2 * MIB, 2.0) == [large]
    assert regions.crowd_out(2 * MIB, 2.0) == []  # it is on its way out already
    regions.forget(large, 3.0)
    assert regions.make("here", 2 * MIB, 3.0)


def test_what_nobody_takes_for_long_is_given_back() -> None:
    regions = pool()
    region = taken(regions, "here", MIB)
    regions.answered(region, 0.0)
    regions.released(region, 10.0)
    assert regions.idle(39.0) == []
    assert regions.idle(40.0) == [region]


@pytest.mark.parametrize(("before", "after"), [*product(Use, Use)])
def test_there_is_no_way_but_those_of_the_table(before: Use, after: Use) -> None:
    regions = pool()
    region = Region("here", MIB, before)
    if after in MOVES[before]:
        regions._move(region, after, 1.0)
        assert (region.use, region.since_s) == (after, 1.0)
    else:
        with pytest.raises(AssertionError, match=f"no way from {before.name} to {after.name}"):
            regions._move(region, after, 1.0)


def test_sizes_waste_a_quarter_at_most() -> None:
    for n_bytes in (1, LEAST_BYTES, LEAST_BYTES + 1, 602_112, 602_124, MIB, MIB + 1, 3 * MIB + 5, 100_000_000):
        assert n_bytes <= size_for(n_bytes) <= max(LEAST_BYTES, n_bytes * 1.25)
        assert size_for(size_for(n_bytes)) == size_for(n_bytes)


class Lives(RuleBasedStateMachine):
    """Servers that answer, hang and die in any order; `looking` is what each may still read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.regions = pool(4 * MIB)
        self.now_s = 0.0
        self.out: list[Region] = []
        self.held: list[Region] = []
        self.doubtful: list[Region] = []

    def drawn(self, data: st.DataObject, these: list[Region]) -> Region:
        return these.pop(data.draw(st.integers(0, len(these) - 1)))

    @rule(home=st.sampled_from("ab"), n_bytes=st.integers(1, 2 * MIB))
    def take(self, home: str, n_bytes: int) -> None:
        region = self.regions.take(home, n_bytes, self.now_s)
        if region is None:
            region = self.regions.make(home, n_bytes, self.now_s)
            if region is None:
                self.regions.crowd_out(n_bytes, self.now_s)
                return
            self.regions.made(region, self.now_s)
        assert region.size >= n_bytes
        assert region.home == home
        assert not any(region is each for each in (*self.out, *self.held, *self.doubtful))
        self.out.append(region)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), is_answered=st.booleans())
    def end(self, data: st.DataObject, is_answered: bool) -> None:
        region = self.drawn(data, self.out)
        if is_answered:
            self.regions.answered(region, self.now_s)
            self.held.append(region)
        else:
            self.regions.retire(region, self.now_s)
            self.doubtful.append(region)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.regions.released(self.drawn(data, self.held), self.now_s)

    @rule(home=st.sampled_from("ab"))
    def leave(self, home: str) -> None:
        self.regions.leave(home, self.now_s)

    @rule(passed_s=st.floats(0.1, 40))
    def wait(self, passed_s: float) -> None:
        self.now_s += passed_s
        self.regions.idle(self.now_s)

    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        """A server has forgotten one that it was asked to forget."""
        retired = [region for region in self.regions if region.use is Use.RETIRED]
        if retired:
            region = self.drawn(data, retired)
            self.regions.forget(region, self.now_s)
            self.doubtful = [each for each in self.doubtful if each is not region]

    @invariant()
    def it_adds_up(self) -> None:
        assert self.regions.used_bytes == sum(region.size for region in self.regions) <= 4 * MIB
        assert all(region.use is Use.RETIRED for region in self.doubtful)


Lives.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_whatever_servers_do_no_region_has_two_owners = Lives.TestCase
