"""The plain infer request in JSON, read once and written once.

What REST has to say about a request, gateway.serving.rest says; here stands only what needs no words. So there is one way to be refused and
one text for it, however a request is read. Not understood here on purpose: escapes, unknown and repeated keys, null, numbers as strings,
binary data, classification, half floats, and all that is wrong.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memchr, memcpy

from gateway.native.body cimport Body
from gateway.native.cursor cimport Cursor, Span, span_equals, span_is, varint_len, write_varint
from gateway.native.datatype cimport (
    DT_BF16, DT_BYTES, DT_FP16, DT_INVALID, GW_DATATYPES, N_DATATYPES, datatype_is, datatype_size)
from gateway.native.jsoncursor cimport skip_space, take, take_key, take_scalar, take_string, take_word
from gateway.native.jsondata cimport read_data
from gateway.native.signature cimport MAX_DIMS

cdef enum:
    MAX_ELEMENTS = 1 << 30              # of a shape: no text that is taken here has more
    LONG_BYTES = 65536                  # of text, from which on the GIL is let go


# --- the request: each returns whether it is understood ------------------------------------------------------------------------

cdef bint scan_request(Cursor* c, JsonRequest* request) noexcept nogil:
    cdef Span key
    cdef int seen = 0, bit
    request.id.ptr, request.id.len = NULL, 0
    request.priority = request.timeout_us = 0
    request.n_inputs = request.n_outputs = request.n_parameters = 0
    if not take(c, c'{'):
        return False
    while True:
        if not take_key(c, &key):
            return False
        if span_is(key, "inputs", 6):
            bit = 1
            if not scan_inputs(c, request):
                return False
        elif span_is(key, "id", 2):
            bit = 2
            if not take_string(c, &request.id):
                return False
        elif span_is(key, "outputs", 7):
            bit = 4
            if not scan_outputs(c, request):
                return False
        elif span_is(key, "parameters", 10):
            bit = 8
            if not scan_parameters(c, request):
                return False
        else:
            return False
        if seen & bit:
            return False
        seen |= bit
        if not take(c, c','):
            break
    if not take(c, c'}'):
        return False
    skip_space(c)
    return c.at == c.end and seen & 1


cdef bint scan_inputs(Cursor* c, JsonRequest* request) noexcept nogil:
    if not take(c, c'['):
        return False
    while True:
        if request.n_inputs == MAX_JSON_INPUTS or not scan_input(c, &request.inputs[request.n_inputs]):
            return False
        request.n_inputs += 1
        if not take(c, c','):
            return take(c, c']')


cdef bint scan_input(Cursor* c, JsonInput* tensor) noexcept nogil:
    cdef Span key, text
    cdef int seen = 0, bit
    if not take(c, c'{'):
        return False
    while True:
        if not take_key(c, &key):
            return False
        if span_is(key, "name", 4):
            bit = 1
            if not take_string(c, &tensor.name):
                return False
        elif span_is(key, "datatype", 8):
            bit = 2
            if not take_string(c, &text):
                return False
            tensor.datatype = datatype_of(text)
            if tensor.datatype in (DT_INVALID, DT_FP16, DT_BF16):
                return False
        elif span_is(key, "shape", 5):
            bit = 4
            if not scan_shape(c, tensor):
                return False
        elif span_is(key, "data", 4):
            bit = 8
            if not find_end_of_data(c, &tensor.data):
                return False
        else:
            return False
        if seen & bit:
            return False
        seen |= bit
        if not take(c, c','):
            return seen == 15 and take(c, c'}')


cdef inline int datatype_of(Span text) noexcept nogil:
    cdef int datatype
    for datatype in range(DT_INVALID + 1, <int>N_DATATYPES):
        if datatype_is(datatype, text):
            return datatype
    return DT_INVALID


cdef bint scan_shape(Cursor* c, JsonInput* tensor) noexcept nogil:
    cdef uint64_t size = 0
    cdef bint is_negative = False
    tensor.n_dims, tensor.n_elements = 0, 1
    if not take(c, c'['):
        return False
    if take(c, c']'):
        return True
    while True:
        if tensor.n_dims == MAX_DIMS or not take_scalar(c, &size, &is_negative) or is_negative or size > MAX_ELEMENTS:
            return False
        tensor.dims[tensor.n_dims] = <int64_t>size
        tensor.n_dims += 1
        tensor.n_elements *= size
        if tensor.n_elements > MAX_ELEMENTS:
            return False
        if not take(c, c','):
            return take(c, c']')


cdef bint find_end_of_data(Cursor* c, Span* data) noexcept nogil:
    """A guess, from one ] to the next: the reader of the data holds it to be right, or nothing of the request is used."""
    cdef const uint8_t* p
    cdef int depth = 0, n_closed = 0
    skip_space(c)
    data.ptr = c.at
    while take(c, c'['):
        depth += 1
    if depth == 0 or depth > MAX_DIMS:
        return False
    p = c.at
    if p < c.end and p[0] == c'"':
        return find_end_of_strings(c, data, depth)
    while n_closed < depth:
        p = <const uint8_t*>memchr(p, c']', c.end - p)
        if p == NULL:
            return False
        c.at = p
        n_closed = 0
        while n_closed < depth and take(c, c']'):
            n_closed += 1
        p = c.at
    data.len = c.at - data.ptr
    return True


cdef bint find_end_of_strings(Cursor* c, Span* data, int depth) noexcept nogil:
    cdef const uint8_t* p = c.at
    while depth:
        if p == c.end:
            return False
        if p[0] == c'"':
            p = <const uint8_t*>memchr(p + 1, c'"', c.end - p - 1)
            if p == NULL:
                return False
        elif p[0] == c']':
            depth -= 1
        elif p[0] == c'[':
            depth += 1
        p += 1
    c.at = p
    data.len = p - data.ptr
    return True


cdef bint scan_outputs(Cursor* c, JsonRequest* request) noexcept nogil:
    cdef Span key, name
    cdef int i
    if not take(c, c'['):
        return False
    if take(c, c']'):
        return True
    while True:
        if request.n_outputs == MAX_JSON_OUTPUTS or not take(c, c'{') or not take_key(c, &key):
            return False
        if not span_is(key, "name", 4) or not take_string(c, &name):
            return False
        if take(c, c',') and not (take_key(c, &key) and span_is(key, "parameters", 10) and scan_output_parameters(c)):
            return False
        for i in range(request.n_outputs):
            if span_equals(request.outputs[i], name):
                return False
        request.outputs[request.n_outputs] = name
        request.n_outputs += 1
        if not take(c, c'}'):
            return False
        if not take(c, c','):
            return take(c, c']')


cdef bint scan_output_parameters(Cursor* c) noexcept nogil:
    """Nothing, or that it is to be JSON: tritonclient says so for each output."""
    cdef Span key
    if not take(c, c'{'):
        return False
    if take(c, c'}'):
        return True
    return take_key(c, &key) and span_is(key, "binary_data", 11) and take_word(c, "false", 5) and take(c, c'}')


cdef bint scan_parameters(Cursor* c, JsonRequest* request) noexcept nogil:
    cdef Span key
    cdef Span seen[MAX_JSON_PARAMETERS]
    cdef int n_seen = 0, i
    if not take(c, c'{'):
        return False
    if take(c, c'}'):
        return True
    while True:
        if n_seen == MAX_JSON_PARAMETERS or not take_key(c, &key):
            return False
        for i in range(n_seen):
            if span_equals(seen[i], key):
                return False
        seen[n_seen] = key
        n_seen += 1
        if span_is(key, "binary_data_output", 18):
            if not take_word(c, "false", 5):
                return False
        elif span_is(key, "priority", 8):
            if not take_count(c, &request.priority):
                return False
        elif span_is(key, "timeout", 7):
            if not take_count(c, &request.timeout_us):
                return False
        elif not take_parameter(c, key, request):
            return False
        if not take(c, c','):
            return take(c, c'}')


cdef inline bint take_count(Cursor* c, uint64_t* number) noexcept nogil:
    cdef bint is_negative = False
    return take_scalar(c, number, &is_negative) and not is_negative


cdef bint take_parameter(Cursor* c, Span name, JsonRequest* request) noexcept nogil:
    cdef JsonParameter* parameter = &request.parameters[request.n_parameters]
    cdef bint is_negative = False
    parameter.name = name
    parameter.number = 0
    skip_space(c)
    if c.at == c.end:
        return False
    if c.at[0] == c'"':
        parameter.choice = 3
        if not take_string(c, &parameter.text):
            return False
    elif c.at[0] == c't' or c.at[0] == c'f':
        parameter.choice = 1
        parameter.number = c.at[0] == c't'
        if not (take_word(c, "true", 4) if parameter.number else take_word(c, "false", 5)):
            return False
    else:
        parameter.choice = 2
        if not take_scalar(c, &parameter.number, &is_negative):
            return False
        if is_negative:
            parameter.number = 0 - parameter.number
    request.n_parameters += 1
    return True


# --- the message ---------------------------------------------------------------------------------------------------------------

cdef inline size_t field_len(size_t n) noexcept nogil:
    return 1 + varint_len(n) + n


cdef inline uint8_t* put_head(uint8_t* p, int field, size_t n) noexcept nogil:
    p[0] = <uint8_t>(field << 3 | 2)
    return write_varint(p + 1, n)


cdef inline uint8_t* put_field(uint8_t* p, int field, Span span) noexcept nogil:
    p = put_head(p, field, span.len)
    memcpy(p, span.ptr, span.len)
    return p + span.len


cdef inline size_t choice_len(JsonParameter* parameter) noexcept nogil:
    return field_len(parameter.text.len) if parameter.choice == 3 else 1 + varint_len(parameter.number)


cdef inline size_t parameter_len(JsonParameter* parameter) noexcept nogil:
    return field_len(field_len(parameter.name.len) + field_len(choice_len(parameter)))


cdef uint8_t* put_parameter(uint8_t* p, JsonParameter* parameter) noexcept nogil:
    """An entry of ModelInferRequest.parameters."""
    cdef size_t n = choice_len(parameter)
    p = put_head(p, 4, field_len(parameter.name.len) + field_len(n))
    p = put_head(put_field(p, 1, parameter.name), 2, n)
    if parameter.choice == 3:
        return put_field(p, 3, parameter.text)
    p[0] = <uint8_t>(parameter.choice << 3)
    return write_varint(p + 1, parameter.number)


cdef inline JsonParameter number_parameter(const char* name, size_t n, uint64_t number) noexcept nogil:
    cdef JsonParameter parameter
    parameter.name.ptr, parameter.name.len = <const uint8_t*>name, n
    parameter.choice, parameter.number = 2, number
    parameter.text.ptr, parameter.text.len = NULL, 0
    return parameter


cdef inline size_t dims_len(JsonInput* tensor) noexcept nogil:
    cdef size_t n = 0
    cdef int axis
    for axis in range(tensor.n_dims):
        n += varint_len(<uint64_t>tensor.dims[axis])
    return n


cdef inline size_t tensor_len(JsonInput* tensor) noexcept nogil:
    cdef size_t n = dims_len(tensor)
    return field_len(tensor.name.len) + field_len(datatype_name(tensor).len) + (field_len(n) if n else 0)


cdef inline Span datatype_name(JsonInput* tensor) noexcept nogil:
    cdef Span name
    name.ptr = <const uint8_t*>GW_DATATYPES[tensor.datatype].name
    name.len = GW_DATATYPES[tensor.datatype].name_len
    return name


cdef uint8_t* put_tensor(uint8_t* p, JsonInput* tensor) noexcept nogil:
    cdef size_t n = dims_len(tensor)
    cdef int axis
    p = put_head(p, 5, tensor_len(tensor))
    p = put_field(put_field(p, 1, tensor.name), 2, datatype_name(tensor))
    if n:
        p = put_head(p, 3, n)
        for axis in range(tensor.n_dims):
            p = write_varint(p, <uint64_t>tensor.dims[axis])
    return p


cdef bint measure(JsonRequest* request, size_t* total) noexcept nogil:
    """Adds to `total` what the message takes besides the model's name and version."""
    cdef JsonInput* tensor
    cdef JsonParameter own
    cdef int i
    if request.id.len:
        total[0] += field_len(request.id.len)
    if request.priority:
        own = number_parameter("priority", 8, request.priority)
        total[0] += parameter_len(&own)
    if request.timeout_us:
        own = number_parameter("timeout", 7, request.timeout_us)
        total[0] += parameter_len(&own)
    for i in range(request.n_parameters):
        total[0] += parameter_len(&request.parameters[i])
    for i in range(request.n_outputs):
        total[0] += field_len(field_len(request.outputs[i].len))
    for i in range(request.n_inputs):
        tensor = &request.inputs[i]
        if tensor.n_elements > tensor.data.len // 2:          # each takes a character, and one to part it from the next
            return False
        tensor.nbytes = tensor.n_elements * datatype_size(tensor.datatype)
        if tensor.datatype == DT_BYTES and not read_data(tensor, NULL):
            return False
        total[0] += field_len(tensor_len(tensor)) + field_len(tensor.nbytes)
    return True


