# Scales: what the two arms of one generation of a route did, side by side, as integers that add up over workers. An arm that no candidate
# stands beside has none, and its requests pass by here.
#
#   arrive ──▶ cell of its time of arrival (n_open + 1) ── settle ──▶ counted there (n_open - 1)
#                    │ the oldest cell has nothing open any more, or is MAX_AGE old
#                    ▼
#                  total: sealed in order of arrival, so that who fails at once is not compared with who is still at work
#
# `live` is counted as it happens, for what may not wait. Loop thread only, but for what `seen` fills before an answer is settled.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from gateway.native.tileplan cimport N_LATENCY


cdef enum:
    MAX_WEIGHED = 8           # columns of the outputs that are told apart
    N_VALUES = 1028           # cells of a column, see value_cell
    MAX_SPANS = 48            # cells of time that are not sealed
    MAX_KEYS = 131072         # sticky keys of one generation; further ones are not counted
    LIVE_ONLY = -1            # a mark: its key has been counted before


cdef enum:                    # counters of one side
    WEIGHED_DRAWN = 0         # requests, however they ended
    WEIGHED_JUDGED = 1        # answered, or failed by the version's fault
    WEIGHED_FAILED = 2        # the version's fault: its errors, what its run refused, deadlines, broken answers
    WEIGHED_BROKEN = 3        # of those: NaN or infinity where the input has none, or a wrong shape
    WEIGHED_GIVEN_UP = 4      # of those: without an outcome for MAX_AGE
    WEIGHED_LATENCY = 8       # from admission to the answer, by tile.latency_cell; who failed is in the last
    WEIGHED_COST = 745        # of a batch with one request: execution per row, by latency_cell of COST_NS
    WEIGHED_VALUES = 1482     # of one row of each answer, N_VALUES a column
    N_WEIGHED = 9706


cdef enum:
    COST_NS = 8               # what the execution time is counted in: up to a second a row


cdef struct Seen:             # of one request's answer, filled where its batch runs; owned by the request
    bint is_broken, is_known  # is_known: the answer was looked at
    int n_columns
    uint16_t cells[MAX_WEIGHED]
    uint64_t given, said      # hashes of what came in and went out


cdef struct Live:             # of one side, since the generation began here
    uint64_t n, failed, broken
    uint64_t run, longest     # failures in a row: now; the longest that grew within RECENT_US
    int64_t longest_us
    uint64_t same, longest_same         # answers in a row that are equal although their requests differ: now; ever
    uint64_t given, said


cdef struct Span_:            # requests that arrived in one stretch of time
    int64_t start_us, last_us           # of the first and of the last arrival
    int64_t n_open[2]
    bint is_used[2]
    uint32_t* counts          # 2 * N_WEIGHED, owned


cdef class Scales:
    cdef readonly str model
    cdef readonly int64_t generation
    cdef readonly tuple versions        # of stable and of the candidate; "" where the split has none
    cdef readonly tuple shares          # of SHARE_UNIT
    cdef readonly bint is_sticky        # what is drawn are keys: a key's first request counts
    cdef int64_t n_open[2]
    cdef Live live[2]
    cdef uint64_t* total                # 2 * N_WEIGHED, owned
    cdef list columns                   # by side: names of the outputs' columns, None until one was seen
    cdef Span_ spans[MAX_SPANS]         # a ring
    cdef int first, n_spans
    cdef int64_t first_mark             # of the first span; marks count up from 1
    cdef uint64_t* keys                 # owned, open addressing; 0: empty
    cdef size_t n_keys, room
    cdef readonly uint64_t n_sealed     # spans that are in the total

    cdef int64_t arrive(self, int side, bint has_key, uint64_t key, int64_t now_us) except 0      # a mark
    cdef void settle(self, int side, int64_t mark, int code, bint has_run, int64_t took_us, const Seen* seen, int64_t now_us) noexcept
    cdef void note_cost(self, int side, int64_t mark, int64_t row_ns) noexcept
    cdef int seal(self, int64_t now_us) noexcept

    cdef uint32_t* _counts(self, int side, int64_t mark) noexcept
    cdef int _begin(self, int64_t now_us) except -1
    cdef bint _is_new(self, uint64_t key) except? False
    cdef int _grow(self) except -1


cdef inline int value_cell(uint64_t bits) noexcept nogil:
    """Of a double, by its bits: NaN, the infinities, what is nearly 0, then 16 to an octave from 2**-16 to 2**16, negative ones behind.
    Whole numbers below 32 have cells of their own."""
    cdef int exponent = <int>(bits >> 52 & 0x7FF)
    cdef int cell
    if exponent == 0x7FF:
        return 0 if bits & 0xFFFFFFFFFFFFFu else 1 if bits >> 63 else 2
    exponent -= 1023
    if exponent < -16:
        return 3
    cell = 4 + ((exponent + 16) << 4 | <int>(bits >> 48 & 15)) if exponent < 16 else 4 + 511
    return cell + 512 if bits >> 63 else cell
