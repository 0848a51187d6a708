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


cdef enum:                    # after the n_edges + 1 counts of a binned column
    CELL_NAN = 0
    CELL_NEG_INF = 1
    CELL_POS_INF = 2
    CELL_SUM = 3              # of quanta, signed
    CELL_SQUARES = 4          # of quanta: at most 2**40 a row, so a minute of 280,000 rows/s at the very limit fits
    CELL_LEAST = 5            # order_code(-x); 0: nothing yet
    CELL_GREATEST = 6         # order_code(x)
    N_AFTER_COUNTS = 7


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


cdef inline double quanta_of(const Bins* bins, double x) noexcept nogil:
    """A whole number, exactly: how far a value is from the centre."""
    cdef double quanta = (x - bins.centre) * bins.per_quantum
    quanta = quanta if quanta > -GW_MAX_QUANTA else -GW_MAX_QUANTA
    quanta = quanta if quanta < GW_MAX_QUANTA else GW_MAX_QUANTA
    return (quanta + GW_TO_WHOLE) - GW_TO_WHOLE


cdef inline void count_block(const Bins* bins, const double* x, int n, uint64_t* cells) noexcept nogil:
    """Add up to BLOCK_ROWS values to a column's cells. Moments are added as doubles: whole numbers whose sums stay below 2**53 are exact,
    in any order."""
    cdef double finite[BLOCK_ROWS]
    cdef uint64_t* after = cells + bins.n_edges + 1
    cdef double nothing = 0, least = GW_INFINITE, greatest = -GW_INFINITE, least1 = GW_INFINITE, greatest1 = -GW_INFINITE
    cdef double total = 0, squares = 0, total1 = 0, squares1 = 0, quanta, quanta1, centre = bins.centre, per_quantum = bins.per_quantum
    cdef int i, n_finite
    for i in range(n):
        nothing += x[i] * 0                                   # NaN as soon as one is not finite
    if nothing != 0:
        n_finite = 0
        for i in range(n):
            if -GW_LARGEST <= x[i] <= GW_LARGEST:
                finite[n_finite] = x[i]
                n_finite += 1
            else:
                after[CELL_NAN if x[i] != x[i] else CELL_POS_INF if x[i] > 0 else CELL_NEG_INF] += 1
        x, n = finite, n_finite
    if n == 0:
        return
    i = 0
    while i + 2 <= n:                                         # two by two: one chain of sums would wait for itself
        least = x[i] if x[i] < least else least
        greatest = x[i] if x[i] > greatest else greatest
        least1 = x[i + 1] if x[i + 1] < least1 else least1
        greatest1 = x[i + 1] if x[i + 1] > greatest1 else greatest1
        i += 2
    if i < n:
        least = x[i] if x[i] < least else least
        greatest = x[i] if x[i] > greatest else greatest
    least = least if least < least1 else least1
    greatest = greatest if greatest > greatest1 else greatest1
    i = 0
    if -GW_MAX_QUANTA <= (least - centre) * per_quantum and (greatest - centre) * per_quantum <= GW_MAX_QUANTA:
        while i + 2 <= n:
            quanta = ((x[i] - centre) * per_quantum + GW_TO_WHOLE) - GW_TO_WHOLE
            quanta1 = ((x[i + 1] - centre) * per_quantum + GW_TO_WHOLE) - GW_TO_WHOLE
            total += quanta
            total1 += quanta1
            squares += quanta * quanta
            squares1 += quanta1 * quanta1
            i += 2
    while i < n:
        quanta = quanta_of(bins, x[i])
        total += quanta
        squares += quanta * quanta
        i += 1
    after[CELL_SUM] += <uint64_t><int64_t>(total + total1)
    after[CELL_SQUARES] += <uint64_t>(squares + squares1)
    keep_greatest(&after[CELL_LEAST], order_code(-least))
    keep_greatest(&after[CELL_GREATEST], order_code(greatest))
    if bins.levels == 5:                                      # up to 31 edges
        find_bins(bins.tree, 5, x, n, cells)
    elif bins.levels == 6:
        find_bins(bins.tree, 6, x, n, cells)
    else:
        find_bins(bins.tree, bins.levels, x, n, cells)


cdef inline void find_bins(const double* tree, const int levels, const double* x, int n, uint64_t* cells) noexcept nogil:
    """Four searches side by side, without a branch: bins are made to be equally likely, which no processor guesses."""
    cdef size_t a, b, c, d, first_leaf = <size_t>1 << levels
    cdef int i = 0, _level
    while i + 4 <= n:
        a = b = c = d = 1
        for _level in range(levels):
            a = 2 * a + (x[i] >= tree[a])
            b = 2 * b + (x[i + 1] >= tree[b])
            c = 2 * c + (x[i + 2] >= tree[c])
            d = 2 * d + (x[i + 3] >= tree[d])
        cells[a - first_leaf] += 1
        cells[b - first_leaf] += 1
        cells[c - first_leaf] += 1
        cells[d - first_leaf] += 1
        i += 4
    while i < n:
        a = 1
        for _level in range(levels):
            a = 2 * a + (x[i] >= tree[a])
        cells[a - first_leaf] += 1
        i += 1


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
