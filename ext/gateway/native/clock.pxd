# The monotonic clock in microseconds, read only at the edges (a socket read, a finished run); everything inside takes `now_us`.
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef extern from "<time.h>" nogil:
    int CLOCK_THREAD_CPUTIME_ID


cdef inline int64_t monotonic_us() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1_000_000 + t.tv_nsec // 1000


cdef inline int64_t thread_cpu_us() noexcept nogil:
    """Processor time of this thread: unlike wall time it does not grow when a neighbour takes the core or the GIL."""
    cdef timespec t
    clock_gettime(<int>CLOCK_THREAD_CPUTIME_ID, &t)
    return <int64_t>t.tv_sec * 1_000_000 + t.tv_nsec // 1000
