"""The codec's other direction: requests written, answers read; and who waits in between."""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from gateway.native.body cimport Body
from gateway.native.codec cimport GRPC_PREFIX_BYTES
from gateway.native.cursor cimport (
    WIRE_BYTES, Cursor, Span, cursor_over, read_bytes, read_tag, read_varint, varint_len, write_varint)
from gateway.native.parameters cimport read_parameter
from gateway.native.request cimport Caller, Request


@cython.final
cdef class Exchange(Caller):
    """Exchange(done): done(answer: Body | None, code: int, text: str) is called once, on the loop thread, unless cancel came first."""

    def __init__(self, done):
        self.done = done

    cdef int on_answer(self, Request request, Body answer) except -1:
        self.request = None
        done, self.done = self.done, None
        if done is not None:
            done(answer, 0, "")
        return 0

    cdef int on_failure(self, Request request, int code, str text) except -1:
        self.request = None
        done, self.done = self.done, None
        if done is not None:
            done(None, code, text)
        return 0

    cdef int on_moved(self, Request request) except -1:
        self.request = request
        return 0

    def cancel(self):
        """The caller is gone: the request leaves the queue, or its answer is dropped."""
        self.done = None
        if self.request is not None:
            request, self.request = self.request, None
            request.cancel()


cdef inline bytes encoded_field(int field, bytes value):
    cdef uint8_t head[16]
    cdef uint8_t* p = head
    p[0] = <uint8_t>(field << 3 | 2)
    p = write_varint(p + 1, len(value))
    return (<char*>head)[:p - head] + value


cdef bytes encoded_number_parameter(str name, uint64_t number):
    """An entry of ModelInferRequest.parameters with an int64 value."""
    cdef uint8_t value[16]
    cdef uint8_t* p = value
    p[0] = 2 << 3
    p = write_varint(p + 1, number)
    return encoded_field(4, encoded_field(1, name.encode()) + encoded_field(2, (<char*>value)[:p - value]))


cdef bytes encoded_parameter(str name, object value):
    """An entry of ModelInferRequest.parameters; the value is str, bool, int (64 bits) or float."""
    cdef uint8_t number[16]
    cdef uint8_t* p = number
    cdef double real
    if isinstance(value, str):
        inner = encoded_field(3, (<str>value).encode("utf-8", "replace"))
    elif isinstance(value, float):
        real = value
        p[0] = 4 << 3 | 1
        memcpy(p + 1, &real, 8)
        inner = (<char*>number)[:9]
    else:
        p[0] = (1 if isinstance(value, bool) else 2) << 3
        p = write_varint(p + 1, <uint64_t><int64_t>value)
        inner = (<char*>number)[:p - number]
    return encoded_field(4, encoded_field(1, name.encode("utf-8", "replace")) + encoded_field(2, inner))


cdef bytes encoded_input(str name, str datatype, shape):
    cdef uint8_t one[16]
    cdef bytes dims = b""
    cdef int64_t dim
    for dim in shape:
        dims += (<char*>one)[:write_varint(one, <uint64_t>dim) - one]
    tensor = encoded_field(1, name.encode()) + encoded_field(2, datatype.encode())
    return encoded_field(5, tensor + (encoded_field(3, dims) if dims else b""))


def encode_request(str model not None, str version not None, str id not None, list inputs not None, outputs, uint64_t priority=0,
                   uint64_t timeout_us=0, parameters=()):
    """A ModelInferRequest with raw contents. inputs: (name, datatype, shape, C-contiguous buffer); outputs: names, empty for all;
    parameters: (name, str, bool, int or float), for the route."""
    cdef list head = [encoded_field(1, model.encode())]
    cdef list lengths = []
    cdef size_t total = 0, n, head_len = 0
    cdef Py_buffer view
    cdef Body body
    cdef bytes piece
    cdef uint8_t* p
    cdef int i
    if version:
        head.append(encoded_field(2, version.encode()))
    if id:
        head.append(encoded_field(3, id.encode()))
    if priority:
        head.append(encoded_number_parameter("priority", priority))
    if timeout_us:
        head.append(encoded_number_parameter("timeout", timeout_us))
    for name, value in parameters:
        head.append(encoded_parameter(name, value))
    for name, datatype, shape, data in inputs:
        head.append(encoded_input(name, datatype, shape))
        n = memoryview(data).nbytes
        lengths.append(n)
        total += 1 + varint_len(n) + n
    for name in outputs:
        head.append(encoded_field(6, encoded_field(1, (<str?>name).encode())))
    for piece in head:
        head_len += len(piece)
    body = Body.sized(total + head_len)
    if lengths and body.is_placeable():
        n = lengths[0]
        body.place(head_len + 1 + varint_len(n))
    for piece in head:
        body.append(<const uint8_t*><char*>piece, len(piece))
    for i in range(len(lengths)):
        PyObject_GetBuffer(inputs[i][3], &view, PyBUF_SIMPLE)
        try:
            if <size_t>view.len != <size_t>lengths[i]:
                raise ValueError("an input changed its size")
            p = body.data + body.length
            p[0] = 7 << 3 | 2
            p = write_varint(p + 1, view.len)
            if view.len:
                memcpy(p, view.buf, view.len)
            body.length = p + view.len - body.data
        finally:
            PyBuffer_Release(&view)
    return body


cdef inline str text_of(Span span):
    return span.ptr[:span.len].decode() if span.len else ""


def decode_answer(Body body not None):
    """A framed ModelInferResponse of ours: (model_name, model_version, id, [(name, datatype, shape, memoryview)], parameters). ValueError
    when it is malformed."""
    cdef Span message, span, tensor_span
    cdef Cursor c, t, packed
    cdef uint32_t field
    cdef int wire_type
    cdef uint64_t dim
    cdef str model = "", version = "", id = ""
    cdef list tensors = [], raws = []
    cdef dict parameters = {}
    view = memoryview(body)
    message.ptr, message.len = body.data + GRPC_PREFIX_BYTES, body.length - GRPC_PREFIX_BYTES
    c = cursor_over(message)
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0 or wire_type != WIRE_BYTES or read_bytes(&c, &span) < 0:
            raise ValueError("malformed answer")
        if field == 1:
            model = text_of(span)
        elif field == 2:
            version = text_of(span)
        elif field == 3:
            id = text_of(span)
        elif field == 4:
            name, value = read_parameter(span)
            parameters[name] = value
        elif field == 5:
            name, datatype, shape = "", "", []
            t = cursor_over(span)
            while t.at < t.end:
                if read_tag(&t, &field, &wire_type) < 0 or wire_type != WIRE_BYTES or read_bytes(&t, &tensor_span) < 0:
                    raise ValueError("malformed answer")
                if field == 1:
                    name = text_of(tensor_span)
                elif field == 2:
                    datatype = text_of(tensor_span)
                elif field == 3:
                    packed = cursor_over(tensor_span)
                    while packed.at < packed.end:
                        if read_varint(&packed, &dim) < 0:
                            raise ValueError("malformed answer")
                        shape.append(<int64_t>dim)
            tensors.append((name, datatype, shape))
        elif field == 6:
            raws.append(view[span.ptr - body.data:span.ptr - body.data + span.len])
    return model, version, id, [(*tensor, raw) for tensor, raw in zip(tensors, raws, strict=True)], parameters
