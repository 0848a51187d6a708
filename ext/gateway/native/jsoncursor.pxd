# JSON's tokens over a Cursor (see cursor.pxd), for readers of the plain: each returns whether it found what it wants.
from libc.stdint cimport uint8_t, uint64_t

from gateway.native.cursor cimport Cursor, Span, is_utf8, span_is
from gateway.native.decimal cimport read_whole


cdef enum:
    MAX_SCALAR_DIGITS = 18    # of sizes and parameters: any of them fits an int64


cdef inline void skip_space(Cursor* c) noexcept nogil:
    while c.at < c.end and (c.at[0] == c' ' or c.at[0] == c'\n' or c.at[0] == c'\r' or c.at[0] == c'\t'):
        c.at += 1


cdef inline bint take(Cursor* c, uint8_t wanted) noexcept nogil:
    """Over space and one character; where it is another, only over the space."""
    if c.at < c.end and c.at[0] == wanted:
        c.at += 1
        return True
    skip_space(c)
    if c.at < c.end and c.at[0] == wanted:
        c.at += 1
        return True
    return False


cdef inline bint take_word(Cursor* c, const char* word, size_t n) noexcept nogil:
    cdef Span span
    skip_space(c)
    span.ptr, span.len = c.at, n
    if <size_t>(c.end - c.at) < n or not span_is(span, word, n):
        return False
    c.at += n
    return True


cdef inline bint take_string(Cursor* c, Span* text) noexcept nogil:
    """A string that stands in the text as it is: no escapes."""
    cdef const uint8_t* p
    cdef uint8_t seen = 0
    if not take(c, c'"'):
        return False
    p = c.at
    while p < c.end and p[0] != c'"':
        if p[0] == c'\\' or p[0] < 0x20:
            return False
        seen |= p[0]
        p += 1
    if p == c.end:
        return False
    text.ptr, text.len = c.at, p - c.at
    c.at = p + 1
    return seen < 0x80 or is_utf8(text[0])


cdef inline bint take_key(Cursor* c, Span* key) noexcept nogil:
    return take_string(c, key) and take(c, c':')


cdef inline bint take_scalar(Cursor* c, uint64_t* number, bint* is_negative) noexcept nogil:
    """A whole number; what follows is for others to look at, but no more of the number may."""
    cdef const uint8_t* p
    skip_space(c)
    p = read_whole(c.at, c.end, number, is_negative)
    if p == NULL or p - c.at - is_negative[0] > MAX_SCALAR_DIGITS or p[0] == c'.' or p[0] == c'e' or p[0] == c'E':
        return False
    c.at = p
    return True
