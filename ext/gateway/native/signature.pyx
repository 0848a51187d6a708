"""What a version takes and gives, compiled for the wire path."""
from libc.stdlib cimport calloc, free

from gateway.native.cursor cimport write_varint
from gateway.native.datatype cimport GW_DATATYPES, N_DATATYPES

import numpy as np

# BYTES are Python strings in object arrays; BF16 travels as its bits.
_NUMPY = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
    "BYTES": np.object_, "BF16": np.uint16,
}
cdef dict DATATYPE_NUMBERS = {GW_DATATYPES[i].name.decode(): i for i in range(1, N_DATATYPES)}


cdef bytes encoded_string(int field, bytes text):
    """One protobuf string field."""
    cdef uint8_t[16] head
    cdef uint8_t* p = head
    p[0] = <uint8_t>(field << 3 | 2)
    p = write_varint(p + 1, len(text))
    return (<char*>head)[:p - head] + text


cdef class Signature:
    """Signature(model, version, inputs, outputs, batched); inputs and outputs are sequences of (name, datatype, shape).

    Shapes include the batch dimension when `batched`; -1 is variable. ValueError names what cannot be served.
    """

    def __cinit__(self, str model not None, str version not None, inputs, outputs, bint batched):
        self.model, self.version, self.batched = model, version, batched
        self.keep = []
        self.n_inputs, self.n_outputs = len(inputs), len(outputs)
        if not inputs or not outputs:
            raise ValueError(f"{self.describe()} needs at least one input and one output")
        self.inputs = <TensorSpec*>calloc(self.n_inputs, sizeof(TensorSpec))
        self.outputs = <TensorSpec*>calloc(self.n_outputs, sizeof(TensorSpec))
        if self.inputs == NULL or self.outputs == NULL:
            raise MemoryError("no memory for a signature")
        cdef int i
        for i in range(self.n_inputs):
            name, datatype, shape = inputs[i]
            self._fill(&self.inputs[i], "input", name, datatype, shape)
            self.is_variable = self.is_variable or self.inputs[i].is_variable
        for i in range(self.n_outputs):
            name, datatype, shape = outputs[i]
            self._fill(&self.outputs[i], "output", name, datatype, shape)
        self.encoded_head = self._span(encoded_string(1, model.encode()) + encoded_string(2, version.encode()))

    def __dealloc__(self):
        free(self.inputs)
        free(self.outputs)

    cdef Span _span(self, bytes text):
        cdef Span span
        self.keep.append(text)
        span.ptr, span.len = <const uint8_t*><char*>text, len(text)
        return span

    cdef int _fill(self, TensorSpec* spec, str role, str name, str datatype, shape) except -1:
        cdef int64_t dim
        if datatype not in DATATYPE_NUMBERS:
            raise ValueError(f"{role} {name!r} of {self.describe()} has datatype {datatype}, expected one of {', '.join(DATATYPE_NUMBERS)}")
        if len(shape) > MAX_DIMS:
            raise ValueError(f"{role} {name!r} of {self.describe()} has rank {len(shape)}, expected at most {MAX_DIMS}")
        if self.batched and (not shape or shape[0] != -1):
            raise ValueError(f"{role} {name!r} of {self.describe()} has shape {list(shape)}, expected a leading -1 for the batch")
        spec.name = self._span(name.encode())
        spec.encoded = self._span(encoded_string(1, name.encode()) + encoded_string(2, datatype.encode()))
        spec.datatype = DATATYPE_NUMBERS[datatype]
        spec.typenum = np.dtype(_NUMPY[datatype]).num
        spec.n_dims = len(shape)
        spec.row_elements = 1
        for axis, dim in enumerate(shape):
            spec.dims[<int>axis] = dim
            if axis == 0 and self.batched:
                continue
            if dim < 0:
                spec.is_variable = True
            spec.row_elements *= dim
        if spec.is_variable:
            spec.row_elements = -1
        return 0

    cdef str describe(self):
        return f"model '{self.model}' version '{self.version}'"

    cdef str input_names(self):
        return ", ".join([f"'{self.inputs[i].name.ptr[:self.inputs[i].name.len].decode()}'" for i in range(self.n_inputs)])

    cdef str output_names(self):
        return ", ".join([f"'{self.outputs[i].name.ptr[:self.outputs[i].name.len].decode()}'" for i in range(self.n_outputs)])
