# Sampler: which settled requests are told to Python, for the access log. Off, it costs one comparison a request.
from libc.stdint cimport int64_t

from gateway.native.request cimport Request


cdef class Sampler:
    cdef public object record           # (AccessRecord) -> None; None: off
    cdef public int every               # every Nth request; 0: off
    cdef int count

    cdef inline bint is_due(self) noexcept:
        if self.every == 0:
            return False
        self.count += 1
        if self.count < self.every:
            return False
        self.count = 0
        return True

    cdef int tell(self, Request request, int code, int64_t now_us) except -1
    cdef int tell_refused(self, str model, str version, str id, int code, bint is_rest, int64_t now_us) except -1
