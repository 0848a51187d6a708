"""Large blocks of memory, kept by size for the next message or batch, and given back when nobody has needed them for a while."""
cimport cython
from libc.stdint cimport uint8_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memset

from gateway.native cimport counters
from gateway.native.counters cimport GW_COUNTING

cdef extern from *:
    """
    #include <stdlib.h>
    #include <sys/mman.h>
    #ifndef MAP_ANONYMOUS
    #define MAP_ANONYMOUS MAP_ANON
    #endif
    static int gw_log2(size_t n) { return 63 - __builtin_clzll((unsigned long long)n); }
    static void *gw_map(size_t n) {
        void *at = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return at == MAP_FAILED ? NULL : at;
    }
    static void gw_unmap(void *at, size_t n) { munmap(at, n); }
    static void *gw_aligned(size_t alignment, size_t n) { void *at = NULL; return posix_memalign(&at, alignment, n) ? NULL : at; }
    """
    int gw_log2(size_t n) nogil
    void* gw_map(size_t n) nogil
    void gw_unmap(void* at, size_t n) nogil
    void* gw_aligned(size_t alignment, size_t n) nogil

cdef enum:
    FIRST_POWER = 15                    # sizes begin at 40 kB, four to each power of two,
    N_SIZES = (40 - FIRST_POWER) * 4    # and end at a terabyte
    MAX_FREE_BYTES = 64 << 20           # over all sizes; beyond, a freed block goes back to the system at once

cdef struct Free:                       # in the block itself
    Free* next

cdef Free* kept[N_SIZES]
cdef size_t n_kept[N_SIZES]
cdef size_t n_spare[N_SIZES]            # the fewest that were free at any time since the last trim: nobody needed those
cdef size_t kept_bytes = 0
cdef bint keeps = not GW_COUNTING       # under the sanitizers a freed block must be malloc's


cdef inline int size_index(size_t n) noexcept nogil:
    """Of the smallest size that holds n bytes."""
    cdef int power = gw_log2(n - 1)
    return (power - FIRST_POWER) * 4 + <int>((n - 1) >> (power - 2) & 3)


cdef inline size_t size_of(int index) noexcept nogil:
    return <size_t>(5 + (index & 3)) << (FIRST_POWER - 2 + (index >> 2))


cdef uint8_t* take_block(size_t n) noexcept:
    global kept_bytes
    cdef int index = size_index(n)
    cdef Free* block
    if not keeps:
        return <uint8_t*>gw_aligned(BLOCK_ALIGNMENT, n)
    if index >= N_SIZES:
        return NULL
    block = kept[index]
    if block == NULL:
        return <uint8_t*>gw_map(size_of(index))
    kept[index] = block.next
    n_kept[index] -= 1
    n_spare[index] = min(n_spare[index], n_kept[index])
    kept_bytes -= size_of(index)
    return <uint8_t*>block


cdef void give_block(uint8_t* at, size_t n) noexcept:
    global kept_bytes
    cdef int index = size_index(n)
    if not keeps:
        free(at)
        return
    if kept_bytes + size_of(index) > MAX_FREE_BYTES:
        gw_unmap(at, size_of(index))
        return
    (<Free*>at).next = kept[index]
    kept[index] = <Free*>at
    n_kept[index] += 1
    kept_bytes += size_of(index)


cdef void trim_blocks() noexcept:
    """Give back what was free all the time since the last call."""
    global kept_bytes
    cdef int index
    cdef Free* block
    if kept_bytes == 0:
        return
    for index in range(<int>N_SIZES):
        while n_spare[index]:
            block = kept[index]
            kept[index] = block.next
            gw_unmap(block, size_of(index))
            n_spare[index] -= 1
            n_kept[index] -= 1
            kept_bytes -= size_of(index)
        n_spare[index] = n_kept[index]


@cython.final
@cython.no_gc
cdef class Loan:
    """Loan(n): a block of n bytes."""

    def __cinit__(self, size_t n):
        if n < MIN_BLOCK_BYTES:
            raise ValueError(f"a block of {n} bytes, expected at least {MIN_BLOCK_BYTES}")
        self.at = take_block(n)
        if self.at == NULL:
            raise MemoryError(f"no memory for a block of {n} bytes")
        counters.count(counters.KIND_MEMORY, 1)
        self.n = n

    def __dealloc__(self):
        if self.at != NULL:
            give_block(self.at, self.n)
            counters.count(counters.KIND_MEMORY, -1)

    # --- for tests and tools

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


def trim():
    """As once a second: give back what was free since the last time."""
    trim_blocks()


def free_bytes():
    """What waits to be used again, by size; empty in a debug build, which keeps nothing."""
    return {size_of(index): n_kept[index] * size_of(index) for index in range(<int>N_SIZES) if n_kept[index]}


def most_free_bytes():
    """Of all sizes together."""
    return MAX_FREE_BYTES
