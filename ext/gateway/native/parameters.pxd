# Parameters: map<string, InferParameter> of an answer, written and read. Control paths only: an answer that has none costs nothing.
from gateway.native.cursor cimport Span


cdef bytes encode_parameters(dict values)               # entries of field 4, one after the other
cdef tuple read_parameter(Span entry)                   # (name, value); ValueError when it is malformed
