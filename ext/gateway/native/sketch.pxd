# Sketch: how a value becomes a cell. Kernels over blocks of one column; they touch only the memory they are given, and cannot fail.
#
# A cell is a 64-bit integer that adds up, or (LEAST, GREATEST) an order-preserving code of which the greatest stays. So any grouping of
# values, batches, workers and minutes gives the same bits.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from gateway.native.cursor cimport Span


cdef extern from *:
    """
    #define GW_MAX_QUANTA 1048576.0          /* moments are cut to this: a thousand deviations, and a square stays below 2**40 */
    #define GW_TO_WHOLE 6755399441055744.0   /* 1.5 * 2**52: adding it rounds to the nearest whole number, half to even */
    #define GW_LARGEST 1.7976931348623157e308
    #define GW_INFINITE __builtin_inf()
    #define GW_NO_NUMBER __builtin_nan("")
    #define GW_LEADING_ZEROS(x) __builtin_clzll(x)
    """
    const double GW_MAX_QUANTA, GW_TO_WHOLE, GW_LARGEST, GW_INFINITE, GW_NO_NUMBER
    int GW_LEADING_ZEROS(uint64_t x) noexcept nogil


cdef enum:
    BLOCK_ROWS = 256          # values of a column that a kernel takes at once: 2 kB on the stack
    SQUARE_BITS = 20          # squares are added in two halves, each of which holds the sum of 2**43 rows
    SQUARE_LOW = 0xFFFFF


cdef enum:                    # after the n_edges + 1 counts of a binned column
    CELL_NAN = 0
    CELL_NEG_INF = 1
    CELL_POS_INF = 2
    CELL_SUM = 3              # of quanta, signed
    CELL_SQUARES_LOW = 4
    CELL_SQUARES_HIGH = 5
    CELL_LEAST = 6            # order_code(-x); 0: nothing yet
    CELL_GREATEST = 7         # order_code(x)
    N_AFTER_COUNTS = 8


cdef enum:                    # after the counts of a categorical column's words
    CELL_OTHER = 0
    CELL_MISSING = 1
    N_AFTER_WORDS = 2


cdef struct Bins:             # borrowed from the plan
    const double* tree        # edges as a binary tree: root at 1, children of k at 2k and 2k + 1; filled up with +inf
    int levels
    int n_edges
    double centre
    double per_quantum        # 1 / scale; 0: no moments


cdef struct Word:             # a slot of a vocabulary's table
    uint64_t key              # the number, or the text's hash
    int32_t index             # which word; -1: an empty slot


cdef struct Words:            # borrowed from the plan
    const Word* table
    uint64_t mask
    const Span* texts         # NULL: numbers
    int n_words


# --- hashing: part of the format, for what workers count by hash has to add up ------------------------------------------------------

cdef inline uint64_t mix(uint64_t h) noexcept nogil:
    """SplitMix64's finalizer: one to one, and every bit of h moves half of the bits."""
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBu
    return h ^ (h >> 31)


cdef inline uint64_t hash_number(uint64_t value) noexcept nogil:
    return mix(value + 0x9E3779B97F4A7C15u)


cdef inline uint64_t hash_text(Span text) noexcept nogil:
    cdef const uint8_t* p = text.ptr
    cdef size_t left = text.len
    cdef uint64_t h = 0x9E3779B97F4A7C15u ^ <uint64_t>left, word
    while left >= 8:
        memcpy(&word, p, 8)
        h = mix(h ^ word)
        p += 8
        left -= 8
    if left:
        word = 0
        memcpy(&word, p, left)
        h = mix(h ^ word)
    return mix(h)


# --- numbers ------------------------------------------------------------------------------------------------------------------------

cdef inline uint64_t order_code(double x) noexcept nogil:
    """Greater numbers have greater codes; no number has 0."""
    cdef uint64_t bits
    x += 0.0                                                  # -0 and 0 are one number
    memcpy(&bits, &x, 8)
    return ~bits if bits >> 63 else bits | (<uint64_t>1 << 63)


