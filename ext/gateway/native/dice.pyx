"""Random draws by a generator of our own: a few nanoseconds each, and repeatable in tests."""
from libc.stdint cimport uint64_t

import os

from gateway.native.sticky cimport mix, multiply_high

cdef uint64_t STATE = int.from_bytes(os.urandom(8), "little")


cdef uint64_t next_word() noexcept:
    global STATE
    STATE += 0x9E3779B97F4A7C15u
    return mix(STATE)


cdef uint64_t roll(uint64_t below) noexcept:
    """The high half of a product with a random word; the few low halves that would make some results likelier are thrown again."""
    cdef uint64_t low, rejected
    cdef uint64_t high = multiply_high(next_word(), below, &low)
    if low < below:
        rejected = (0 - below) % below
        while low < rejected:
            high = multiply_high(next_word(), below, &low)
    return high


def seed(uint64_t value):
    """Start the sequence anew, for a test that must repeat."""
    global STATE
    STATE = value


def draw(uint64_t below):
    """roll() for tests."""
    if below == 0:
        raise ValueError("below: got 0, expected at least 1")
    return roll(below)
