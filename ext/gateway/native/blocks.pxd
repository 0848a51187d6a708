# Blocks: memory for large messages and large batches, kept by size for the next one.
#
# malloc gives what is large back to the system and asks for it again, at a fault for each page, or keeps it in heaps of its own, one for
# each thread, where the holes that one batch leaves do not fit the next. Here a freed block waits for the next of its size, whichever
# thread asks; what has been free for a whole second goes back to the system.
# One pool for the process, guarded by the GIL.
from libc.stdint cimport uint8_t


cdef enum:
    MIN_BLOCK_BYTES = 65536             # smaller ones are malloc's
    BLOCK_ALIGNMENT = 64                # a cache line, and what vector instructions like

cdef uint8_t* take_block(size_t n) noexcept             # n >= MIN_BLOCK_BYTES; NULL: no memory
cdef void give_block(uint8_t* at, size_t n) noexcept    # the n that it was taken with
cdef void trim_blocks() noexcept                        # once a second


cdef class Loan:                        # owned: a block that an array lies in, until nobody holds it
    cdef uint8_t* at
    cdef readonly size_t n
