"""Two arms, weighed."""
cimport cython
cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from gateway.native.refusal cimport DEADLINE_EXCEEDED, OK, blames_version
from gateway.native.tile cimport latency_cell
from gateway.native.tileplan cimport N_LATENCY

import numpy as np

cnp.import_array()

cdef enum:
    SPAN_US = 50_000          # of arrivals that are sealed together, while the oldest is young
    SPANS_OF_AGE = 8          # else an eighth of its age: a candidate that hangs must not fill the memory with cells
    MAX_AGE_US = 60_000_000   # without an outcome for so long: it has failed, and its caller has gone
    RECENT_US = 2_000_000
    KEYS_AT_FIRST = 1024

STABLE, CANDIDATE = 0, 1
SIDES = ("stable", "candidate")
DRAWN, JUDGED, FAILED, BROKEN, GIVEN_UP = 0, 1, 2, 3, 4
"""Counters of a side; then slices of them."""
LATENCY = slice(<int>WEIGHED_LATENCY, <int>WEIGHED_LATENCY + N_LATENCY)
COST = slice(<int>WEIGHED_COST, <int>WEIGHED_COST + N_LATENCY)
COST_UNIT_NS = <int>COST_NS
VALUE_CELLS = <int>N_VALUES


def values(int column):
    """Of a column of the answers."""
    return slice(<int>WEIGHED_VALUES + column * <int>N_VALUES, <int>WEIGHED_VALUES + (column + 1) * <int>N_VALUES)