cdef bint fill(JsonRequest* request, Span model, Span version, Body body) noexcept nogil:
    cdef uint8_t* p = body.data
    cdef JsonParameter own
    cdef int i
    p = put_field(p, 1, model)
    if version.len:
        p = put_field(p, 2, version)
    if request.id.len:
        p = put_field(p, 3, request.id)
    if request.priority:
        own = number_parameter("priority", 8, request.priority)
        p = put_parameter(p, &own)
    if request.timeout_us:
        own = number_parameter("timeout", 7, request.timeout_us)
        p = put_parameter(p, &own)
    for i in range(request.n_parameters):
        p = put_parameter(p, &request.parameters[i])
    for i in range(request.n_inputs):
        p = put_tensor(p, &request.inputs[i])
    for i in range(request.n_outputs):
        p = put_field(put_head(p, 6, field_len(request.outputs[i].len)), 1, request.outputs[i])
    for i in range(request.n_inputs):
        p = put_head(p, 7, request.inputs[i].nbytes)
        if not read_data(&request.inputs[i], p):
            return False
        p += request.inputs[i].nbytes
    assert p == body.data + body.length
    return True


cdef inline Span utf8_of(str text) except *:
    """Of the object's own memory."""
    cdef Span span
    cdef Py_ssize_t n
    span.ptr = <const uint8_t*>PyUnicode_AsUTF8AndSize(text, &n)
    span.len = n
    return span


