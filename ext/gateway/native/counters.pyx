"""Debug counters of native objects: allocated minus freed, by kind.

Only a debug build counts; the test suite asserts that every counter is back where it was after each test.
"""
cdef long LIVE[N_KINDS]
NAMES = ("body", "call", "request", "batch", "session", "connection", "memory", "pair")


cdef void adjust(int kind, int delta) noexcept nogil:
    LIVE[kind] += delta


def live():
    """What is alive now, by kind; empty in a release build."""
    if not GW_COUNTING:
        return {}
    return {NAMES[i]: LIVE[<int>i] for i in range(<int>N_KINDS)}


def is_debug():
    """Whether this build counts."""
    return bool(GW_COUNTING)
