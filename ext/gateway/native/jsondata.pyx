"""Numbers, booleans and strings of a tensor in JSON, each read once, strictly, where the message wants it."""
from libc.math cimport isinf
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from gateway.native.cursor cimport Cursor, Span
from gateway.native.datatype cimport DT_BOOL, DT_BYTES, DT_FP32, DT_FP64, DT_INT8, DT_INT64, datatype_size
from gateway.native.decimal cimport read_double, read_whole
from gateway.native.jsoncursor cimport skip_space, take, take_string, take_word


cdef bint read_row(Cursor* c, JsonInput* tensor, size_t n, uint8_t** out) noexcept nogil:
    """`[`, n elements, `]`. For BYTES `out` may point to NULL: then it counts, in tensor.nbytes, and writes nothing."""
    cdef size_t i
    if not take(c, c'['):
        return False
    if n:
        if tensor.datatype == DT_FP32:
            if not read_floats(c, n, out):
                return False
        elif tensor.datatype == DT_FP64:
            if not read_doubles(c, n, out):
                return False
        else:
            for i in range(n):
                if i and not take(c, c','):
                    return False
                if tensor.datatype == DT_BYTES:
                    if not read_text(c, tensor, out):
                        return False
                elif tensor.datatype == DT_BOOL:
                    skip_space(c)
                    if c.at == c.end:
                        return False
                    out[0][0] = c.at[0] == c't'
                    if not (take_word(c, "true", 4) if out[0][0] else take_word(c, "false", 5)):
                        return False
                    out[0] += 1
                elif not read_integer(c, tensor.datatype, out):
                    return False
    return take(c, c']')


cdef inline bint read_floats(Cursor* c, size_t n, uint8_t** out) noexcept nogil:
    cdef const uint8_t* p
    cdef double value = 0
    cdef float narrow
    cdef size_t i
    for i in range(n):
        if i and not take(c, c','):
            return False
        skip_space(c)
        p = read_double(c.at, c.end, &value)
        narrow = <float>value                                 # of what is no float at all: an infinity
        if p == NULL or isinf(narrow):
            return False
        memcpy(out[0], &narrow, 4)
        out[0] += 4
        c.at = p
    return True


cdef inline bint read_doubles(Cursor* c, size_t n, uint8_t** out) noexcept nogil:
    cdef const uint8_t* p
    cdef double value = 0
    cdef size_t i
    for i in range(n):
        if i and not take(c, c','):
            return False
        skip_space(c)
        p = read_double(c.at, c.end, &value)
        if p == NULL:
            return False
        memcpy(out[0], &value, 8)
        out[0] += 8
        c.at = p
    return True


cdef inline bint read_integer(Cursor* c, int datatype, uint8_t** out) noexcept nogil:
    cdef int size = datatype_size(datatype)
    cdef uint64_t number = 0
    cdef bint is_negative = False, is_signed = DT_INT8 <= datatype <= DT_INT64
    cdef const uint8_t* p
    skip_space(c)
    p = read_whole(c.at, c.end, &number, &is_negative)        # a fraction or an exponent is no `,` and no `]`
    if p == NULL:
        return False
    if is_signed:
        if number > (<uint64_t>1 << (8 * size - 1)) - 1 + is_negative:
            return False
    elif is_negative or (size < 8 and number >> (8 * size)):
        return False
    if is_negative:
        number = 0 - number
    memcpy(out[0], &number, size)                             # little-endian, as this code is compiled for
    out[0] += size
    c.at = p
    return True


cdef inline bint read_text(Cursor* c, JsonInput* tensor, uint8_t** out) noexcept nogil:
    cdef Span text
    cdef uint32_t n
    if not take_string(c, &text) or text.len > 0x7FFFFFFF:
        return False
    n = <uint32_t>text.len
    if out[0] == NULL:
        tensor.nbytes += 4 + text.len
        return True
    memcpy(out[0], &n, 4)
    memcpy(out[0] + 4, text.ptr, text.len)
    out[0] += 4 + text.len
    return True


cdef bint read_data(JsonInput* tensor, uint8_t* out) noexcept nogil:
    """All of tensor.data, flat or nested as the shape says, to `out`: tensor.nbytes of it, which the caller has room for."""
    cdef Cursor c, ahead
    cdef int64_t done[MAX_DIMS]
    cdef int axis, depth = 0
    c.at, c.end = tensor.data.ptr, tensor.data.ptr + tensor.data.len
    ahead = c
    while take(&ahead, c'['):
        depth += 1
    if depth == 1:
        return read_row(&c, tensor, tensor.n_elements, &out) and c.at == c.end
    if depth != tensor.n_dims:
        return False
    for axis in range(depth - 1):
        done[axis] = 0
        if tensor.dims[axis] == 0 or not take(&c, c'['):
            return False
    while True:
        if not read_row(&c, tensor, <size_t>tensor.dims[depth - 1], &out):
            return False
        axis = depth - 2
        done[axis] += 1
        while done[axis] == tensor.dims[axis]:                # close what is complete
            if not take(&c, c']'):
                return False
            if axis == 0:
                return c.at == c.end
            axis -= 1
            done[axis] += 1
        if not take(&c, c','):
            return False
        while axis < depth - 2:
            axis += 1
            done[axis] = 0
            if not take(&c, c'['):
                return False
