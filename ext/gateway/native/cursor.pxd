# Cursor: a borrowed pointer and its end, on the C stack only. Reads protobuf's wire format in place; every read is bounds-checked.
# A read returns 0, or -1 when the bytes do not hold what they promise; the cursor then stands at the offending byte.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp


cdef struct Span:             # borrowed bytes; `ptr` may be NULL when `len` is 0
    const uint8_t* ptr
    size_t len


cdef struct Cursor:
    const uint8_t* at
    const uint8_t* end


cdef enum WireType:
    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_BYTES = 2
    WIRE_GROUP = 3
    WIRE_END_GROUP = 4
    WIRE_FIXED32 = 5


cdef enum:
    MAX_GROUP_DEPTH = 100     # protobuf's own recursion limit; bounds the stack that an unknown field can take


cdef inline Cursor cursor_over(Span span) noexcept nogil:
    cdef Cursor cursor
    cursor.at = span.ptr
    cursor.end = span.ptr + span.len
    return cursor


cdef inline int read_varint(Cursor* c, uint64_t* value) noexcept nogil:
    cdef uint64_t v = 0
    cdef int shift = 0
    cdef const uint8_t* p = c.at
    while p < c.end and shift < 70:
        v |= <uint64_t>(p[0] & 0x7F) << shift     # of the tenth byte one bit counts; protobuf drops the others too
        if p[0] < 0x80:
            c.at = p + 1
            value[0] = v
            return 0
        p += 1
        shift += 7
    return -1


cdef inline int read_tag(Cursor* c, uint32_t* field, int* wire_type) noexcept nogil:
    cdef uint64_t tag
    if c.at < c.end and c.at[0] < 0x80:           # fields 1 to 15: all of ours
        tag = c.at[0]
        c.at += 1
    elif read_varint(c, &tag) < 0:
        return -1
    if tag > 0xFFFFFFFFu or tag < 8:
        return -1
    field[0] = <uint32_t>(tag >> 3)
    wire_type[0] = <int>(tag & 7)
    return 0


cdef inline int read_bytes(Cursor* c, Span* span) noexcept nogil:
    cdef uint64_t n
    if read_varint(c, &n) < 0 or n > <uint64_t>(c.end - c.at):
        return -1
    span.ptr = c.at
    span.len = <size_t>n
    c.at += n
    return 0


cdef inline int skip_field(Cursor* c, uint32_t field, int wire_type) noexcept nogil:
    """Step over an unknown field, whole groups too."""
    cdef uint32_t stack[MAX_GROUP_DEPTH]
    cdef int depth = 0
    cdef uint64_t ignored
    cdef Span span
    while True:
        if wire_type == WIRE_VARINT:
            if read_varint(c, &ignored) < 0:
                return -1
        elif wire_type == WIRE_BYTES:
            if read_bytes(c, &span) < 0:
                return -1
        elif wire_type == WIRE_FIXED64 or wire_type == WIRE_FIXED32:
            if c.end - c.at < (8 if wire_type == WIRE_FIXED64 else 4):
                return -1
            c.at += 8 if wire_type == WIRE_FIXED64 else 4
        elif wire_type == WIRE_GROUP:
            if depth == MAX_GROUP_DEPTH:
                return -1
            stack[depth] = field
            depth += 1
        elif wire_type == WIRE_END_GROUP:
            if depth == 0 or stack[depth - 1] != field:
                return -1
            depth -= 1
        else:
            return -1
        if depth == 0:
            return 0
        if read_tag(c, &field, &wire_type) < 0:
            return -1


cdef inline bint span_is(Span span, const char* text, size_t n) noexcept nogil:
    return span.len == n and memcmp(span.ptr, text, n) == 0


cdef inline bint span_equals(Span a, Span b) noexcept nogil:
    return a.len == b.len and (a.len == 0 or memcmp(a.ptr, b.ptr, a.len) == 0)


cdef inline bint is_utf8(Span span) noexcept nogil:
    """Strict UTF-8 (no surrogates, no overlong forms), as proto3 demands of strings and ONNX Runtime's Python API of BYTES."""
    cdef const uint8_t* p = span.ptr
    cdef const uint8_t* end = p + span.len
    cdef int follow
    cdef uint8_t low, high
    while p < end:
        if p[0] < 0x80:
            p += 1
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= p[0] <= 0xDF:
            follow = 1
        elif 0xE0 <= p[0] <= 0xEF:
            follow = 2
            if p[0] == 0xE0:
                low = 0xA0
            elif p[0] == 0xED:
                high = 0x9F
        elif 0xF0 <= p[0] <= 0xF4:
            follow = 3
            if p[0] == 0xF0:
                low = 0x90
            elif p[0] == 0xF4:
                high = 0x8F
        else:
            return False
        if end - p <= follow or p[1] < low or p[1] > high:
            return False
        p += 2
        while follow > 1:
            if p[0] & 0xC0 != 0x80:
                return False
            p += 1
            follow -= 1
    return True


cdef inline size_t varint_len(uint64_t v) noexcept nogil:
    cdef size_t n = 1
    while v >= 0x80:
        v >>= 7
        n += 1
    return n


cdef inline uint8_t* write_varint(uint8_t* p, uint64_t v) noexcept nogil:
    """The caller has room: see varint_len."""
    while v >= 0x80:
        p[0] = <uint8_t>(v | 0x80)
        p += 1
        v >>= 7
    p[0] = <uint8_t>v
    return p + 1
