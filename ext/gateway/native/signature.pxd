# Signature: the inputs and outputs of one version, as the wire path needs them. Immutable once built.
from libc.stdint cimport int64_t, uint8_t

from gateway.native.cursor cimport Span


cdef enum:
    MAX_DIMS = 8              # TensorRT's own bound; a model of higher rank is refused at load


cdef struct TensorSpec:
    Span name                 # into Signature.keep
    Span encoded              # outputs: the name and datatype fields of InferOutputTensor, ready to copy
    int datatype
    int typenum               # NumPy's type number of the array that the backend sees
    int n_dims
    int64_t dims[MAX_DIMS]    # -1: variable; dims[0] is the batch dimension when batched
    bint is_variable          # some inner dimension is -1
    int64_t row_elements      # elements of one row (of the whole tensor when not batched); -1 when variable


cdef class Signature:
    cdef readonly str model, version
    cdef readonly bint batched          # dim 0 of every tensor counts rows
    cdef bint is_variable               # some input has a variable inner dimension: requests may not all join
    cdef int n_inputs, n_outputs
    cdef TensorSpec* inputs             # owned
    cdef TensorSpec* outputs            # owned
    cdef Span encoded_head              # fields 1 and 2 of ModelInferResponse: what served
    cdef list keep                      # the bytes objects that the spans point into

    cdef str describe(self)             # "model 'm' version '1'"
    cdef str input_names(self)
    cdef str output_names(self)
    cdef Span _span(self, bytes text)
    cdef int _fill(self, TensorSpec* spec, str role, str name, str datatype, shape) except -1
