"""Protobuf for the two messages that matter, with the caller's bytes left where they are.

Held to protobuf's own behaviour: last value wins for singular fields, repeated scalars packed or not, singular messages that come in
several pieces merge, unknown fields and wrong wire types are skipped, strings are UTF-8.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from gateway.native.body cimport Body
from gateway.native.cursor cimport (
    WIRE_BYTES, WIRE_FIXED32, WIRE_FIXED64, WIRE_VARINT, Cursor, Span, cursor_over, is_utf8, read_bytes, read_tag, read_varint,
    skip_field, span_is, varint_len, write_varint)
from gateway.native.datatype cimport DT_BOOL, DT_BYTES, GW_DATATYPES, datatype_size
from gateway.native.refusal cimport INVALID_ARGUMENT

from gateway.native.refusal import Refusal


# --- reading: ModelInferRequest ------------------------------------------------------------------------------------------------

cdef int parse_request(Span body, Wire* wire) noexcept nogil:
    cdef Cursor c = cursor_over(body)
    cdef int status
    memset(&wire.model, 0, 3 * sizeof(Span))                  # model, version, id
    wire.n_inputs = wire.n_raws = wire.n_outputs = 0
    wire.priority = wire.timeout_us = 0
    wire.error_in = "ModelInferRequest"
    status = parse_fields(&c, wire)
    wire.error_at = c.at - body.ptr
    return status


cdef size_t raw_offset(Span head) noexcept nogil:
    """Where the first tensor of raw_input_contents begins in a message of which these are the first bytes."""
    cdef Cursor c = cursor_over(head)
    cdef uint32_t field
    cdef int wire_type
    cdef uint64_t n
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0:
            return 0
        if field == 7 and wire_type == WIRE_BYTES:
            return 0 if read_varint(&c, &n) < 0 else c.at - head.ptr
        if skip_field(&c, field, wire_type) < 0:
            return 0
    return 0


cdef int parse_fields(Cursor* c, Wire* wire) noexcept nogil:
    cdef uint32_t field
    cdef int wire_type, status
    cdef Span span
    while c.at < c.end:
        if read_tag(c, &field, &wire_type) < 0:
            return PARSE_MALFORMED
        if wire_type != WIRE_BYTES or field > 7 or field < 1:
            if skip_field(c, field, wire_type) < 0:
                return PARSE_MALFORMED
            continue
        if read_bytes(c, &span) < 0:
            return PARSE_MALFORMED
        status = PARSE_OK
        if field == 1:
            wire.model = span
            status = check_utf8(span, "ModelInferRequest.model_name", wire)
        elif field == 2:
            wire.version = span
            status = check_utf8(span, "ModelInferRequest.model_version", wire)
        elif field == 3:
            wire.id = span
            status = check_utf8(span, "ModelInferRequest.id", wire)
        elif field == 4:
            status = parse_parameter(span, wire, NULL)
        elif field == 5:
            status = parse_input(span, wire)
        elif field == 6:
            status = parse_requested_output(span, wire)
        elif field == 7:
            if wire.n_raws == wire.room_raws:
                status = grow(<void**>&wire.raws, &wire.room_raws, sizeof(Span))
            if status == PARSE_OK:
                wire.raws[wire.n_raws] = span
                wire.n_raws += 1
            elif status == PARSE_TOO_MANY:
                wire.error_in = "ModelInferRequest.raw_input_contents"
        if status != PARSE_OK:
            c.at = span.ptr
            return status
    return PARSE_OK


cdef int parse_input(Span message, Wire* wire) noexcept nogil:
    cdef Cursor c = cursor_over(message)
    cdef WireInput* tensor
    cdef uint32_t field
    cdef int wire_type
    cdef uint64_t dim
    cdef Span span
    cdef Cursor packed
    if wire.n_inputs == wire.room_inputs:
        wire_type = grow(<void**>&wire.inputs, &wire.room_inputs, sizeof(WireInput))
        if wire_type != PARSE_OK:
            wire.error_in = "ModelInferRequest.inputs"
            return wire_type
    tensor = &wire.inputs[wire.n_inputs]
    memset(tensor, 0, sizeof(WireInput))
    tensor.message = message
    wire.error_in = "InferInputTensor"
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0:
            return PARSE_MALFORMED
        if field == 3 and wire_type == WIRE_VARINT:
            if read_varint(&c, &dim) < 0:
                return PARSE_MALFORMED
            if tensor.n_dims == MAX_DIMS:
                return PARSE_RANK
            tensor.dims[tensor.n_dims] = <int64_t>dim
            tensor.n_dims += 1
            continue
        if wire_type != WIRE_BYTES or field > 5 or field < 1:
            if skip_field(&c, field, wire_type) < 0:
                return PARSE_MALFORMED
            continue
        if read_bytes(&c, &span) < 0:
            return PARSE_MALFORMED
        if field == 1:
            tensor.name = span
            if not is_utf8(span):
                return PARSE_MALFORMED
        elif field == 2:
            tensor.datatype = span
            if not is_utf8(span):
                return PARSE_MALFORMED
        elif field == 3:
            packed = cursor_over(span)
            while packed.at < packed.end:
                if read_varint(&packed, &dim) < 0:
                    return PARSE_MALFORMED
                if tensor.n_dims == MAX_DIMS:
                    return PARSE_RANK
                tensor.dims[tensor.n_dims] = <int64_t>dim
                tensor.n_dims += 1
        elif field == 4:
            if parse_parameter(span, wire, tensor) != PARSE_OK:
                return PARSE_MALFORMED
        else:
            tensor.has_contents = True
            if check_contents(span) != PARSE_OK:
                wire.error_in = "InferTensorContents"
                return PARSE_MALFORMED
    wire.n_inputs += 1
    wire.error_in = "ModelInferRequest"
    return PARSE_OK


cdef int check_contents(Span contents) noexcept nogil:
    """Whether it is well formed as protobuf; what it holds is read later, when the datatype is known."""
    cdef Cursor c = cursor_over(contents)
    cdef Cursor packed
    cdef uint32_t field
    cdef int wire_type
    cdef uint64_t ignored
    cdef Span span
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0:
            return PARSE_MALFORMED
        if wire_type != WIRE_BYTES:
            if skip_field(&c, field, wire_type) < 0:
                return PARSE_MALFORMED
            continue
        if read_bytes(&c, &span) < 0:
            return PARSE_MALFORMED
        if 1 <= field <= 5:
            packed = cursor_over(span)
            while packed.at < packed.end:
                if read_varint(&packed, &ignored) < 0:
                    return PARSE_MALFORMED
        elif field == 6 and span.len % 4 or field == 7 and span.len % 8:
            return PARSE_MALFORMED
    return PARSE_OK


cdef int parse_requested_output(Span message, Wire* wire) noexcept nogil:
    cdef Cursor c = cursor_over(message)
    cdef WireInput nobody                                     # parameters of an output are checked and mean nothing
    cdef uint32_t field
    cdef int wire_type
    cdef Span span
    if wire.n_outputs == wire.room_outputs:
        wire_type = grow(<void**>&wire.outputs, &wire.room_outputs, sizeof(Span))
        if wire_type != PARSE_OK:
            wire.error_in = "ModelInferRequest.outputs"
            return wire_type
    wire.error_in = "InferRequestedOutputTensor"
    wire.outputs[wire.n_outputs].ptr = NULL
    wire.outputs[wire.n_outputs].len = 0
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0:
            return PARSE_MALFORMED
        if wire_type != WIRE_BYTES:
            if skip_field(&c, field, wire_type) < 0:
                return PARSE_MALFORMED
            continue
        if read_bytes(&c, &span) < 0:
            return PARSE_MALFORMED
        if field == 1:
            wire.outputs[wire.n_outputs] = span
            if not is_utf8(span):
                return PARSE_MALFORMED
        elif field == 2 and parse_parameter(span, wire, &nobody) != PARSE_OK:
            return PARSE_MALFORMED
    wire.n_outputs += 1
    wire.error_in = "ModelInferRequest"
    return PARSE_OK


cdef int parse_parameter(Span entry, Wire* wire, WireInput* tensor) noexcept nogil:
    """One map<string, InferParameter> entry. `priority` and `timeout` count on the request, `shared_memory_region` on an input."""
    cdef Cursor c = cursor_over(entry)
    cdef Cursor inner
    cdef uint32_t field
    cdef int wire_type
    cdef uint64_t number = 0
    cdef Span key, value, span
    memset(&key, 0, sizeof(Span))
    memset(&value, 0, sizeof(Span))
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0:
            return PARSE_MALFORMED
        if wire_type != WIRE_BYTES or field > 2 or field < 1:
            if skip_field(&c, field, wire_type) < 0:
                return PARSE_MALFORMED
            continue
        if read_bytes(&c, &span) < 0:
            return PARSE_MALFORMED
        if field == 1:
            key = span
            if not is_utf8(key):
                return PARSE_MALFORMED
            continue
        value = span
        inner = cursor_over(value)
        while inner.at < inner.end:
            if read_tag(&inner, &field, &wire_type) < 0:
                return PARSE_MALFORMED
            if wire_type == WIRE_VARINT and (field == 2 or field == 5):
                if read_varint(&inner, &number) < 0:
                    return PARSE_MALFORMED
            elif wire_type == WIRE_BYTES and field == 3:
                if read_bytes(&inner, &span) < 0 or not is_utf8(span):
                    return PARSE_MALFORMED
                number = 0
            elif skip_field(&inner, field, wire_type) < 0:
                return PARSE_MALFORMED
            elif (wire_type == WIRE_VARINT and field == 1) or (wire_type == WIRE_FIXED64 and field == 4):
                number = 0                                    # another member of the oneof came later
    if tensor != NULL:
        if span_is(key, "shared_memory_region", 20):
            tensor.in_shared_memory = True
    elif span_is(key, "priority", 8):
        wire.priority = number
    elif span_is(key, "timeout", 7):
        wire.timeout_us = number if number <= <uint64_t>1 << 62 else 0
    return PARSE_OK


cdef int check_utf8(Span span, const char* what, Wire* wire) noexcept nogil:
    if is_utf8(span):
        return PARSE_OK
    wire.error_in = what
    return PARSE_MALFORMED


cdef int grow(void** array, int* room, size_t item_size) noexcept nogil:
    cdef int wanted = room[0] * 2 if room[0] else 16
    cdef void* grown
    if room[0] >= MAX_TENSORS:
        return PARSE_TOO_MANY
    grown = realloc(array[0], wanted * item_size)
    if grown == NULL:
        return PARSE_MEMORY
    array[0] = grown
    room[0] = wanted
    return PARSE_OK


cdef void free_wire(Wire* wire) noexcept nogil:
    free(wire.inputs)
    free(wire.raws)
    free(wire.outputs)
    memset(wire, 0, sizeof(Wire))


cdef str parse_error_text(Wire* wire, int error):
    where = wire.error_in.decode()
    if error == PARSE_TOO_MANY:
        return f"{where}: more than {MAX_TENSORS} entries, expected at most {MAX_TENSORS}"
    if error == PARSE_RANK:
        return f"{where}.shape: more than {MAX_DIMS} dimensions, expected at most {MAX_DIMS}"
    if error == PARSE_MEMORY:
        return "out of memory while reading the request"
    return f"{where}: malformed protobuf near byte {wire.error_at}, expected an inference.ModelInferRequest"


# --- reading: InferTensorContents ----------------------------------------------------------------------------------------------

cdef struct Contents:         # one walk over typed contents; `out` NULL: measure only
    int datatype
    int wanted_field
    uint8_t* out
    size_t nbytes
    int64_t n_elements
    int other_field           # a field with data that does not belong to the datatype, 0: none
    int64_t unfit_at          # index of the first element that does not fit the datatype, -1: none


cdef inline void take_number(Contents* k, uint64_t v) noexcept nogil:
    cdef int size = datatype_size(k.datatype)
    cdef int64_t number
    cdef bint fits = True
    if k.datatype == DT_BOOL:
        v = 1 if v else 0
    elif k.wanted_field == 2:                                 # int_contents: int32 on the wire
        number = <int64_t><int32_t>v
        fits = size == 4 or -(1 << (8 * size - 1)) <= number < (1 << (8 * size - 1))
    elif k.wanted_field == 4:                                 # uint_contents: uint32 on the wire
        v = <uint32_t>v
        fits = size == 4 or v < <uint64_t>1 << (8 * size)
    if not fits and k.unfit_at < 0:
        k.unfit_at = k.n_elements
    if k.out != NULL:
        memcpy(k.out + k.nbytes, &v, size)                    # little-endian, as this code is compiled for
    k.nbytes += size
    k.n_elements += 1


cdef inline void take_block(Contents* k, Span span, int size) noexcept nogil:
    if k.out != NULL:
        memcpy(k.out + k.nbytes, span.ptr, span.len)
    k.nbytes += span.len
    k.n_elements += span.len // size


cdef inline void take_string(Contents* k, Span span) noexcept nogil:
    cdef uint32_t n = <uint32_t>span.len
    if not is_utf8(span) and k.unfit_at < 0:
        k.unfit_at = k.n_elements
    if k.out != NULL:
        memcpy(k.out + k.nbytes, &n, 4)
        memcpy(k.out + k.nbytes + 4, span.ptr, n)
    k.nbytes += 4 + n
    k.n_elements += 1


cdef void walk_contents(Span message, Contents* k) noexcept nogil:
    """Over every `contents` piece of one input. Well-formedness was checked by parse_request, so reads cannot fail."""
    cdef Cursor c = cursor_over(message)
    cdef Cursor inner, packed
    cdef uint32_t field = 0
    cdef int wire_type = 0
    cdef uint64_t number = 0
    cdef Span span
    memset(&span, 0, sizeof(span))
    k.nbytes, k.n_elements = 0, 0
    while c.at < c.end:
        read_tag(&c, &field, &wire_type)
        if field != 5 or wire_type != WIRE_BYTES:
            skip_field(&c, field, wire_type)
            continue
        read_bytes(&c, &span)
        inner = cursor_over(span)
        while inner.at < inner.end:
            read_tag(&inner, &field, &wire_type)
            if wire_type == WIRE_BYTES and 1 <= field <= 8:
                read_bytes(&inner, &span)
                if <int>field != k.wanted_field:
                    if span.len or field == 8:
                        k.other_field = field
                elif field == 8:
                    take_string(k, span)
                elif field == 6 or field == 7:
                    take_block(k, span, 4 if field == 6 else 8)
                else:
                    packed = cursor_over(span)
                    while packed.at < packed.end:
                        read_varint(&packed, &number)
                        take_number(k, number)
            elif wire_type == WIRE_VARINT and 1 <= field <= 5:
                read_varint(&inner, &number)
                if <int>field == k.wanted_field:
                    take_number(k, number)
                else:
                    k.other_field = field
            elif (wire_type == WIRE_FIXED32 and field == 6) or (wire_type == WIRE_FIXED64 and field == 7):
                span.ptr, span.len = inner.at, 4 if field == 6 else 8
                inner.at += span.len
                if <int>field == k.wanted_field:
                    take_block(k, span, <int>span.len)
                else:
                    k.other_field = field
            else:
                skip_field(&inner, field, wire_type)


CONTENTS_NAMES = ("", "bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents", "fp32_contents",
                  "fp64_contents", "bytes_contents")


cdef int64_t decode_contents(WireInput* tensor, int datatype, uint8_t** out, size_t* nbytes, Signature signature) except -1:
    cdef Contents k
    memset(&k, 0, sizeof(k))
    k.datatype = datatype
    k.wanted_field = GW_DATATYPES[datatype].contents_field
    k.unfit_at = -1
    walk_contents(tensor.message, &k)
    if k.other_field or not k.wanted_field or k.unfit_at >= 0:
        what = f"input '{tensor.name.ptr[:tensor.name.len].decode()}' of {signature.describe()}"
        dt = GW_DATATYPES[datatype].name.decode()
        if not k.wanted_field:
            raise Refusal(INVALID_ARGUMENT, f"{what}: got typed contents, but {dt} exists only as raw_input_contents")
        if k.other_field:
            raise Refusal(
                INVALID_ARGUMENT,
                f"{what}: got {CONTENTS_NAMES[k.other_field]}, expected {CONTENTS_NAMES[k.wanted_field]} for datatype {dt}")
        if datatype == DT_BYTES:
            raise Refusal(INVALID_ARGUMENT, f"{what}: element {k.unfit_at} is not valid UTF-8, expected text")
        raise Refusal(INVALID_ARGUMENT, f"{what}: element {k.unfit_at} of {CONTENTS_NAMES[k.wanted_field]} does not fit datatype {dt}")
    nbytes[0] = k.nbytes
    out[0] = NULL
    if k.nbytes:
        k.out = <uint8_t*>malloc(k.nbytes)
        if k.out == NULL:
            raise MemoryError("no memory for typed contents")
        out[0] = k.out
        walk_contents(tensor.message, &k)
    return k.n_elements


# --- writing: ModelInferResponse -----------------------------------------------------------------------------------------------

cdef inline uint8_t* put(uint8_t* p, const void* data, size_t n) noexcept nogil:
    memcpy(p, data, n)
    return p + n


cdef inline uint8_t* put_prefix(uint8_t* p, size_t message_len) noexcept nogil:
    """gRPC's message frame: uncompressed, length big-endian."""
    p[0] = 0
    p[1], p[2], p[3], p[4] = (message_len >> 24) & 0xFF, (message_len >> 16) & 0xFF, (message_len >> 8) & 0xFF, message_len & 0xFF
    return p + 5


