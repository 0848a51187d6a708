"""Heads of plain HTTP/1.1 requests, read in one go; the next request of a connection mostly has the same one, and is only compared.

A strict subset, in which no two readers can differ on where a message ends: POST of an origin-form path, HTTP/1.1, lines that end in CRLF,
each name once, values of visible ASCII, one Content-Length of plain digits, none of the headers that change what a connection does. The
whole request is there. All else is left to llhttp.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t
from libc.string cimport memcmp

cdef enum:
    _MAX_HEAD_BYTES = 2048
    MAX_FIELDS = 32
    MAX_LENGTH_DIGITS = 9

MAX_HEAD_BYTES = _MAX_HEAD_BYTES
_LEFT = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection", b"trailer", b"te", b"http2-settings"))


@cython.final
cdef class Head:
    """A head that was understood, and the length of the body behind it."""

    cdef bytes text                     # all of it, the empty line too
    cdef Py_ssize_t at_length, n_digits     # where Content-Length has its digits
    cdef readonly bytes target
    cdef readonly dict fields           # by lower-case name; shared by the requests that have this head: nobody changes it
    cdef readonly Py_ssize_t n_body
    cdef public object handler, args    # what `target` leads to: the reader's caller knows


cdef inline bint is_token(uint8_t c) noexcept nogil:
    return c'a' <= (c | 0x20) <= c'z' or c'0' <= c <= c'9' or c == c'-' or c == c'_'


cdef inline bint is_path(uint8_t c) noexcept nogil:
    return is_token(c) or c == c'/' or c == c'.' or c == c'~' or c == c'%'


cdef Py_ssize_t number_at(const uint8_t* p, const uint8_t* end, Py_ssize_t* n_digits) noexcept nogil:
    """A length of at least 1 without zeros in front; 0: none."""
    cdef Py_ssize_t number = 0
    cdef const uint8_t* start = p
    if p < end and p[0] == c'0':
        return 0
    while p < end and p - start < MAX_LENGTH_DIGITS and c'0' <= p[0] <= c'9':
        number = number * 10 + (p[0] - c'0')
        p += 1
    n_digits[0] = p - start
    return number


cdef Head follow(Head last, const uint8_t* p, const uint8_t* end):
    """The head at p when it is `last`, or that with another length; None: it is another."""
    cdef const uint8_t* known = <const uint8_t*><char*>last.text
    cdef Py_ssize_t n_rest = len(last.text) - last.at_length - last.n_digits
    cdef Py_ssize_t n_digits = 0, n_body
    cdef Head head
    if end - p < last.at_length or memcmp(p, known, last.at_length) != 0:
        return None
    n_body = number_at(p + last.at_length, end, &n_digits)
    if n_body == 0 or end - p - last.at_length - n_digits < n_rest:
        return None
    if memcmp(p + last.at_length + n_digits, known + last.at_length + last.n_digits, n_rest) != 0:
        return None
    if n_body == last.n_body:
        return last
    head = Head.__new__(Head)
    head.text = (<const char*>p)[:last.at_length + n_digits + n_rest]
    head.at_length, head.n_digits, head.n_body = last.at_length, n_digits, n_body
    head.target, head.handler, head.args = last.target, last.handler, last.args
    head.fields = last.fields.copy()
    head.fields[b"content-length"] = (<const char*>p + last.at_length)[:n_digits]
    return head


cdef Head read(const uint8_t* start, const uint8_t* end):
    """The head that begins at start, None: not plain, or not all there."""
    cdef const uint8_t* p = start + 5
    cdef const uint8_t* name
    cdef const uint8_t* value
    cdef Head head
    cdef bytes key
    if end - start > _MAX_HEAD_BYTES:
        end = start + _MAX_HEAD_BYTES
    if end - start < 16 or memcmp(start, b"POST /", 6) != 0:
        return None
    while p < end and is_path(p[0]):
        p += 1
    if end - p < 11 or memcmp(p, b" HTTP/1.1\r\n", 11) != 0:
        return None
    head = Head.__new__(Head)
    head.target = (<const char*>start)[5:p - start]
    head.fields = {}
    p += 11
    while True:
        if end - p < 2:
            return None
        if p[0] == c'\r' and p[1] == c'\n':
            break
        name = p
        while p < end and is_token(p[0]):
            p += 1
        if p == name or p == end or p[0] != c':' or len(head.fields) == MAX_FIELDS:
            return None
        key = (<const char*>name)[:p - name].lower()
        p += 1
        while p < end and p[0] == c' ':
            p += 1
        value = p
        while p < end and 0x20 <= p[0] < 0x7F:
            p += 1
        if p == value or (p - 1)[0] == c' ' or end - p < 2 or p[0] != c'\r' or p[1] != c'\n':
            return None
        if key in head.fields or key in _LEFT:
            return None
        head.fields[key] = (<const char*>value)[:p - value]
        if key == b"content-length":
            head.at_length = value - start
            head.n_body = number_at(value, p, &head.n_digits)
            if head.n_body == 0 or head.n_digits != p - value:
                return None
        elif key == b"connection" and (<bytes>head.fields[key]).lower() != b"keep-alive":
            return None
        elif key == b"host" and b"," in <bytes>head.fields[key]:
            return None
        p += 2
    if head.n_body == 0 or b"host" not in head.fields:
        return None
    head.text = (<const char*>start)[:p + 2 - start]
    return head


def read_request(data not None, Py_ssize_t at, Head last):
    """(head, body, where the next request begins) of the request at `at`, when all of it is there and plain; else None. `last` is the head
    before, maybe None: it comes back as the same object when nothing has changed."""
    cdef Py_buffer view
    cdef const uint8_t* start
    cdef const uint8_t* end
    cdef Head head = None
    cdef Py_ssize_t n_head
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        start, end = <const uint8_t*>view.buf + at, <const uint8_t*>view.buf + view.len
        if last is not None:
            head = follow(last, start, end)
        if head is None:
            head = read(start, end)
        if head is None:
            return None
        n_head = len(head.text)
        if end - start - n_head < head.n_body:
            return None
        return head, (<const char*>start)[n_head:n_head + head.n_body], at + n_head + head.n_body
    finally:
        PyBuffer_Release(&view)
