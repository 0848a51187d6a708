"""Headers of a call, kept for the route."""
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from gateway.native cimport counters
from gateway.native.cursor cimport Span

cdef enum:
    FIRST_BYTES = 256         # of a block: a handful of headers; it doubles
    LENGTHS_BYTES = 8


cdef inline bint starts(const uint8_t* name, size_t n, const char* text, size_t text_len) noexcept nogil:
    return n >= text_len and memcmp(name, text, text_len) == 0


cdef inline bint is_same(const uint8_t* name, size_t n, const char* text, size_t text_len) noexcept nogil:
    return n == text_len and memcmp(name, text, text_len) == 0


cdef bint is_notable(const uint8_t* name, size_t n) noexcept nogil:
    if n == 0 or name[0] == 58:                               # ':'
        return False
    if name[0] == 116:                                        # 't'
        return not (is_same(name, n, "te", 2) or is_same(name, n, "traceparent", 11) or is_same(name, n, "transfer-encoding", 17))
    if name[0] == 99:                                         # 'c'
        return not (starts(name, n, "content-", 8) or is_same(name, n, "connection", 10))
    if name[0] == 103:                                        # 'g'
        return not starts(name, n, "grpc-", 5)
    if name[0] == 97:                                         # 'a'
        return not (is_same(name, n, "accept", 6) or is_same(name, n, "accept-encoding", 15))
    if name[0] == 117:                                        # 'u'
        return not is_same(name, n, "user-agent", 10)
    return not (is_same(name, n, "host", 4) or is_same(name, n, "expect", 6) or is_same(name, n, "inference-header-content-length", 31))


cdef int note(Noted* noted, const uint8_t* name, size_t name_len, const uint8_t* value, size_t value_len) noexcept nogil:
    """The caller bounds what is noted in all: it refuses calls whose headers are too long."""
    cdef uint32_t lengths[2]
    cdef size_t needed = <size_t>noted.length + LENGTHS_BYTES + name_len + value_len
    cdef size_t capacity = noted.capacity if noted.capacity else FIRST_BYTES
    cdef uint8_t* block
    if needed > 0x7FFFFFFF:
        return -1
    if needed > noted.capacity:
        while capacity < needed:
            capacity *= 2
        block = <uint8_t*>realloc(noted.data, capacity)
        if block == NULL:
            return -1
        if noted.data == NULL:
            counters.count(counters.KIND_MEMORY, 1)
        noted.data, noted.capacity = block, <uint32_t>capacity
    lengths[0], lengths[1] = <uint32_t>name_len, <uint32_t>value_len
    block = noted.data + noted.length
    memcpy(block, lengths, LENGTHS_BYTES)
    memcpy(block + LENGTHS_BYTES, name, name_len)
    if value_len:
        memcpy(block + LENGTHS_BYTES + name_len, value, value_len)
    noted.length = <uint32_t>needed
    return 0


cdef int note_all(Noted* noted, dict headers) except -1:
    cdef bytes name, value
    for name, value in headers.items():
        if is_notable(name, len(name)) and note(noted, name, len(name), value, len(value)) < 0:
            raise MemoryError("no memory for headers")
    return 0


cdef bint find_noted(const Noted* noted, Span name, Span* value) noexcept nogil:
    cdef const uint8_t* at = noted.data
    cdef const uint8_t* end
    cdef uint32_t lengths[2]
    if noted.length == 0:
        return False
    end = at + noted.length
    while at < end:
        memcpy(lengths, at, LENGTHS_BYTES)
        at += LENGTHS_BYTES
        if lengths[0] == name.len and memcmp(at, name.ptr, name.len) == 0:
            value.ptr, value.len = at + lengths[0], lengths[1]
            return True
        at += lengths[0] + lengths[1]
    return False


cdef void release_noted(Noted* noted) noexcept nogil:
    if noted.data != NULL:
        free(noted.data)
        noted.data = NULL
        noted.length = noted.capacity = 0
        counters.count(counters.KIND_MEMORY, -1)


def noted_is(bytes name not None):
    """Whether a header of that name (lower case) reaches routes."""
    return is_notable(name, len(name))