cdef inline size_t shape_len(const OutputView* view) noexcept nogil:
    cdef size_t n = 0
    cdef int axis
    for axis in range(view.n_dims):
        n += varint_len(<uint64_t>view.dims[axis])
    return n


cdef Body encode_response(Signature signature, Span id, Span parameters, const OutputView* outputs, int n_outputs, bint streamed):
    cdef size_t message_len = signature.encoded_head.len + parameters.len
    cdef size_t total, dims_len, tensor_len
    cdef const OutputView* view
    cdef uint8_t* p
    cdef int i, axis
    cdef Body body
    if id.len:
        message_len += 1 + varint_len(id.len) + id.len
    for i in range(n_outputs):
        view = &outputs[i]
        dims_len = shape_len(view)
        tensor_len = view.spec.encoded.len + (1 + varint_len(dims_len) + dims_len if dims_len else 0)
        message_len += 1 + varint_len(tensor_len) + tensor_len + 1 + varint_len(view.nbytes) + view.nbytes
    total = message_len + (1 + varint_len(message_len) if streamed else 0)
    if total > 0x7FFFFFFF:
        raise Refusal(13, f"the answer of {signature.describe()} takes {total} bytes, more than protobuf's 2 GiB")
    body = Body.sized(GRPC_PREFIX_BYTES + total)
    p = put_prefix(body.data, total)
    if streamed:
        p[0] = 2 << 3 | 2                                     # ModelStreamInferResponse.infer_response
        p = write_varint(p + 1, message_len)
    p = put(p, signature.encoded_head.ptr, signature.encoded_head.len)
    if id.len:
        p[0] = 3 << 3 | 2
        p = put(write_varint(p + 1, id.len), id.ptr, id.len)
    if parameters.len:
        p = put(p, parameters.ptr, parameters.len)
    for i in range(n_outputs):
        view = &outputs[i]
        dims_len = shape_len(view)
        tensor_len = view.spec.encoded.len + (1 + varint_len(dims_len) + dims_len if dims_len else 0)
        p[0] = 5 << 3 | 2
        p = put(write_varint(p + 1, tensor_len), view.spec.encoded.ptr, view.spec.encoded.len)
        if dims_len:
            p[0] = 3 << 3 | 2
            p = write_varint(p + 1, dims_len)
            for axis in range(view.n_dims):
                p = write_varint(p, <uint64_t>view.dims[axis])
    for i in range(n_outputs):
        view = &outputs[i]
        p[0] = 6 << 3 | 2
        p = write_varint(p + 1, view.nbytes)
        if view.nbytes >= 65536:
            with nogil:
                memcpy(p, view.data, view.nbytes)
        elif view.nbytes:
            memcpy(p, view.data, view.nbytes)
        p += view.nbytes
    body.length = p - body.data
    return body