cdef inline void count_block(const Bins* bins, const double* x, int n, uint64_t* cells) noexcept nogil:
    """Add up to BLOCK_ROWS values to a column's cells."""
    cdef const double* tree = bins.tree
    cdef uint64_t* after = cells + bins.n_edges + 1
    cdef int levels = bins.levels, i, level
    cdef size_t k, first_leaf = <size_t>1 << levels
    cdef double value, quanta, least = GW_INFINITE, greatest = -GW_INFINITE
    cdef double centre = bins.centre, per_quantum = bins.per_quantum
    cdef int64_t whole, total = 0, square
    cdef uint64_t low = 0, high = 0, zero, bits
    quanta = GW_TO_WHOLE
    memcpy(&zero, &quanta, 8)
    for i in range(n):
        value = x[i]
        if not -GW_LARGEST <= value <= GW_LARGEST:
            after[CELL_NAN if value != value else CELL_POS_INF if value > 0 else CELL_NEG_INF] += 1
            continue
        k = 1
        for level in range(levels):                           # no branch: bins are made to be equally likely
            k = 2 * k + (value >= tree[k])
        cells[k - first_leaf] += 1
        quanta = (value - centre) * per_quantum
        quanta = quanta if quanta > -GW_MAX_QUANTA else -GW_MAX_QUANTA
        quanta = (quanta if quanta < GW_MAX_QUANTA else GW_MAX_QUANTA) + GW_TO_WHOLE
        memcpy(&bits, &quanta, 8)
        whole = <int64_t>(bits - zero)
        total += whole
        square = whole * whole
        low += <uint64_t>square & SQUARE_LOW
        high += <uint64_t>square >> SQUARE_BITS
        least = value if value < least else least
        greatest = value if value > greatest else greatest
    after[CELL_SUM] += <uint64_t>total
    after[CELL_SQUARES_LOW] += low
    after[CELL_SQUARES_HIGH] += high
    if least <= greatest:
        keep_greatest(&after[CELL_LEAST], order_code(-least))
        keep_greatest(&after[CELL_GREATEST], order_code(greatest))


cdef inline void keep_greatest(uint64_t* cell, uint64_t code) noexcept nogil:
    if code > cell[0]:
        cell[0] = code


# --- words --------------------------------------------------------------------------------------------------------------------------

cdef inline int find_number(const Words* words, uint64_t number, uint64_t hashed) noexcept nogil:
    """Which word, or -1."""
    cdef uint64_t at = hashed & words.mask
    while words.table[at].index >= 0:
        if words.table[at].key == number:
            return words.table[at].index
        at = (at + 1) & words.mask
    return -1


cdef inline int find_text(const Words* words, Span text, uint64_t hashed) noexcept nogil:
    cdef uint64_t at = hashed & words.mask
    cdef const Span* word
    while words.table[at].index >= 0:
        if words.table[at].key == hashed:
            word = &words.texts[words.table[at].index]
            if word.len == text.len and memcmp(word.ptr, text.ptr, text.len) == 0:
                return words.table[at].index
        at = (at + 1) & words.mask
    return -1


cdef inline bint is_whole(double x, int64_t* number) noexcept nogil:
    """Whether a double is a whole number that an int64 holds."""
    if not -9223372036854775808.0 <= x < 9223372036854775808.0:
        return False
    number[0] = <int64_t>x
    return <double>number[0] == x


# --- tensors in memory --------------------------------------------------------------------------------------------------------------

cdef inline double half_to_double(uint16_t h) noexcept nogil:
    """IEEE 754 binary16."""
    cdef uint32_t exponent = (h >> 10) & 0x1F, fraction = h & 0x3FF
    cdef double value
    if exponent == 31:
        value = GW_NO_NUMBER if fraction else GW_INFINITE
    elif exponent == 0:
        value = <double>fraction * 5.9604644775390625e-08                   # 2**-24: subnormal
    else:
        value = <double>(fraction + 1024) * 5.9604644775390625e-08 * <double>(<uint32_t>1 << (exponent - 1))
    return -value if h >> 15 else value


cdef inline double bfloat_to_double(uint16_t h) noexcept nogil:
    cdef uint32_t bits = <uint32_t>h << 16
    cdef float value
    memcpy(&value, &bits, 4)
    return value