@cython.final
cdef class Scales:
    """Scales(model, generation, versions, shares, is_sticky=False)."""

    def __cinit__(self, str model not None, int64_t generation, tuple versions not None, tuple shares not None, bint is_sticky=False):
        if len(versions) != 2 or len(shares) != 2:
            raise ValueError(f"versions, shares: got {len(versions)} and {len(shares)}, expected two of each: stable, candidate")
        self.model, self.generation, self.versions, self.shares, self.is_sticky = model, generation, versions, shares, is_sticky
        self.columns = [None, None]
        self.first_mark = 1
        self.total = <uint64_t*>calloc(2 * <int>N_WEIGHED, sizeof(uint64_t))
        if self.total == NULL:
            raise MemoryError("no memory to compare two versions")

    def __dealloc__(self):
        cdef int i
        free(self.total)
        free(self.keys)
        for i in range(MAX_SPANS):
            free(self.spans[i].counts)

    # --- requests --------------------------------------------------------------------------------------------------------------

    cdef int64_t arrive(self, int side, bint has_key, uint64_t key, int64_t now_us) except 0:
        cdef Span_* last
        self.n_open[side] += 1
        if self.is_sticky and has_key and not self._is_new(key):
            return LIVE_ONLY
        if self.n_spans == 0:
            self._begin(now_us)
        else:
            last = &self.spans[(self.first + self.n_spans - 1) % MAX_SPANS]
            if now_us - last.start_us >= max(<int64_t>SPAN_US, (now_us - self.spans[self.first].start_us) // SPANS_OF_AGE):
                self.seal(now_us)
                if self.n_spans < MAX_SPANS:
                    self._begin(now_us)
        last = &self.spans[(self.first + self.n_spans - 1) % MAX_SPANS]
        last.last_us = now_us
        last.n_open[side] += 1
        last.is_used[side] = True
        return self.first_mark + self.n_spans - 1

    cdef int _begin(self, int64_t now_us) except -1:
        cdef Span_* span = &self.spans[(self.first + self.n_spans) % MAX_SPANS]
        if span.counts == NULL:
            span.counts = <uint32_t*>calloc(2 * <int>N_WEIGHED, sizeof(uint32_t))
            if span.counts == NULL:
                raise MemoryError("no memory to compare two versions")
        span.start_us = now_us
        self.n_spans += 1
        return 0

    cdef uint32_t* _counts(self, int side, int64_t mark) noexcept:
        """NULL: sealed without it, or not to be counted."""
        if mark < self.first_mark or mark >= self.first_mark + self.n_spans:
            return NULL
        return self.spans[(self.first + <int>(mark - self.first_mark)) % MAX_SPANS].counts + side * <int>N_WEIGHED

    cdef void settle(self, int side, int64_t mark, int code, bint has_run, int64_t took_us, const Seen* seen, int64_t now_us) noexcept:
        """`code` -1: the caller gave up. `seen` NULL: there is no answer that was looked at. What a run refuses is a failure even when the
        code blames the caller: stable is given such requests as well, and a candidate that refuses what stable takes is worse."""
        cdef Live* live = &self.live[side]
        cdef uint32_t* counts = self._counts(side, mark)
        cdef bint is_broken = seen != NULL and seen.is_broken
        cdef bint has_failed = is_broken and code >= 0 or code > 0 and (has_run or blames_version(code) or code == DEADLINE_EXCEEDED)
        cdef bint is_judged = has_failed or code == OK
        cdef int i
        self.n_open[side] -= 1
        if is_judged:
            live.n += 1
            live.failed += has_failed
            live.broken += is_broken
            if has_failed:
                live.run += 1
                if live.run >= live.longest or now_us - live.longest_us > RECENT_US:
                    live.longest, live.longest_us = live.run, now_us
            else:
                live.run = 0
        if code == OK and seen != NULL and seen.is_known:
            if live.said == seen.said and live.given != seen.given:
                live.same += 1
                live.longest_same = max(live.longest_same, live.same)
            elif live.said != seen.said:
                live.same = 1
            live.said, live.given = seen.said, seen.given
        if counts == NULL:
            return
        self.spans[(self.first + <int>(mark - self.first_mark)) % MAX_SPANS].n_open[side] -= 1
        counts[WEIGHED_DRAWN] += 1
        counts[WEIGHED_JUDGED] += is_judged
        counts[WEIGHED_FAILED] += has_failed
        counts[WEIGHED_BROKEN] += is_broken and code >= 0
        if has_failed:
            counts[<int>WEIGHED_LATENCY + N_LATENCY - 1] += 1
        elif code == OK or code < 0:                          # who gave up would have waited longer yet
            counts[<int>WEIGHED_LATENCY + latency_cell(took_us)] += 1
        if code == OK and seen != NULL:
            for i in range(seen.n_columns):
                counts[<int>WEIGHED_VALUES + i * <int>N_VALUES + seen.cells[i]] += 1

    cdef void note_cost(self, int side, int64_t mark, int64_t row_ns) noexcept:
        cdef uint32_t* counts = self._counts(side, mark)
        if counts != NULL:
            counts[<int>WEIGHED_COST + latency_cell(row_ns // <int>COST_NS)] += 1

    cdef int seal(self, int64_t now_us) noexcept:
        """Into the total, from the oldest on, what will not change any more; how many are left."""
        cdef Span_* span
        cdef uint64_t* total
        cdef uint32_t* counts
        cdef int side, i
        while self.n_spans:
            span = &self.spans[self.first]
            if span.n_open[0] or span.n_open[1]:
                if now_us - span.last_us < MAX_AGE_US:
                    break
            elif self.n_spans == 1 and now_us - span.start_us < SPAN_US:
                break                                         # others may still arrive in it
            for side in range(2):
                if not span.is_used[side]:
                    continue
                total, counts = self.total + side * <int>N_WEIGHED, span.counts + side * <int>N_WEIGHED
                if span.n_open[side]:
                    for i in (<int>WEIGHED_DRAWN, <int>WEIGHED_JUDGED, <int>WEIGHED_FAILED, <int>WEIGHED_GIVEN_UP,
                              <int>WEIGHED_LATENCY + N_LATENCY - 1):
                        counts[i] += <uint32_t>span.n_open[side]
                for i in range(N_WEIGHED):
                    total[i] += counts[i]
                memset(counts, 0, <int>N_WEIGHED * sizeof(uint32_t))
                span.n_open[side], span.is_used[side] = 0, False
            self.first = (self.first + 1) % MAX_SPANS
            self.n_spans -= 1
            self.first_mark += 1
            self.n_sealed += 1
        return self.n_spans

    # --- sticky keys -----------------------------------------------------------------------------------------------------------

    cdef bint _is_new(self, uint64_t key) except? False:
        """Whether this key's first request is this one. Its place in the table has nothing to do with the arm that it was drawn for: that
        is decided by other bits of other hashes of it."""
        cdef size_t at
        if key == 0:
            key = 1
        if self.n_keys * 2 >= self.room:
            if self.n_keys >= MAX_KEYS:
                return False
            self._grow()
        at = key & (self.room - 1)
        while self.keys[at]:
            if self.keys[at] == key:
                return False
            at = (at + 1) & (self.room - 1)
        self.keys[at] = key
        self.n_keys += 1
        return True

    cdef int _grow(self) except -1:
        cdef size_t room = self.room * 2 if self.room else KEYS_AT_FIRST, i, at
        cdef uint64_t* keys = <uint64_t*>calloc(room, sizeof(uint64_t))
        if keys == NULL:
            raise MemoryError("no memory for sticky keys")
        for i in range(self.room):
            if self.keys[i]:
                at = self.keys[i] & (room - 1)
                while keys[at]:
                    at = (at + 1) & (room - 1)
                keys[at] = self.keys[i]
        free(self.keys)
        self.keys, self.room = keys, room
        return 0

    # --- for who tells -----------------------------------------------------------------------------------------------------------

    @property
    def open(self):
        """Requests without an outcome, by side."""
        return self.n_open[0], self.n_open[1]

    def facts(self, int64_t now_us):
        """What may not wait, by side."""
        cdef Live* live
        cdef int side
        found = {}
        for side in range(2):
            live = &self.live[side]
            if now_us - live.longest_us > RECENT_US:
                live.longest, live.longest_us = live.run, now_us
            found[SIDES[side]] = {
                "n": live.n, "failed": live.failed, "broken": live.broken, "run": live.longest, "same": live.longest_same,
            }
        return found

    @property
    def n_unsealed(self):
        """Stretches of time that are not in the total yet."""
        return self.n_spans

    @property
    def names(self):
        """Of the columns in WEIGHED_VALUES, by side; None: no answer was looked at yet."""
        return tuple(self.columns)

    def to_bytes(self, int64_t now_us):
        """What is sealed, for `read_counts`: for each counter that is not 0 how many there are before it, and its count, as varints."""
        cdef uint8_t* out
        cdef uint8_t* at
        cdef int i, gap = 0, n = 0
        self.seal(now_us)
        for i in range(2 * <int>N_WEIGHED):
            n += self.total[i] != 0
        out = at = <uint8_t*>malloc(n * 13 + 1)
        if out == NULL:
            raise MemoryError("no memory to tell what was compared")
        for i in range(2 * <int>N_WEIGHED):
            if self.total[i] == 0:
                gap += 1
                continue
            at = write_varint(write_varint(at, gap), self.total[i])
            gap = 0
        try:
            return <bytes>out[:at - out]
        finally:
            free(out)


cdef uint8_t* write_varint(uint8_t* at, uint64_t value) noexcept nogil:
    while value >= 0x80:
        at[0] = <uint8_t>(value | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t>value
    return at + 1


def read_counts(const uint8_t[::1] told not None):
    """The counters of `to_bytes`, by side: int64[2, N_WEIGHED]. ValueError when they are none."""
    cdef cnp.ndarray found = np.zeros((2, <int>N_WEIGHED), np.int64)
    cdef int64_t* counts = <int64_t*>cnp.PyArray_DATA(found)
    cdef uint64_t pair[2]
    cdef Py_ssize_t at = 0, n = told.shape[0]
    cdef uint64_t place = 0
    cdef int which, shift
    while at < n:
        for which in range(2):
            pair[which], shift = 0, 0
            while True:
                if at >= n or shift > 56:
                    raise ValueError(f"counts: cut short at byte {at} of {n}")
                pair[which] |= <uint64_t>(told[at] & 0x7F) << shift
                shift += 7
                at += 1
                if not told[at - 1] & 0x80:
                    break
        place += pair[0]
        if place >= 2 * <int>N_WEIGHED:
            raise ValueError(f"counts: got one at {place}, expected {2 * <int>N_WEIGHED} at most")
        counts[place] = <int64_t>pair[1]
        place += 1
    return found


def value_cell_of(double value):
    """The cell of a value, for tests and for whoever reads them."""
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    return value_cell(bits)
