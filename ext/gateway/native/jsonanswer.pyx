"""A ModelInferResponse as the JSON that REST answers with: the text that orjson makes of it, without the objects in between.

What is out of the ordinary is left to Python: parameters, half floats, NaN and the infinities, names and strings that need escapes.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport isfinite
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from gateway.native.body cimport Body
from gateway.native.codec cimport GRPC_PREFIX_BYTES
from gateway.native.cursor cimport WIRE_BYTES, Cursor, Span, cursor_over, is_utf8, read_bytes, read_tag, read_varint
from gateway.native.datatype cimport (
    DT_BF16, DT_BOOL, DT_BYTES, DT_FP16, DT_FP32, DT_FP64, DT_INT8, DT_INT16, DT_INT32, DT_INT64, DT_INVALID, GW_DATATYPES,
    N_DATATYPES, datatype_is, datatype_size)
from gateway.native.decimal cimport MAX_NUMBER_CHARS, write_double, write_float, write_whole

cdef enum:
    MAX_ANSWERED = 64                   # outputs, on the stack; above, Python writes the answer
    SMALL_CHARS = 4096                  # of text that is made on the stack
    LONG_CHARS = 65536                  # of text, from which on the GIL is let go
    FRAME_CHARS = 128                   # keys and punctuation of the answer, or of one output, and to spare


cdef struct Output:
    Span name, shape, raw               # shape: packed varints
    int datatype


cdef struct Answer:
    Span model, version, id
    int n_outputs, n_raws
    Output outputs[MAX_ANSWERED]


# --- reading: whether it is plain ----------------------------------------------------------------------------------------------

cdef bint is_plain(Span text) noexcept nogil:
    """Whether it stands in JSON as it is."""
    cdef size_t i
    cdef uint8_t seen = 0
    for i in range(text.len):
        if text.ptr[i] < 0x20 or text.ptr[i] == c'"' or text.ptr[i] == c'\\':
            return False
        seen |= text.ptr[i]
    return seen < 0x80 or is_utf8(text)


cdef bint read_answer(Span message, Answer* answer) noexcept nogil:
    cdef Cursor c = cursor_over(message)
    cdef uint32_t field
    cdef int wire_type
    cdef Span span
    answer.model.len = answer.version.len = answer.id.len = 0
    answer.n_outputs = answer.n_raws = 0
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0 or wire_type != WIRE_BYTES or read_bytes(&c, &span) < 0:
            return False
        if field == 1:
            answer.model = span
        elif field == 2:
            answer.version = span
        elif field == 3:
            answer.id = span
        elif field == 5:
            if answer.n_outputs == MAX_ANSWERED or not read_output(span, &answer.outputs[answer.n_outputs]):
                return False
            answer.n_outputs += 1
        elif field == 6:
            if answer.n_raws == MAX_ANSWERED:
                return False
            answer.outputs[answer.n_raws].raw = span
            answer.n_raws += 1
        else:
            return False
    return answer.n_outputs == answer.n_raws and is_plain(answer.model) and is_plain(answer.version) and is_plain(answer.id)


cdef bint read_output(Span tensor, Output* output) noexcept nogil:
    cdef Cursor c = cursor_over(tensor)
    cdef uint32_t field
    cdef int wire_type
    cdef Span span
    output.name.len = output.shape.len = 0
    output.shape.ptr = NULL
    output.datatype = DT_INVALID
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0 or wire_type != WIRE_BYTES or read_bytes(&c, &span) < 0:
            return False
        if field == 1:
            output.name = span
        elif field == 2:
            for output.datatype in range(DT_INVALID + 1, <int>N_DATATYPES):
                if datatype_is(output.datatype, span):
                    break
            else:
                return False
        elif field == 3 and output.shape.len == 0:
            output.shape = span
        else:
            return False
    return output.datatype not in (DT_INVALID, DT_FP16, DT_BF16) and is_plain(output.name)


cdef size_t most_chars(Answer* answer) noexcept nogil:
    """That its text can take; 0: a tensor is no whole number of elements."""
    cdef size_t n = FRAME_CHARS + answer.model.len + answer.version.len + answer.id.len
    cdef Output* output
    cdef int i, size
    for i in range(answer.n_outputs):
        output = &answer.outputs[i]
        n += FRAME_CHARS + output.name.len + output.shape.len * (MAX_NUMBER_CHARS + 1)
        if output.datatype == DT_BYTES:
            n += output.raw.len                               # a length takes 4 bytes there, quotes and comma 3 characters here
        else:
            size = datatype_size(output.datatype)
            if output.raw.len % size:
                return 0
            n += output.raw.len // size * (6 if output.datatype == DT_BOOL else MAX_NUMBER_CHARS + 1)
    return n


# --- writing: each returns what stands behind; NULL: not plain after all -------------------------------------------------------

cdef inline uint8_t* put(uint8_t* p, const char* text, size_t n) noexcept nogil:
    memcpy(p, text, n)
    return p + n


cdef inline uint8_t* put_text(uint8_t* p, Span text) noexcept nogil:
    """Quoted."""
    p[0] = c'"'
    memcpy(p + 1, text.ptr, text.len)
    p[1 + text.len] = c'"'
    return p + 2 + text.len


cdef uint8_t* write_answer(uint8_t* p, Answer* answer) noexcept nogil:
    cdef int i
    p = put_text(put(p, '{"model_name":', 14), answer.model)
    p = put_text(put(p, ',"model_version":', 17), answer.version)
    if answer.id.len:
        p = put_text(put(p, ',"id":', 6), answer.id)
    p = put(p, ',"outputs":[', 12)
    for i in range(answer.n_outputs):
        if i:
            p = put(p, ',', 1)
        p = write_output(p, &answer.outputs[i])
        if p == NULL:
            return NULL
    return put(p, ']}', 2)


cdef uint8_t* write_output(uint8_t* p, Output* output) noexcept nogil:
    cdef Cursor shape = cursor_over(output.shape)
    cdef Span datatype
    cdef uint64_t size
    datatype.ptr = <const uint8_t*>GW_DATATYPES[output.datatype].name
    datatype.len = GW_DATATYPES[output.datatype].name_len
    p = put_text(put(p, '{"name":', 8), output.name)
    p = put_text(put(p, ',"datatype":', 12), datatype)
    p = put(p, ',"shape":[', 10)
    while shape.at < shape.end:
        if shape.at > output.shape.ptr:
            p = put(p, ',', 1)
        if read_varint(&shape, &size) < 0 or size >> 63:
            return NULL
        p = write_whole(p, size, False)
    p = put(p, '],"data":[', 10)
    p = write_strings(p, output.raw) if output.datatype == DT_BYTES else write_numbers(p, output.datatype, output.raw)
    return put(p, ']}', 2) if p != NULL else NULL


cdef uint8_t* write_strings(uint8_t* p, Span raw) noexcept nogil:
    cdef Cursor c = cursor_over(raw)
    cdef Span text
    cdef uint32_t n
    while c.at < c.end:
        if c.end - c.at < 4:
            return NULL
        if c.at > raw.ptr:
            p = put(p, ',', 1)
        memcpy(&n, c.at, 4)
        text.ptr, text.len = c.at + 4, n
        if <size_t>(c.end - text.ptr) < n or not is_plain(text):
            return NULL
        p = put_text(p, text)
        c.at = text.ptr + n
    return p


cdef uint8_t* write_numbers(uint8_t* p, int datatype, Span raw) noexcept nogil:
    cdef int size = datatype_size(datatype)
    cdef size_t i
    cdef float narrow
    cdef double wide
    if datatype == DT_FP32:
        for i in range(raw.len // 4):
            memcpy(&narrow, raw.ptr + 4 * i, 4)
            if not isfinite(narrow):
                return NULL
            p = write_float(p, narrow)
            p[0] = c','
            p += 1
    elif datatype == DT_FP64:
        for i in range(raw.len // 8):
            memcpy(&wide, raw.ptr + 8 * i, 8)
            if not isfinite(wide):
                return NULL
            p = write_double(p, wide)
            p[0] = c','
            p += 1
    elif datatype == DT_BOOL:
        for i in range(raw.len):
            p = put(p, 'true,', 5) if raw.ptr[i] else put(p, 'false,', 6)
    else:
        for i in range(raw.len // size):
            p = write_integer(p, datatype, raw.ptr + size * i)
            p[0] = c','
            p += 1
    return p - 1 if raw.len else p                            # over the last comma


cdef inline uint8_t* write_integer(uint8_t* p, int datatype, const uint8_t* at) noexcept nogil:
    cdef int64_t number
    cdef uint64_t magnitude = 0
    if not DT_INT8 <= datatype <= DT_INT64:
        memcpy(&magnitude, at, datatype_size(datatype))       # little-endian, as this code is compiled for
        return write_whole(p, magnitude, False)
    if datatype == DT_INT8:
        number = (<const int8_t*>at)[0]
    elif datatype == DT_INT16:
        memcpy(&magnitude, at, 2)
        number = <int16_t>magnitude
    elif datatype == DT_INT32:
        memcpy(&magnitude, at, 4)
        number = <int32_t>magnitude
    else:
        memcpy(&number, at, 8)
    magnitude = <uint64_t>number
    return write_whole(p, 0 - magnitude if number < 0 else magnitude, number < 0)


def json_of_answer(Body answer not None):
    """The text of a framed ModelInferResponse of ours; None when it is not plain."""
    cdef Answer found
    cdef Span message
    cdef size_t n
    cdef uint8_t small[SMALL_CHARS]
    cdef uint8_t* text = small
    cdef uint8_t* end
    message.ptr, message.len = answer.data + GRPC_PREFIX_BYTES, answer.length - GRPC_PREFIX_BYTES
    if not read_answer(message, &found):
        return None
    n = most_chars(&found)
    if n == 0:
        return None
    if n > SMALL_CHARS:
        text = <uint8_t*>malloc(n)
        if text == NULL:
            raise MemoryError(f"no memory for an answer of {n} characters")
    try:
        if n >= LONG_CHARS:
            with nogil:
                end = write_answer(text, &found)
        else:
            end = write_answer(text, &found)
        return PyBytes_FromStringAndSize(<char*>text, end - text) if end != NULL else None
    finally:
        if text != small:
            free(text)
