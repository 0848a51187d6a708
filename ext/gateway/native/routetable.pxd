# RouteTable: which lane answers (model, version). Immutable once built; a change is a new table, swapped between two requests.
# An open-addressing table over both names at half load: a lookup hashes the caller's bytes in place and allocates nothing.
from libc.stdint cimport uint64_t

from gateway.native.cursor cimport Span
from gateway.native.lane cimport Lane


cdef struct RouteEntry:
    uint64_t hash
    Span model, version       # into keep; version "" is the model's default
    void* lane                # borrowed from keep; NULL: known, and not serving
    void* reason              # borrowed str: why not


cdef class RouteTable:
    cdef RouteEntry* entries            # owned
    cdef size_t mask
    cdef list keep
    cdef dict versions                  # model -> names of its versions, for error texts

    cdef Lane choose(self, Span model, Span version)        # None: see refuse
    cdef object refuse(self, Span model, Span version)      # the Refusal that explains
    cdef RouteEntry* _find(self, Span model, Span version) noexcept
    cdef int _insert(self, str model, str version, object target) except -1
