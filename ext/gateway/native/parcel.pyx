"""A batch in shared memory: its rows gathered there, a message that says where, and its outputs where the server has put them."""
cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from gateway.native.batch cimport Batch
from gateway.native.cursor cimport write_varint
from gateway.native.datatype cimport DT_BYTES, datatype_size
from gateway.native.remote cimport Form, Rows, Slot, put, rows_of
from gateway.native.request cimport Request, TensorRef
from gateway.native.signature cimport Signature, TensorSpec

from os import urandom

from gateway.native.remote import AnswerMismatch

cdef enum:
    ALIGNMENT = 64            # of each tensor: a cache line, and what any model asks for
    SEAL_BYTES = 8            # an output that is smaller comes in the answer


class NotWritten(AnswerMismatch):
    """The server says that it has answered, and where it was to write nothing has changed: it looks at other memory, or at none."""


cdef inline size_t aligned(size_t n) noexcept:
    return (n + ALIGNMENT - 1) & ~<size_t>(ALIGNMENT - 1)


cdef bytes varint(uint64_t value):
    cdef uint8_t[16] found
    return (<char*>found)[:write_varint(found, value) - found]


cdef bytes field(int number, bytes content):
    return varint(number << 3 | 2) + varint(len(content)) + content


cdef bytes placed(int number, bytes region, size_t offset, size_t nbytes):
    """The `parameters` that name a place, as entries of field `number`: map<string, InferParameter>."""
    entries = field(number, field(1, b"shared_memory_region") + field(2, field(3, region)))
    entries += field(number, field(1, b"shared_memory_byte_size") + field(2, b"\x10" + varint(nbytes)))
    return entries + field(number, field(1, b"shared_memory_offset") + field(2, b"\x10" + varint(offset))) if offset else entries


@cython.final
@cython.no_gc_clear           # it would drop the memory's owner before the buffer is released
cdef class Parcel:
    """Parcel(form, batch, low, high): members low..high of the batch. Once."""

    def __cinit__(self, Form form not None, Batch batch not None, int low, int high):
        cdef Signature signature = form.signature
        cdef const TensorSpec* spec
        cdef int index, i
        cdef size_t total = 0
        if not 0 <= low < high <= batch.n_members:
            raise ValueError(f"members {low}..{high} of {batch.n_members}")
        self.form, self.batch, self.low, self.high = form, batch, low, high
        self.offsets = <size_t*>calloc(signature.n_inputs, sizeof(size_t))
        self.sizes = <size_t*>calloc(signature.n_inputs, sizeof(size_t))
        self.slots = <Slot*>calloc(signature.n_outputs, sizeof(Slot))
        self.places = <size_t*>calloc(signature.n_outputs, sizeof(size_t))
        if self.offsets == NULL or self.sizes == NULL or self.slots == NULL or self.places == NULL:
            raise MemoryError("no memory for a parcel")
        for i in range(low, high):
            self.n_rows += batch.slices[i].n_rows
        for index in range(signature.n_inputs):
            self.offsets[index] = total
            for i in range(low, high):
                self.sizes[index] += rows_of(batch, i, index).nbytes
            if not self.sizes[index]:                         # servers want some bytes of each
                return
            total = aligned(total + self.sizes[index])
        for index in range(signature.n_outputs):
            spec = &signature.outputs[index]
            if spec.datatype == DT_BYTES or spec.is_variable or spec.row_elements <= 0:
                continue
            self.slots[index].nbytes = <size_t>spec.row_elements * datatype_size(spec.datatype)
            if signature.batched:
                self.slots[index].nbytes *= <size_t>self.n_rows
            if self.slots[index].nbytes < SEAL_BYTES:
                self.slots[index].nbytes = 0
                continue
            self.places[index] = total
            total = aligned(total + self.slots[index].nbytes)
            if total > <size_t>1 << 40:                        # of any file
                return
        self.n_bytes = total

    def __dealloc__(self):
        if self.memory.buf != NULL:
            PyBuffer_Release(&self.memory)
        free(self.offsets)
        free(self.sizes)
        free(self.slots)
        free(self.places)

    def fill(self, bytes region not None, memory, lease):
        """Gathers into `memory`, which the server knows as `region`; the ModelInferRequest. `lease` is let go of when nobody looks into
        the memory any more."""
        cdef Batch batch = self.batch
        cdef Signature signature = self.form.signature
        cdef const TensorRef* tensor
        cdef int index, axis, i
        cdef uint8_t* base
        cdef uint8_t* p
        cdef Rows rows
        if self.lease is not None or not self.n_bytes:
            raise ValueError("a parcel is filled once, and only when it takes something")
        PyObject_GetBuffer(memory, &self.memory, PyBUF_WRITABLE)
        if <size_t>self.memory.len < self.n_bytes:
            raise ValueError(f"a region of {self.memory.len} bytes for {self.n_bytes}")
        self.lease = lease
        base = <uint8_t*>self.memory.buf
        message = [(<char*>self.form.head.ptr)[:self.form.head.len]]
        for index in range(signature.n_inputs):
            tensor = &(<Request>batch.members[self.low]).tensors[index]
            dims = b"".join([varint(<uint64_t>(self.n_rows if axis == 0 and signature.batched else tensor.dims[axis]))
                             for axis in range(tensor.n_dims)])
            given = (<char*>self.form.inputs[index].ptr)[:self.form.inputs[index].len] + (field(3, dims) if dims else b"")
            message.append(field(5, given + placed(4, region, self.offsets[index], self.sizes[index])))
            p = base + self.offsets[index]
            for i in range(self.low, self.high):
                rows = rows_of(batch, i, index)
                p = put(p, rows.data, rows.nbytes)
        seal = urandom(SEAL_BYTES)
        memcpy(self.seal, <const char*>seal, SEAL_BYTES)
        for index in range(signature.n_outputs):
            wanted = field(1, <bytes>signature.outputs[index].name.ptr[:signature.outputs[index].name.len])
            if self.slots[index].nbytes:
                p = base + self.places[index]
                self.slots[index].data = p
                memcpy(p, self.seal, SEAL_BYTES)
                memcpy(p + self.slots[index].nbytes - SEAL_BYTES, self.seal, SEAL_BYTES)
                wanted += placed(2, region, self.places[index], self.slots[index].nbytes)
            message.append(field(6, wanted))
        self.batch = None                                     # a second attempt has a parcel of its own
        return b"".join(message)

    def answer(self, bytes data not None):
        """As Form.answer, with the outputs that are in the region as arrays over it. NotWritten, or AnswerMismatch."""
        cdef int index
        if self.lease is None:
            raise ValueError("a parcel that was not sent")
        outputs = self.form.read(data, self.slots, self)
        for index in range(self.form.signature.n_outputs):
            if self.slots[index].is_used and self.is_sealed(&self.slots[index]):
                raise NotWritten(f"an answer of {self.form.signature.describe()} is not in the shared memory that it was to be in")
        return outputs

    cdef bint is_sealed(self, Slot* slot) noexcept:
        return (memcmp(slot.data, self.seal, SEAL_BYTES) == 0
                or memcmp(slot.data + slot.nbytes - SEAL_BYTES, self.seal, SEAL_BYTES) == 0)
