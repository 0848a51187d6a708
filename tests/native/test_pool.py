"""Blocks of memory that HTTP/2 sessions take and give back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.native import pool
from gateway.native.request import Request

KEEPS = pool.most_free_bytes() > 0  # not in a debug build: there the sanitizers shall see each block freed

sizes = st.integers(0, 3000)


@given(st.lists(st.tuples(sizes, st.lists(sizes, max_size=3), st.booleans()), max_size=30))
def test_each_block_keeps_its_bytes_whatever_happens_to_others(steps: list[tuple[int, list[int], bool]]) -> None:
    held: list[tuple[pool.Held, bytes]] = []
    for number, (size, resizes, is_dropped) in enumerate(steps):
        block, fill = pool.Held(size), number % 255 + 1
        assert block.address % 16 == 0
        block.fill(fill)
        kept = size
        for new_size in resizes:
            block.resize(new_size)
            kept = min(kept, new_size)
            assert block.content[:kept] == bytes([fill]) * kept
            block.fill(fill)
            kept = new_size
        held.append((block, bytes([fill]) * kept))
        if is_dropped:
            held.pop(number % len(held))
    for block, expected in held:
        assert block.content == expected


@given(sizes)
def test_a_cleared_block_is_zero_even_where_another_was(size: int) -> None:
    before = pool.Held(size)
    before.fill(255)
    del before
    assert pool.Held(size, cleared=True).content == bytes(size)


@pytest.mark.skipif(not KEEPS, reason="a debug build keeps nothing")
def test_a_freed_block_is_used_again_by_the_next_of_its_size() -> None:
    block = pool.Held(100)
    address = block.address
    del block
    assert pool.Held(110).address == address


def test_what_is_kept_is_bounded() -> None:
    blocks = [pool.Held(1024) for _ in range(1000)]  # more than the bound
    del blocks
    assert pool.free_bytes().get(1024, 0) <= pool.most_free_bytes()


def test_a_large_block_is_not_kept() -> None:
    before = pool.free_bytes()
    block = pool.Held(5000)
    del block
    assert pool.free_bytes() == before


def test_a_request_is_small_enough_for_pythons_own_allocator() -> None:
    """One byte over 512 and each request costs a malloc: whoever adds a field packs another."""
    assert Request.__basicsize__ <= 512
