"""A heap of deadlines. Sans-I/O: whoever owns the loop asks next_due_us and calls run_due."""
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, realloc


cdef class Timed:
    """Something that happens at a time unless it is cancelled before."""

    def __cinit__(self):
        self.slot = -1

    cdef int fire(self, int64_t now_us) except -1:
        return 0


cdef class Timers:
    """All timers of one worker."""

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.n_pending):
            (<Timed>self.heap[i]).slot = -1
            Py_DECREF(<Timed>self.heap[i])
        free(self.heap)

    cdef int64_t next_due_us(self) noexcept:
        return (<Timed>self.heap[0]).due_us if self.n_pending else 0

    cdef int add(self, Timed timed, int64_t due_us) except -1:
        cdef Py_ssize_t wanted
        cdef void** grown
        if timed.slot >= 0:
            self.cancel(timed)
        if self.n_pending == self.capacity:
            wanted = self.capacity * 2 if self.capacity else 64
            grown = <void**>realloc(self.heap, wanted * sizeof(void*))
            if grown == NULL:
                raise MemoryError("no memory for a timer")
            self.heap = grown
            self.capacity = wanted
        timed.due_us = due_us
        Py_INCREF(timed)
        self.n_pending += 1
        self._sift_up(self.n_pending - 1, <void*>timed)
        return 0

    cdef void cancel(self, Timed timed) noexcept:
        cdef Py_ssize_t slot = timed.slot
        cdef void* last
        if slot < 0:
            return
        timed.slot = -1
        self.n_pending -= 1
        if slot != self.n_pending:
            last = self.heap[self.n_pending]
            if slot and (<Timed>self.heap[(slot - 1) >> 1]).due_us > (<Timed>last).due_us:
                self._sift_up(slot, last)
            else:
                self._sift_down(slot, last)
        Py_DECREF(timed)

    cdef int run_due(self, int64_t now_us) except -1:
        cdef Timed timed
        while self.n_pending and (<Timed>self.heap[0]).due_us <= now_us:
            timed = <Timed>self.heap[0]
            self.cancel(timed)
            timed.fire(now_us)
        return 0

    cdef void _sift_up(self, Py_ssize_t slot, void* item) noexcept:
        cdef Py_ssize_t parent
        while slot:
            parent = (slot - 1) >> 1
            if (<Timed>self.heap[parent]).due_us <= (<Timed>item).due_us:
                break
            self._place(slot, self.heap[parent])
            slot = parent
        self._place(slot, item)

    cdef void _sift_down(self, Py_ssize_t slot, void* item) noexcept:
        cdef Py_ssize_t child
        while True:
            child = 2 * slot + 1
            if child >= self.n_pending:
                break
            if child + 1 < self.n_pending and (<Timed>self.heap[child + 1]).due_us < (<Timed>self.heap[child]).due_us:
                child += 1
            if (<Timed>item).due_us <= (<Timed>self.heap[child]).due_us:
                break
            self._place(slot, self.heap[child])
            slot = child
        self._place(slot, item)

    cdef inline void _place(self, Py_ssize_t slot, void* item) noexcept:
        self.heap[slot] = item
        (<Timed>item).slot = slot

    def __len__(self):
        return self.n_pending


cdef class Callback(Timed):
    """A timer that calls a Python function with now_us: for control paths and tests."""

    cdef object function

    def __init__(self, function):
        self.function = function

    cdef int fire(self, int64_t now_us) except -1:
        self.function(now_us)
        return 0

    def start(self, Timers timers not None, int64_t due_us):
        """(Re)start at due_us."""
        timers.add(self, due_us)

    def cancel(self, Timers timers not None):
        """Forget it; nothing happens when it is not pending."""
        timers.cancel(self)


def run_due(Timers timers not None, int64_t now_us):
    """Fire what is due; returns when the next one is (monotonic microseconds), or None."""
    timers.run_due(now_us)
    return timers.next_due_us() or None
