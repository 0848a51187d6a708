# Body: the owned bytes of one message, request or answer, and its share of the budget of bytes in flight.
#
#   small messages live inside the object; larger ones in one heap block, sized once when the length is known, large ones in a block that
#   the next message uses again, so placed that the tensor in it can be run where it lies;
#   whoever reads holds a reference to the Body, never a bare pointer: a View is (Body, Span).
from libc.stdint cimport uint8_t


cdef enum:
    BODY_INLINE_BYTES = 448   # a 30-float request and its answer fit; keeps the object under 512 bytes


cdef class Budget:
    cdef readonly size_t limit          # bytes
    cdef readonly size_t used           # bytes
    cdef bint reserve(self, size_t n) noexcept          # False: over the limit, nothing taken
    cdef void take(self, size_t n) noexcept             # beyond the limit too: for answers, which must leave
    cdef void release(self, size_t n) noexcept


cdef class Body:
    cdef uint8_t* data                  # owned, or inside self
    cdef size_t length, capacity        # bytes
    cdef Budget budget                  # where `charged` was taken; None: not counted
    cdef size_t charged                 # bytes
    cdef uint8_t inside[BODY_INLINE_BYTES]

    @staticmethod
    cdef Body sized(size_t capacity)                                        # raises MemoryError
    cdef void charge(self, Budget budget, size_t n) noexcept                # hand over n bytes already taken from budget
    cdef void uncharge(self) noexcept                                       # who holds it from now on is not who it was counted for
    cdef bint is_placeable(self) noexcept                                   # empty, and in a block
    cdef void place(self, size_t offset) noexcept                           # so that the byte at `offset` will be aligned
    cdef void append(self, const uint8_t* data, size_t n) noexcept          # the caller has room
