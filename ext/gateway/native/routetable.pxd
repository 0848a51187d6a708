# RouteTable: what a request for (model, version) meets. Immutable once built; a change is a new table, swapped between two requests.
# An open-addressing table over both names at half load: a lookup hashes the caller's bytes in place and allocates nothing.
from libc.stdint cimport uint64_t

from gateway.native.cursor cimport Span
from gateway.native.route cimport Asked, Target


cdef struct RouteEntry:
    uint64_t hash
    Span model, version       # into keep; version "" is the model's default
    void* target              # borrowed from keep; NULL: see plan
    void* plan                # borrowed: draws the target; of a named version: naming one is forbidden


cdef class RouteTable:
    cdef RouteEntry* entries            # owned
    cdef size_t mask
    cdef list keep
    cdef readonly bint wants_headers    # some plan looks at them
    cdef dict versions                  # model -> names of its versions, for error texts

    cdef Target choose(self, Asked* asked)                  # None: see refuse; its lane None: it says why it does not serve
    cdef object refuse(self, const Asked* asked, Target target)      # the Refusal that explains
    cdef RouteEntry* _find(self, Span model, Span version) noexcept
    cdef int _insert(self, str model, str version, object what) except -1
