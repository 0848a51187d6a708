"""The parameters of an answer, between protobuf and Python: bool, int, str."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from gateway.native.cursor cimport (
    WIRE_BYTES, WIRE_VARINT, Cursor, Span, cursor_over, read_bytes, read_tag, read_varint, skip_field, write_varint)


cdef inline bytes varint(uint64_t number):
    cdef uint8_t buffer[10]
    return (<char*>buffer)[:write_varint(buffer, number) - buffer]


cdef inline bytes field_of_bytes(int field, bytes value):
    return varint(field << 3 | WIRE_BYTES) + varint(len(value)) + value


cdef bytes encode_parameters(dict values):
    cdef list entries = []
    for name, value in values.items():
        if isinstance(value, bool):
            choice = varint(1 << 3) + varint(<bint>value)
        elif isinstance(value, int):
            choice = varint(2 << 3) + varint(<uint64_t><int64_t>value)
        elif isinstance(value, str):
            choice = field_of_bytes(3, (<str>value).encode())
        else:
            raise TypeError(f"parameter '{name}': got {type(value).__name__}, expected bool, int or str")
        entries.append(field_of_bytes(4, field_of_bytes(1, (<str?>name).encode()) + field_of_bytes(2, choice)))
    return b"".join(entries)


cdef tuple read_parameter(Span entry):
    cdef Cursor c = cursor_over(entry)
    cdef Cursor inner
    cdef Span span
    cdef uint32_t field
    cdef int wire_type
    cdef uint64_t number
    cdef str name = ""
    cdef object value = None
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0 or wire_type != WIRE_BYTES or read_bytes(&c, &span) < 0:
            raise ValueError("malformed parameter")
        if field == 1:
            name = text_of(span)
        elif field == 2:
            inner = cursor_over(span)
            while inner.at < inner.end:
                if read_tag(&inner, &field, &wire_type) < 0:
                    raise ValueError("malformed parameter")
                if wire_type == WIRE_VARINT and field <= 2:
                    if read_varint(&inner, &number) < 0:
                        raise ValueError("malformed parameter")
                    value = bool(number) if field == 1 else <int64_t>number
                elif wire_type == WIRE_BYTES and field == 3:
                    if read_bytes(&inner, &span) < 0:
                        raise ValueError("malformed parameter")
                    value = text_of(span)
                elif skip_field(&inner, field, wire_type) < 0:
                    raise ValueError("malformed parameter")
    return name, value


cdef inline str text_of(Span span):
    return span.ptr[:span.len].decode() if span.len else ""


# --- for tests and tools -------------------------------------------------------------------------------------------------------

def encoded(dict values not None):
    """The serialized `parameters` of a ModelInferResponse."""
    return encode_parameters(values)
