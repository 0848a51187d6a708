"""Values outside of a vocabulary: how many, and which come often."""
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcmp, memcpy

from gateway.native.cursor cimport Cursor, Span, read_varint, write_varint
from gateway.native.sketch cimport GW_LEADING_ZEROS, hash_number, hash_text

cdef enum:
    FIRST_SLOTS = 16
    MAX_COUNTERS_READ = 1 << 20         # a merged tile of a year has fewer; bounds what a blob may ask for
    SPARSE = 0
    DENSE = 1


cdef Others* others_new() noexcept nogil:
    cdef Others* others = <Others*>calloc(1, sizeof(Others))
    if others == NULL:
        return NULL
    others.table = <Counter*>calloc(FIRST_SLOTS, sizeof(Counter))
    if others.table == NULL:
        free(others)
        return NULL
    others.mask = FIRST_SLOTS - 1
    return others


cdef void others_free(Others* others) noexcept nogil:
    if others != NULL:
        free(others.table)
        free(others)


cdef Counter* find(Others* others, uint64_t key) noexcept nogil:
    """Its slot, or the empty one where it would be."""
    cdef uint64_t at = key & others.mask
    while others.table[at].key != 0 and others.table[at].key != key:
        at = (at + 1) & others.mask
    return &others.table[at]


cdef int resize(Others* others, uint64_t slots) noexcept nogil:
    cdef Counter* old = others.table
    cdef uint64_t n_old = others.mask + 1, i
    cdef Counter* table = <Counter*>calloc(slots, sizeof(Counter))
    if table == NULL:
        return -1
    others.table, others.mask = table, slots - 1
    for i in range(n_old):
        if old[i].key:
            find(others, old[i].key)[0] = old[i]
    free(old)
    return 0


cdef Counter* place(Others* others, uint64_t key) noexcept nogil:
    """The counter of `key`, made when there is none; NULL: no memory."""
    cdef Counter* counter = find(others, key)
    if counter.key == 0:
        if 2 * (others.n + 1) > others.mask + 1:
            if resize(others, 2 * (others.mask + 1)) < 0:
                return NULL
            counter = find(others, key)
        counter.key = key
        others.n += 1
    return counter