cdef Body encode_stream_error(bytes text, bytes id):
    """The error, and an answer that has nothing but the request's id, as Triton has it: a stream tells its callers apart by that."""
    cdef size_t n = len(text), n_id = len(id)
    cdef size_t response_len = 1 + varint_len(n_id) + n_id if n_id else 0
    cdef size_t message_len = (1 + varint_len(n) + n if n else 0) + (1 + varint_len(response_len) + response_len if n_id else 0)
    cdef Body body = Body.sized(GRPC_PREFIX_BYTES + message_len)
    cdef uint8_t* p = put_prefix(body.data, message_len)
    if n:
        p[0] = 1 << 3 | 2                                     # ModelStreamInferResponse.error_message
        p = put(write_varint(p + 1, n), <char*>text, n)
    if n_id:
        p[0] = 2 << 3 | 2                                     # ModelStreamInferResponse.infer_response
        p = write_varint(p + 1, response_len)
        p[0] = 3 << 3 | 2                                     # ModelInferResponse.id
        p = put(write_varint(p + 1, n_id), <char*>id, n_id)
    body.length = p - body.data
    return body


# --- for tests and tools -------------------------------------------------------------------------------------------------------

cdef inline bytes span_bytes(Span span):
    return <bytes>span.ptr[:span.len] if span.len else b""


