# Links: which primary answer a shadow's belongs to, by their receipts, so that a label that comes later can be held against both. A
# uniform sample of the pairs that ended since it was taken last. Loop thread only.
from libc.stdint cimport uint64_t

from gateway.native.body cimport Body


cdef class Links:
    cdef readonly int room              # pairs kept until they are taken
    cdef uint64_t n_seen                # since then
    cdef list kept                      # (token of the primary, of the shadow or None where it failed, the shadow's version)

    cdef int note(self, Body primary, bint is_streamed, Body shadow, str version) except -1      # shadow None: it failed, or was late
