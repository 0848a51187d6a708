# Noted: the headers of one call that a route may look at, copied while they pass: name and value behind their lengths, in one block.
# Rules are not consulted when noting: the table may be another by the time the body is complete.
from libc.stdint cimport uint8_t, uint32_t

from gateway.native.cursor cimport Span


cdef struct Noted:            # embedded in its owner, zeroed; release_noted gives the block back
    uint8_t* data             # owned; NULL: nothing noted
    uint32_t length, capacity


cdef bint is_notable(const uint8_t* name, size_t n) noexcept nogil           # False: HTTP's and gRPC's own
cdef int note(Noted* noted, const uint8_t* name, size_t name_len, const uint8_t* value, size_t value_len) noexcept nogil     # -1: no memory
cdef int note_all(Noted* noted, dict headers) except -1                        # {name: value}, bytes, names in lower case
cdef bint find_noted(const Noted* noted, Span name, Span* value) noexcept nogil       # the first of that name
cdef void release_noted(Noted* noted) noexcept nogil
