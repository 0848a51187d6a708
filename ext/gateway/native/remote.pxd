# Form: one version as another server knows it. Writes a batch as a ModelInferRequest and reads its ModelInferResponse, both in place.
#
# Copies of a tensor on the way out: one, from the callers' messages into the request. On the way back: none, the arrays look into the
# answer, which they keep alive; they may therefore be unaligned.
from libc.stdint cimport int64_t, uint8_t

from gateway.native.batch cimport Batch
from gateway.native.codec cimport Wire, WireInput
from gateway.native.cursor cimport Span
from gateway.native.signature cimport Signature, TensorSpec


cdef struct Rows:             # bytes of one member's slice of one input
    const uint8_t* data
    size_t nbytes


cdef struct Slot:             # where an output was to be written, beside the answer
    const uint8_t* data
    size_t nbytes             # 0: it comes in the answer
    bint is_used              # an array looks into it


cdef Rows rows_of(Batch batch, int member, int index) noexcept
cdef uint8_t* put(uint8_t* p, const uint8_t* data, size_t n) noexcept          # copies; where it ends


cdef class Form:
    cdef readonly Signature signature
    cdef readonly str model, version    # the remote's names; version "": it chooses
    cdef list keep                      # the bytes that the spans point into
    cdef Span head                      # fields 1 and 2 of ModelInferRequest
    cdef Span* inputs                   # owned; name and datatype of InferInputTensor, one an input

    cdef bytes _write(self, Batch batch, int low, int high)
    # slots: NULL, or one an output; `keeper` keeps them alive
    cdef list read(self, bytes data, Slot* slots, object keeper)
    cdef int _match(self, Wire* wire, list outputs, bytes data, Slot* slots, object keeper) except -1
    cdef object _array(self, const TensorSpec* spec, WireInput* given, const Span* raw, bytes data, Slot* slot, object keeper)
    cdef str _output(self, const TensorSpec* spec)
