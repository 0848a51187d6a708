# Timers: what is due when. A binary heap of Timed objects; each knows its place, so that cancelling is O(log n) without a search.
#
#   add(timed, due_us) ─▶ pending ─▶ fire(now_us)       the heap holds a reference while pending
#                           └─ cancel(timed)
from libc.stdint cimport int64_t


cdef class Timed:
    cdef int64_t due_us                 # monotonic; valid while pending
    cdef Py_ssize_t slot                # place in the heap, -1: not pending
    cdef int fire(self, int64_t now_us) except -1       # called once when due, no longer pending


cdef class Timers:
    cdef void** heap                    # owned array of owned references to Timed
    cdef Py_ssize_t n_pending, capacity
    cdef int64_t armed_us               # when the alarm outside is set to ring; 0: not set

    cdef int add(self, Timed timed, int64_t due_us) except -1
    cdef void cancel(self, Timed timed) noexcept
    cdef int run_due(self, int64_t now_us) except -1
    cdef int64_t next_due_us(self) noexcept             # 0: nothing pending

    cdef void _sift_up(self, Py_ssize_t slot, void* item) noexcept
    cdef void _sift_down(self, Py_ssize_t slot, void* item) noexcept
    cdef void _place(self, Py_ssize_t slot, void* item) noexcept