cdef Body message_of(Span text, Span model, Span version, JsonRequest* request):
    """None: not understood."""
    cdef Cursor c
    cdef size_t total = field_len(model.len) + (field_len(version.len) if version.len else 0)
    cdef bint is_long = text.len >= LONG_BYTES, is_mine
    cdef Body body
    c.at, c.end = text.ptr, text.ptr + text.len
    if is_long:
        with nogil:
            is_mine = scan_request(&c, request) and measure(request, &total)
    else:
        is_mine = scan_request(&c, request) and measure(request, &total)
    if not is_mine:
        return None
    body = Body.sized(total)
    body.length = total
    if is_long:
        with nogil:
            is_mine = fill(request, model, version, body)
    else:
        is_mine = fill(request, model, version, body)
    return body if is_mine else None


def request_from_json(text not None, str model not None, str version not None):
    """(ModelInferRequest, id) of a JSON request with nothing special about it, whose answer is to be JSON; None: not understood."""
    cdef JsonRequest request
    cdef Py_buffer view
    cdef Span span
    cdef Body body
    PyObject_GetBuffer(text, &view, PyBUF_SIMPLE)
    try:
        span.ptr, span.len = <const uint8_t*>view.buf, view.len
        body = message_of(span, utf8_of(model), utf8_of(version), &request)
        if body is None:
            return None
        return body, request.id.ptr[:request.id.len].decode() if request.id.len else ""
    finally:
        PyBuffer_Release(&view)
