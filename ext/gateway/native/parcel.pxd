# Parcel: one attempt at a batch whose tensors lie in memory that the other server sees too. Its message only says where.
#
#   measure (new) ─▶ who has memory of that size ─▶ fill ─▶ the message ─▶ answer
#
# Copies of a tensor: the same one as in a Form's message, from the callers' messages into the region. Back: none, the arrays look into the
# region, which they keep alive. The inputs lie first, then the outputs whose size is known; all others come in the answer.
from libc.stdint cimport int64_t, uint8_t

from gateway.native.batch cimport Batch
from gateway.native.remote cimport Form, Slot


cdef class Parcel:
    cdef readonly Form form
    cdef Batch batch
    cdef int low, high
    cdef readonly int64_t n_rows
    cdef readonly size_t n_bytes        # what it takes of a region; 0: it cannot go this way
    cdef size_t* offsets                # owned; of inputs
    cdef size_t* sizes                  # owned; of inputs
    cdef Slot* slots                    # owned; one an output, empty for those that come in the answer
    cdef size_t* places                 # owned; offsets of the slots
    cdef object lease                   # keeps the region; let go of with the last array over it
    cdef Py_buffer memory               # of the region
    cdef uint8_t[8] seal                # lies where the server is to write

    cdef bint is_sealed(self, Slot* slot) noexcept
