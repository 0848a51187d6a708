# Histogram: durations in fixed buckets, exact integers that add up over workers. The bounds are Prometheus' "le", in microseconds.
from libc.stdint cimport int64_t, uint64_t


cdef enum:
    N_BOUNDS = 20


cdef extern from *:
    """
    static const long long GW_BOUNDS_US[20] = {50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000,
                                               1000000, 2000000, 5000000, 10000000, 20000000, 50000000, 100000000};
    """
    const long long GW_BOUNDS_US[20]


cdef struct Histogram:
    uint64_t counts[N_BOUNDS + 1]       # one a bucket, not cumulative; the last is above every bound
    uint64_t sum_us


cdef inline void record(Histogram* h, int64_t us) noexcept nogil:
    cdef int i = 0
    while i < N_BOUNDS and us > GW_BOUNDS_US[i]:
        i += 1
    h.counts[i] += 1
    h.sum_us += us if us > 0 else 0