def parse(const uint8_t[::1] data not None):
    """What parse_request finds in a serialized ModelInferRequest, as plain objects; Refusal when it is malformed."""
    cdef Wire wire
    cdef Span body
    cdef int status, i
    memset(&wire, 0, sizeof(wire))
    body.ptr, body.len = &data[0] if data.shape[0] else NULL, data.shape[0]
    try:
        status = parse_request(body, &wire)
        if status != PARSE_OK:
            raise Refusal(INVALID_ARGUMENT, parse_error_text(&wire, status))
        return {
            "model_name": span_bytes(wire.model).decode(), "model_version": span_bytes(wire.version).decode(),
            "id": span_bytes(wire.id).decode(),
            "priority": wire.priority, "timeout_us": wire.timeout_us,
            "inputs": [{
                "name": span_bytes(wire.inputs[i].name).decode(), "datatype": span_bytes(wire.inputs[i].datatype).decode(),
                "shape": [wire.inputs[i].dims[axis] for axis in range(wire.inputs[i].n_dims)],
                "has_contents": wire.inputs[i].has_contents, "in_shared_memory": wire.inputs[i].in_shared_memory,
            } for i in range(wire.n_inputs)],
            "raw_input_contents": [span_bytes(wire.raws[i]) for i in range(wire.n_raws)],
            "outputs": [span_bytes(wire.outputs[i]).decode() for i in range(wire.n_outputs)],
        }
    finally:
        free_wire(&wire)
