"""Small blocks of memory, kept by size for the next request."""
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from gateway.native.counters cimport GW_COUNTING

cdef enum:
    N_SIZES = MAX_POOLED_BYTES // STEP_BYTES + 1
    MAX_KEPT_BYTES = 256 << 10          # free blocks of a size: what a thousand open calls hold; nghttp2 uses about eight sizes

cdef Block* kept[N_SIZES]
cdef size_t kept_bytes[N_SIZES]
cdef size_t max_kept_bytes = 0 if GW_COUNTING else MAX_KEPT_BYTES       # under the sanitizers a freed block must be malloc's


cdef void* pool_malloc(size_t n, void* unused) noexcept nogil:
    cdef size_t size = (max(n, <size_t>1) + STEP_BYTES - 1) // STEP_BYTES
    cdef Block* block
    if n > MAX_POOLED_BYTES:
        block = <Block*>malloc(n + sizeof(Block)) if n <= <size_t>-1 - sizeof(Block) else NULL
        size = 0
    elif kept[size] != NULL:
        block = kept[size]
        kept[size] = block.next
        kept_bytes[size] -= size * STEP_BYTES
        return <void*>(block + 1)
    else:
        block = <Block*>malloc(size * STEP_BYTES + sizeof(Block))
    if block == NULL:
        return NULL
    block.size = size
    return <void*>(block + 1)


cdef void pool_free(void* at, void* unused) noexcept nogil:
    cdef Block* block
    if at == NULL:
        return
    block = <Block*>at - 1
    if block.size == 0 or kept_bytes[block.size] + block.size * STEP_BYTES > max_kept_bytes:
        free(block)
        return
    kept_bytes[block.size] += block.size * STEP_BYTES
    block.next = kept[block.size]
    kept[block.size] = block


cdef void* pool_calloc(size_t count, size_t n, void* unused) noexcept nogil:
    cdef void* at
    if n and count > <size_t>-1 // n:
        return NULL
    at = pool_malloc(count * n, NULL)
    if at != NULL:
        memset(at, 0, count * n)
    return at


cdef void* pool_realloc(void* at, size_t n, void* unused) noexcept nogil:
    cdef Block* block
    cdef void* grown
    if at == NULL:
        return pool_malloc(n, NULL)
    block = <Block*>at - 1
    if block.size == 0 and n > MAX_POOLED_BYTES:
        block = <Block*>realloc(block, n + sizeof(Block)) if n <= <size_t>-1 - sizeof(Block) else NULL
        return <void*>(block + 1) if block != NULL else NULL
    if block.size and n <= block.size * STEP_BYTES and n:
        return at
    grown = pool_malloc(n, NULL)
    if grown != NULL:
        memcpy(grown, at, min(n, block.size * STEP_BYTES) if block.size else n)
        pool_free(at, NULL)
    return grown


# --- for tests and tools -------------------------------------------------------------------------------------------------------------

cdef class Held:
    """Held(n): a block of n bytes, as a session would hold it."""

    cdef unsigned char* at
    cdef readonly size_t n

    def __init__(self, size_t n, bint cleared=False):
        pool_free(self.at, NULL)
        self.at = <unsigned char*>(pool_calloc(1, n, NULL) if cleared else pool_malloc(n, NULL))
        if self.at == NULL:
            raise MemoryError(f"no memory for {n} bytes")
        self.n = n

    def __dealloc__(self):
        pool_free(self.at, NULL)

    def resize(self, size_t n):
        """As realloc: what fits of the content stays."""
        cdef void* grown = pool_realloc(self.at, n, NULL)
        if grown == NULL:
            raise MemoryError(f"no memory for {n} bytes")
        self.at, self.n = <unsigned char*>grown, n

    def fill(self, int value):
        """Every byte."""
        memset(self.at, value, self.n)

    @property
    def content(self):
        """The bytes."""
        return self.at[:self.n]

    @property
    def address(self):
        """Where it lies."""
        return <uintptr_t>self.at


def free_bytes():
    """What waits to be used again, by size."""
    return {size * <int>STEP_BYTES: kept_bytes[size] for size in range(<int>N_SIZES) if kept_bytes[size]}


def most_free_bytes():
    """Of a size; beyond, a freed block goes back to malloc. 0 in a debug build."""
    return max_kept_bytes
