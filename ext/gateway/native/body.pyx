"""Owned message bytes, counted against one budget per worker."""
cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from gateway.native cimport counters
from gateway.native.blocks cimport BLOCK_ALIGNMENT, MIN_BLOCK_BYTES, give_block, take_block


cdef class Budget:
    """Bytes in flight: reserved when a message announces its length, released when its Body dies.

    Reserving before receiving means that an admitted message can always finish: there is no half-received deadlock.
    """

    def __cinit__(self, size_t limit):
        self.limit = limit
        self.used = 0

    cdef bint reserve(self, size_t n) noexcept:
        if n > self.limit - self.used or self.used > self.limit:
            return False
        self.used += n
        return True

    cdef void take(self, size_t n) noexcept:
        self.used += n

    cdef void release(self, size_t n) noexcept:
        self.used -= n


@cython.final
@cython.freelist(512)
@cython.no_gc
cdef class Body:
    """One message. Readable from Python through the buffer protocol (read-only)."""

    def __cinit__(self):
        counters.count(counters.KIND_BODY, 1)
        self.data = self.inside
        self.length = self.charged = 0
        self.capacity = BODY_INLINE_BYTES

    def __dealloc__(self):
        if self.data != self.inside:
            if self.capacity < MIN_BLOCK_BYTES:
                free(self.data)
            else:
                give_block(<uint8_t*>(<uintptr_t>self.data & ~<uintptr_t>(BLOCK_ALIGNMENT - 1)), self.capacity + BLOCK_ALIGNMENT)
            counters.count(counters.KIND_MEMORY, -1)
        if self.charged:
            self.budget.release(self.charged)
        counters.count(counters.KIND_BODY, -1)

    @staticmethod
    cdef Body sized(size_t capacity):
        cdef Body body = Body.__new__(Body)
        cdef uint8_t* block
        if capacity > BODY_INLINE_BYTES:
            block = <uint8_t*>malloc(capacity) if capacity < MIN_BLOCK_BYTES else take_block(capacity + BLOCK_ALIGNMENT)
            if block == NULL:
                raise MemoryError(f"no memory for a message of {capacity} bytes")
            counters.count(counters.KIND_MEMORY, 1)
            body.data = block
            body.capacity = capacity
        return body

    cdef void charge(self, Budget budget, size_t n) noexcept:
        self.budget = budget
        self.charged += n

    cdef bint is_placeable(self) noexcept:
        return self.length == 0 and self.capacity >= MIN_BLOCK_BYTES

    cdef void place(self, size_t offset) noexcept:
        self.data += (0 - (<uintptr_t>self.data + offset)) & (BLOCK_ALIGNMENT - 1)

    cdef void append(self, const uint8_t* data, size_t n) noexcept:
        memcpy(self.data + self.length, data, n)
        self.length += n

    cdef void uncharge(self) noexcept:
        if self.charged:
            self.budget.release(self.charged)
            self.charged = 0

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.length, 1, flags)

    def __len__(self):
        return self.length

    def __bytes__(self):
        return PyBytes_FromStringAndSize(<char*>self.data, self.length)

    @staticmethod
    def copy_of(const unsigned char[::1] data not None):
        """A Body holding a copy of `data` (bytes-like)."""
        cdef Body body = Body.sized(data.shape[0])
        if data.shape[0]:
            body.append(&data[0], data.shape[0])
        return body
