# JsonData: the values of one input of an infer request in JSON, flat or nested as its shape says, into packed little-endian bytes.
from libc.stdint cimport int64_t, uint8_t

from gateway.native.cursor cimport Span
from gateway.native.signature cimport MAX_DIMS


cdef struct JsonInput:
    Span name
    int datatype
    int n_dims
    int64_t dims[MAX_DIMS]
    size_t n_elements         # as the shape says
    Span data                 # from its first [ to behind its last ]
    size_t nbytes             # packed


# All of tensor.data; the caller has room for tensor.nbytes. False: not plain, or not as the shape says. For BYTES `out` may be NULL: then
# it counts tensor.nbytes and writes nothing.
cdef bint read_data(JsonInput* tensor, uint8_t* out) noexcept nogil
