# Others: what a categorical column sees outside of its vocabulary: how many different values, and which come often.
#
# HyperLogLog over 2**11 registers (the greatest rank stays), and Misra-Gries counters: a value that comes more than n / 128 times is in
# there, and its count lacks at most `lacking`. Merging adds counters and forgets none, so it gives the same bits in any grouping; only
# the stream of one worker is cut down (`trim`), and a reader may.
from libc.stdint cimport uint8_t, uint64_t

from gateway.native.cursor cimport Cursor


cdef enum:
    HLL_LG = 11
    N_REGISTERS = 2048
    MAX_RANK = 54             # 64 - HLL_LG + 1
    MAX_COUNTERS = 256        # of one stream; a trim leaves half
    KEPT_TEXT_BYTES = 47      # of a value, for people: the hash is who it is


cdef struct Counter:
    uint64_t key              # hash; 0: an empty slot
    uint64_t count
    uint8_t length
    uint8_t text[KEPT_TEXT_BYTES]


cdef struct Others:
    uint8_t registers[N_REGISTERS]
    uint64_t lacking          # what a counter may lack
    Counter* table            # owned, open addressing, at most half full
    uint64_t mask
    uint64_t n


cdef Others* others_new() noexcept nogil                                     # NULL: no memory
cdef void others_free(Others* others) noexcept nogil
cdef Counter* others_note(Others* others, uint64_t hashed) noexcept nogil   # a new counter, whose text is to be set, or NULL
cdef int others_merge(Others* others, const Others* more) noexcept nogil     # -1: no memory
cdef int others_trim(Others* others, uint64_t n_kept) noexcept nogil         # -1: no memory
cdef size_t others_size(const Others* others) noexcept nogil                 # bytes that others_write may need
cdef uint8_t* others_write(const Others* others, uint8_t* p) noexcept nogil
cdef const char* others_read(Others* others, Cursor* c) noexcept nogil       # what is wrong with it, or NULL
