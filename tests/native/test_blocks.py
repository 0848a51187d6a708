"""Large blocks of memory: one holder each, used again, bounded, and given back when nobody needs them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.native import blocks
from gateway.native.counters import is_debug

KEEPS = not is_debug()  # in a debug build the sanitizers shall see each block freed
LEAST = 65_536
keeps = pytest.mark.skipif(not KEEPS, reason="a debug build keeps nothing")


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    blocks.trim()  # what is free now has not been needed since ...
    blocks.trim()  # ... then
    assert blocks.free_bytes() == {}


class Twin:
    """The slow one: free blocks by size, and the fewest of each since the last trim."""

    def __init__(self) -> None:
        self.free: dict[int, int] = {}
        self.fewest: dict[int, int] = {}

    @staticmethod
    def size(n: int) -> int:
        power = 1 << 13
        while 8 * power < n:
            power *= 2
        return next(quarters * power for quarters in (5, 6, 7, 8) if quarters * power >= n)

    def take(self, n: int) -> None:
        size = self.size(n)
        if self.free.get(size):
            self.free[size] -= 1
            self.fewest[size] = min(self.fewest.get(size, 0), self.free[size])

    def give(self, n: int) -> None:
        size = self.size(n)
        if self.total + size <= blocks.most_free_bytes():
            self.free[size] = self.free.get(size, 0) + 1

    def trim(self) -> None:
        for size in self.free:
            self.free[size] -= self.fewest.get(size, 0)
        self.fewest = dict(self.free)

    @property
    def total(self) -> int:
        return sum(size * n for size, n in self.free.items())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(LEAST, 1_000_000) | st.sampled_from([LEAST, 81_920, 81_921, 20 << 20])),
        st.tuples(st.just("give"), st.integers(0, 100)),
        st.tuples(st.just("trim"), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
def test_blocks_are_kept_as_the_twin_says_and_never_shared(given_steps: list[tuple[str, int]]) -> None:
    twin, held = Twin(), []
    blocks.trim()
    blocks.trim()
    for number, (step, value) in enumerate(given_steps):
        if step == "take":
            loan = blocks.Loan(value)
            assert loan.address % 64 == 0
            spans = [(other.address, other.address + other.n) for other, _ in held]
            assert all(loan.address + value <= start or end <= loan.address for start, end in spans)
            if value < 1 << 20:
                loan.fill(number)
            held.append((loan, number))
            twin.take(value)
            del loan
        elif step == "give" and held:
            loan, fill = held.pop(value % len(held))
            if loan.n < 1 << 20:
                assert loan.content == bytes([fill]) * loan.n
            n = loan.n
            del loan
            twin.give(n)
        elif step == "trim":
            blocks.trim()
            twin.trim()
        if KEEPS:
            assert blocks.free_bytes() == {size: size * n for size, n in twin.free.items() if n}


@keeps
def test_a_block_is_used_again_by_the_next_of_its_size() -> None:
    block = blocks.Loan(600_000)
    address = block.address
    del block
    assert blocks.Loan(650_000).address == address


@keeps
def test_what_is_needed_now_and_then_stays_and_the_rest_goes_at_the_second_trim() -> None:
    pair = [blocks.Loan(100_000), blocks.Loan(100_000)]
    del pair
    both = sum(blocks.free_bytes().values())
    blocks.trim()
    assert sum(blocks.free_bytes().values()) == both, "they were in use a moment ago"
    block = blocks.Loan(100_000)
    del block
    blocks.trim()
    assert sum(blocks.free_bytes().values()) == both // 2, "one of them was needed"
    blocks.trim()
    assert blocks.free_bytes() == {}


@keeps
def test_what_waits_is_bounded() -> None:
    held = [blocks.Loan(10 << 20) for _ in range(20)]
    held.clear()
    assert 0 < sum(blocks.free_bytes().values()) <= blocks.most_free_bytes()


@pytest.mark.parametrize("n", [0, LEAST - 1])
def test_a_small_block_is_mallocs(n: int) -> None:
    with pytest.raises(ValueError, match="expected at least 65536"):
        blocks.Loan(n)


@pytest.mark.skipif(not KEEPS, reason="the sanitizers end the process instead")
@pytest.mark.parametrize("n", [1 << 45, 1 << 63])
def test_what_nobody_has_is_an_error(n: int) -> None:
    with pytest.raises(MemoryError):
        blocks.Loan(n)