cdef Counter* others_note(Others* others, uint64_t hashed) noexcept nogil:
    """One more of it; without memory it is told apart no more, and counted as lacking."""
    cdef uint64_t rest = hashed << HLL_LG
    cdef uint8_t rank = <uint8_t>(GW_LEADING_ZEROS(rest) + 1 if rest else MAX_RANK)
    cdef uint8_t* slot = &others.registers[hashed >> (64 - HLL_LG)]
    cdef Counter* counter
    if rank > slot[0]:
        slot[0] = rank
    hashed += hashed == 0
    counter = find(others, hashed)
    if counter.key:
        counter.count += 1
        return NULL
    if others.n >= MAX_COUNTERS and others_trim(others, MAX_COUNTERS // 2) < 0:
        others.lacking += 1
        return NULL
    counter = place(others, hashed)
    if counter == NULL:
        others.lacking += 1
        return NULL
    counter.count = 1
    return counter


cdef int others_merge(Others* others, const Others* more) noexcept nogil:
    cdef uint64_t i
    cdef const Counter* theirs
    cdef Counter* ours
    for i in range(<uint64_t>N_REGISTERS):
        if more.registers[i] > others.registers[i]:
            others.registers[i] = more.registers[i]
    others.lacking += more.lacking
    for i in range(more.mask + 1):
        theirs = &more.table[i]
        if theirs.key == 0:
            continue
        ours = place(others, theirs.key)
        if ours == NULL:
            return -1
        if ours.count == 0 or later(theirs, ours):            # two texts of one hash: the same one stays in every order
            ours.length = theirs.length
            memcpy(ours.text, theirs.text, theirs.length)
        ours.count += theirs.count
    return 0


cdef bint later(const Counter* a, const Counter* b) noexcept nogil:
    cdef int order = memcmp(a.text, b.text, min(a.length, b.length))
    return order > 0 or (order == 0 and a.length > b.length)


cdef int by_count(const void* a, const void* b) noexcept nogil:
    """Greatest first."""
    cdef uint64_t x = (<const uint64_t*>a)[0], y = (<const uint64_t*>b)[0]
    return -1 if x > y else x < y


cdef int by_key(const void* a, const void* b) noexcept nogil:
    cdef uint64_t x = (<const Counter*>a).key, y = (<const Counter*>b).key
    return -1 if x < y else x > y


cdef int others_trim(Others* others, uint64_t n_kept) noexcept nogil:
    """Leave at most n_kept counters: all are cut by the greatest that goes. That many times n_kept + 1 values are forgotten together, so
    over a stream of n values `lacking` stays below n / (n_kept + 1)."""
    cdef uint64_t* counts
    cdef uint64_t i, n = 0, cut
    cdef Counter* table
    if others.n <= n_kept:
        return 0
    counts = <uint64_t*>malloc(others.n * sizeof(uint64_t))
    table = <Counter*>calloc(others.mask + 1, sizeof(Counter))
    if counts == NULL or table == NULL:
        free(counts)
        free(table)
        return -1
    for i in range(others.mask + 1):
        if others.table[i].key:
            counts[n] = others.table[i].count
            n += 1
    qsort(counts, n, sizeof(uint64_t), by_count)
    cut = counts[n_kept]
    free(counts)
    others.lacking += cut
    others.n = 0
    cdef Counter* old = others.table
    others.table = table
    for i in range(others.mask + 1):
        if old[i].count > cut:
            old[i].count -= cut
            find(others, old[i].key)[0] = old[i]
            others.n += 1
    free(old)
    return 0


# --- on the wire: registers sparse or dense, lacking, the counters by key -------------------------------------------------------------

cdef size_t others_size(const Others* others) noexcept nogil:
    return 1 + 10 + 4 * N_REGISTERS + 20 + others.n * (8 + 10 + 1 + KEPT_TEXT_BYTES)


cdef uint8_t* others_write(const Others* others, uint8_t* p) noexcept nogil:
    """The same bytes for equal contents; NULL: no memory."""
    cdef uint64_t i, last = 0, n = 0
    cdef Counter* sorted_ = <Counter*>malloc((others.n + 1) * sizeof(Counter))
    if sorted_ == NULL:
        return NULL
    for i in range(<uint64_t>N_REGISTERS):
        n += others.registers[i] != 0
    if n * 2 < N_REGISTERS:
        p[0] = SPARSE
        p = write_varint(p + 1, n)
        for i in range(<uint64_t>N_REGISTERS):
            if others.registers[i]:
                p = write_varint(p, i - last)
                p[0] = others.registers[i]
                p += 1
                last = i
    else:
        p[0] = DENSE
        memcpy(p + 1, others.registers, N_REGISTERS)
        p += 1 + N_REGISTERS
    p = write_varint(p, others.lacking)
    p = write_varint(p, others.n)
    n = 0
    for i in range(others.mask + 1):
        if others.table[i].key:
            sorted_[n] = others.table[i]
            n += 1
    qsort(sorted_, n, sizeof(Counter), by_key)
    for i in range(n):
        memcpy(p, &sorted_[i].key, 8)
        p = write_varint(p + 8, sorted_[i].count)
        p[0] = sorted_[i].length
        memcpy(p + 1, sorted_[i].text, sorted_[i].length)
        p += 1 + sorted_[i].length
    free(sorted_)
    return p


cdef const char* others_read(Others* others, Cursor* c) noexcept nogil:
    """Into a new one."""
    cdef uint64_t n, at = 0, i, _i, step, key, count, last = 0
    cdef uint8_t form, length
    cdef Counter* counter
    if c.at == c.end:
        return "it ends before the registers"
    form = c.at[0]
    c.at += 1
    if form == DENSE:
        if c.end - c.at < N_REGISTERS:
            return "it ends within the registers"
        memcpy(others.registers, c.at, N_REGISTERS)
        c.at += N_REGISTERS
        for i in range(<uint64_t>N_REGISTERS):
            if others.registers[i] > MAX_RANK:
                return "a register is too great"
    elif form == SPARSE:
        if read_varint(c, &n) < 0 or n > N_REGISTERS:
            return "the number of registers is wrong"
        for i in range(n):
            if read_varint(c, &step) < 0 or c.at == c.end:
                return "it ends within the registers"
            if step >= N_REGISTERS or at + step >= N_REGISTERS or (i > 0 and step == 0) or not 0 < c.at[0] <= MAX_RANK:
                return "a register is wrong"
            at += step
            others.registers[at] = c.at[0]
            c.at += 1
    else:
        return "the form of the registers is unknown"
    if read_varint(c, &others.lacking) < 0 or read_varint(c, &n) < 0:
        return "it ends before the counters"
    if n > MAX_COUNTERS_READ or n * 10 > <uint64_t>(c.end - c.at):
        return "there are too many counters"
    for _i in range(n):
        if c.end - c.at < 8:
            return "it ends within the counters"
        memcpy(&key, c.at, 8)
        c.at += 8
        if key <= last or read_varint(c, &count) < 0 or count == 0 or c.at == c.end:
            return "a counter is wrong"
        last = key
        length = c.at[0]
        if length > KEPT_TEXT_BYTES or c.end - c.at - 1 < length:
            return "a counter's text is wrong"
        counter = place(others, key)
        if counter == NULL:
            return "there is no memory"
        counter.count, counter.length = count, length
        memcpy(counter.text, c.at + 1, length)
        c.at += 1 + length
    return NULL


# --- for tests ----------------------------------------------------------------------------------------------------------------------

def hash_of(value):
    """The 64 bits that stand for a whole number or a text."""
    cdef bytes raw
    cdef Span span
    if isinstance(value, int):
        return hash_number(<uint64_t>(value & 0xFFFFFFFFFFFFFFFF))
    raw = value.encode()
    span.ptr, span.len = <const uint8_t*><char*>raw, len(raw)
    return hash_text(span)
