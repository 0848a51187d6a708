"""A batch as another server's ModelInferRequest, and its ModelInferResponse as arrays: nothing in it is believed unchecked."""
cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from gateway.native.batch cimport Batch
from gateway.native.codec cimport (
    MAX_TENSORS, PARSE_MALFORMED, PARSE_OK, PARSE_RANK, PARSE_TOO_MANY, Wire, WireInput, decode_contents, free_wire, grow, parse_input)
from gateway.native.cursor cimport (
    WIRE_BYTES, Cursor, Span, cursor_over, read_bytes, read_tag, skip_field, span_equals, varint_len, write_varint)
from gateway.native.datatype cimport DT_BYTES, GW_DATATYPES, datatype_is, datatype_size
from gateway.native.refusal cimport RESOURCE_EXHAUSTED
from gateway.native.request cimport Request, TensorRef
from gateway.native.signature cimport MAX_DIMS, Signature, TensorSpec

import numpy as np

from gateway.native.refusal import Refusal

cnp.import_array()

cdef enum:
    MAX_MESSAGE_BYTES = 0x7FFFFFFF      # protobuf's own bound
    NOGIL_MIN_BYTES = 65536


class AnswerMismatch(Exception):
    """The other server's answer is not what its signature promised: wrong for every member, and nothing of it is used."""


cdef bytes encoded_string(int field, bytes text):
    cdef uint8_t[16] head
    head[0] = <uint8_t>(field << 3 | 2)
    return (<char*>head)[:write_varint(head + 1, len(text)) - head] + text


cdef str text_of(Span span):
    return span.ptr[:min(span.len, <size_t>200)].decode("utf-8", "replace") if span.len else ""


cdef object _dtype(int typenum):
    return <object>cnp.PyArray_DescrFromType(typenum)


cdef Rows rows_of(Batch batch, int member, int index) noexcept:
    cdef Request request = <Request>batch.members[member]
    cdef const TensorRef* tensor = &request.tensors[index]
    cdef Rows rows
    cdef int64_t first = batch.slices[member].first, n_rows = batch.slices[member].n_rows
    cdef int64_t skip, take
    cdef const uint8_t* at
    cdef uint32_t n
    rows.data, rows.nbytes = tensor.data, tensor.nbytes
    if n_rows == request.n_rows or request.n_rows <= 0:
        return rows
    if batch.signature.inputs[index].datatype != DT_BYTES:
        rows.nbytes = tensor.nbytes // <size_t>request.n_rows * <size_t>n_rows
        rows.data += tensor.nbytes // <size_t>request.n_rows * <size_t>first
        return rows
    skip = first * (tensor.n_elements // request.n_rows)
    take = n_rows * (tensor.n_elements // request.n_rows)
    at = tensor.data
    while skip:
        memcpy(&n, at, 4)
        at += 4 + n
        skip -= 1
    rows.data = at
    while take:
        memcpy(&n, at, 4)
        at += 4 + n
        take -= 1
    rows.nbytes = at - rows.data
    return rows


cdef uint8_t* put(uint8_t* p, const uint8_t* data, size_t n) noexcept:
    if n >= NOGIL_MIN_BYTES:
        with nogil:
            memcpy(p, data, n)
    elif n:
        memcpy(p, data, n)
    return p + n


@cython.final
cdef class Form:
    """Form(signature, model, version): `signature` is ours, `model` and `version` are what the other server calls it."""

    def __cinit__(self, Signature signature not None, str model not None, str version not None):
        cdef TensorSpec* spec
        cdef int index
        self.signature, self.model, self.version = signature, model, version
        self.keep = []
        self.inputs = <Span*>calloc(signature.n_inputs, sizeof(Span))
        if self.inputs == NULL:
            raise MemoryError("no memory for a form")
        head = encoded_string(1, model.encode()) + (encoded_string(2, version.encode()) if version else b"")
        self.keep.append(head)
        self.head.ptr, self.head.len = <const uint8_t*>PyBytes_AS_STRING(head), len(head)
        for index in range(signature.n_inputs):
            spec = &signature.inputs[index]
            text = encoded_string(1, <bytes>spec.name.ptr[:spec.name.len]) + encoded_string(2, GW_DATATYPES[spec.datatype].name)
            self.keep.append(text)
            self.inputs[index].ptr, self.inputs[index].len = <const uint8_t*>PyBytes_AS_STRING(text), len(text)

    def __dealloc__(self):
        free(self.inputs)

    # --- out -------------------------------------------------------------------------------------------------------------------

    def request(self, Batch batch not None, int low, int high):
        """Members low..high as one ModelInferRequest with raw contents. Refusal: it would pass protobuf's 2 GiB."""
        if not 0 <= low < high <= batch.n_members:
            raise ValueError(f"members {low}..{high} of {batch.n_members}")
        return self._write(batch, low, high)

    cdef bytes _write(self, Batch batch, int low, int high):
        cdef Signature signature = self.signature
        cdef const TensorRef* tensor
        cdef size_t total = self.head.len, raw_len, dims_len, tensor_len
        cdef int64_t n_rows = 0, dim
        cdef int index, axis, i
        cdef uint8_t* p
        cdef Rows rows
        for i in range(low, high):
            n_rows += batch.slices[i].n_rows
        for index in range(signature.n_inputs):
            tensor = &(<Request>batch.members[low]).tensors[index]
            dims_len = raw_len = 0
            for axis in range(tensor.n_dims):
                dim = n_rows if axis == 0 and signature.batched else tensor.dims[axis]
                dims_len += varint_len(<uint64_t>dim)
            for i in range(low, high):
                raw_len += rows_of(batch, i, index).nbytes
            tensor_len = self.inputs[index].len + (1 + varint_len(dims_len) + dims_len if dims_len else 0)
            total += 1 + varint_len(tensor_len) + tensor_len + 1 + varint_len(raw_len) + raw_len
        if total > MAX_MESSAGE_BYTES:
            raise Refusal(RESOURCE_EXHAUSTED, f"a batch for {signature.describe()} takes {total} bytes, more than protobuf's 2 GiB")
        message = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
        p = put(<uint8_t*>PyBytes_AS_STRING(message), self.head.ptr, self.head.len)
        for index in range(signature.n_inputs):
            tensor = &(<Request>batch.members[low]).tensors[index]
            dims_len = 0
            for axis in range(tensor.n_dims):
                dim = n_rows if axis == 0 and signature.batched else tensor.dims[axis]
                dims_len += varint_len(<uint64_t>dim)
            tensor_len = self.inputs[index].len + (1 + varint_len(dims_len) + dims_len if dims_len else 0)
            p[0] = 5 << 3 | 2
            p = put(write_varint(p + 1, tensor_len), self.inputs[index].ptr, self.inputs[index].len)
            if dims_len:
                p[0] = 3 << 3 | 2
                p = write_varint(p + 1, dims_len)
                for axis in range(tensor.n_dims):
                    p = write_varint(p, <uint64_t>(n_rows if axis == 0 and signature.batched else tensor.dims[axis]))
        for index in range(signature.n_inputs):
            raw_len = 0
            for i in range(low, high):
                raw_len += rows_of(batch, i, index).nbytes
            p[0] = 7 << 3 | 2
            p = write_varint(p + 1, raw_len)
            for i in range(low, high):
                rows = rows_of(batch, i, index)
                p = put(p, rows.data, rows.nbytes)
        return message

    def forward(self, Batch batch not None):
        """The only member's own message, under the other server's names: its id, parameters and contents as they came. All outputs are
        asked for, because what is watched here is more than what this caller wants."""
        cdef Request request = <Request>batch.members[0]
        cdef Span body, span
        cdef Cursor c
        cdef const uint8_t* at
        cdef const uint8_t* start
        cdef uint32_t field
        cdef int wire_type
        cdef size_t total = self.head.len
        cdef uint8_t* p
        cdef bint is_kept
        if batch.n_members != 1 or batch.slices[0].n_rows != request.n_rows:
            raise ValueError("only a whole request of its own is forwarded")
        body.ptr, body.len = request.body.data, request.body.length
        message = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(self.head.len + body.len))
        p = put(<uint8_t*>PyBytes_AS_STRING(message), self.head.ptr, self.head.len)
        c = cursor_over(body)
        start = c.at
        while c.at < c.end:                                   # parse_request has found it well formed
            at = c.at
            if read_tag(&c, &field, &wire_type) < 0:
                raise ValueError("a request that was not parsed")
            is_kept = field not in (1, 2, 6)
            if wire_type == WIRE_BYTES:
                if read_bytes(&c, &span) < 0:
                    raise ValueError("a request that was not parsed")
            elif skip_field(&c, field, wire_type) < 0:
                raise ValueError("a request that was not parsed")
            if not is_kept:
                p = put(p, start, at - start)
                start = c.at
        p = put(p, start, c.at - start)
        total = p - <uint8_t*>PyBytes_AS_STRING(message)
        return message if total == <size_t>PyBytes_GET_SIZE(message) else message[:total]

    # --- back ------------------------------------------------------------------------------------------------------------------

    def answer(self, bytes data not None):
        """The outputs of a ModelInferResponse, in signature order, as read-only arrays over `data`; BYTES as objects. AnswerMismatch
        names the output, what came and what the signature says."""
        return self.read(data, NULL, None)

    cdef list read(self, bytes data, Slot* slots, object keeper):
        cdef Wire wire
        cdef Cursor c
        cdef Span body, span
        cdef uint32_t field
        cdef int wire_type, status = PARSE_OK
        cdef list outputs = []
        memset(&wire, 0, sizeof(wire))
        body.ptr, body.len = <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
        c = cursor_over(body)
        try:
            while c.at < c.end and status == PARSE_OK:
                if read_tag(&c, &field, &wire_type) < 0:
                    status = PARSE_MALFORMED
                elif wire_type != WIRE_BYTES:
                    status = PARSE_OK if skip_field(&c, field, wire_type) == 0 else PARSE_MALFORMED
                elif read_bytes(&c, &span) < 0:
                    status = PARSE_MALFORMED
                elif field == 1:
                    wire.model = span
                elif field == 2:
                    wire.version = span
                elif field == 5:
                    status = parse_input(span, &wire)         # an output has the fields of an input
                elif field == 6:
                    if wire.n_raws == wire.room_raws:
                        status = grow(<void**>&wire.raws, &wire.room_raws, sizeof(Span))
                    if status == PARSE_OK:
                        wire.raws[wire.n_raws] = span
                        wire.n_raws += 1
            if status == PARSE_TOO_MANY:
                raise AnswerMismatch(f"{self.signature.describe()}: more than {MAX_TENSORS} outputs came")
            if status == PARSE_RANK:
                raise AnswerMismatch(f"{self.signature.describe()}: an output with more than {MAX_DIMS} dimensions came")
            if status == PARSE_MALFORMED:
                raise AnswerMismatch(f"{self.signature.describe()}: {len(data)} bytes came that are no ModelInferResponse")
            if status != PARSE_OK:
                raise MemoryError("no memory to read an answer")
            if self.version and wire.version.len and text_of(wire.version) != self.version:
                raise AnswerMismatch(
                    f"{self.signature.describe()}: version '{text_of(wire.version)}' answered, expected '{self.version}'")
            self._match(&wire, outputs, data, slots, keeper)
            return outputs
        finally:
            free_wire(&wire)

    def nothing(self):
        """The outputs of no rows; a free dimension has size 0."""
        cdef const TensorSpec* spec
        cdef int index, axis
        outputs = []
        for index in range(self.signature.n_outputs):
            spec = &self.signature.outputs[index]
            shape = tuple([0 if axis == 0 else max(spec.dims[axis], 0) for axis in range(spec.n_dims)])
            outputs.append(np.empty(shape, np.dtype(object) if spec.datatype == DT_BYTES else _dtype(spec.typenum)))
        return outputs

    cdef int _match(self, Wire* wire, list outputs, bytes data, Slot* slots, object keeper) except -1:
        cdef Signature signature = self.signature
        cdef int index, position, next_raw
        if wire.n_inputs != signature.n_outputs:
            names = ", ".join([f"'{text_of(wire.inputs[position].name)}'" for position in range(min(wire.n_inputs, 16))]) or "none"
            raise AnswerMismatch(f"outputs of {signature.describe()}: got {names}, expected {signature.output_names()}")
        if wire.n_raws and wire.n_raws != wire.n_inputs:
            raise AnswerMismatch(
                f"raw_output_contents of {signature.describe()}: got {wire.n_raws} entries, expected {wire.n_inputs}, one for each output")
        for index in range(signature.n_outputs):
            for position in range(wire.n_inputs):
                next_raw = (index + position) % wire.n_inputs             # mostly in order
                if span_equals(wire.inputs[next_raw].name, signature.outputs[index].name):
                    outputs.append(self._array(&signature.outputs[index], &wire.inputs[next_raw],
                                               &wire.raws[next_raw] if wire.n_raws else NULL, data,
                                               &slots[index] if slots != NULL else NULL, keeper))
                    break
            else:
                raise AnswerMismatch(f"{self._output(&signature.outputs[index])} is missing in the answer")
        return 0

    cdef object _array(self, const TensorSpec* spec, WireInput* given, const Span* raw, bytes data, Slot* slot, object keeper):
        cdef cnp.npy_intp dims[MAX_DIMS]
        cdef int64_t n = 1
        cdef uint8_t* decoded = NULL
        cdef size_t nbytes = 0
        cdef const uint8_t* at
        cdef int axis
        cdef bint fits = given.n_dims == spec.n_dims
        if not datatype_is(spec.datatype, given.datatype):
            raise AnswerMismatch(
                f"{self._output(spec)}: got datatype {text_of(given.datatype) or 'none'}, expected "
                f"{GW_DATATYPES[spec.datatype].name.decode()}")
        if fits:
            for axis in range(spec.n_dims):
                if given.dims[axis] < 0 or (spec.dims[axis] >= 0 and given.dims[axis] != spec.dims[axis]):
                    fits = False
                elif given.dims[axis] and n > (<int64_t>1 << 40) // given.dims[axis]:
                    fits = False
                else:
                    n *= given.dims[axis]
                    dims[axis] = given.dims[axis]
        if not fits:
            raise AnswerMismatch(
                f"{self._output(spec)}: got shape {[given.dims[axis] for axis in range(given.n_dims)]}, expected "
                f"{[spec.dims[axis] for axis in range(spec.n_dims)]}")
        if slot != NULL and slot.nbytes and n and (raw == NULL or raw.len == 0):
            at, nbytes, slot.is_used = slot.data, slot.nbytes, True
        elif raw == NULL:                                     # typed contents: other servers than Triton
            try:
                if decode_contents(given, spec.datatype, &decoded, &nbytes, self.signature) != n:
                    raise AnswerMismatch(f"{self._output(spec)}: its contents have not the {n} elements of its shape")
                data = (<char*>decoded)[:nbytes] if nbytes else b""
            except Refusal as refusal:
                raise AnswerMismatch(f"{self._output(spec)}: {refusal}") from None
            finally:
                free(decoded)
            at = <const uint8_t*>PyBytes_AS_STRING(data)
        else:
            at, nbytes = raw.ptr, raw.len
        if spec.datatype == DT_BYTES:
            return self._strings(at - <const uint8_t*>PyBytes_AS_STRING(data), nbytes, n, data,
                                 tuple([dims[axis] for axis in range(spec.n_dims)]), self._output(spec))
        if nbytes != <size_t>n * datatype_size(spec.datatype):
            raise AnswerMismatch(
                f"{self._output(spec)}: got {nbytes} bytes, expected {n * datatype_size(spec.datatype)} for shape "
                f"{[dims[axis] for axis in range(spec.n_dims)]} of {GW_DATATYPES[spec.datatype].name.decode()}")
        if nbytes == 0:
            return cnp.PyArray_SimpleNew(spec.n_dims, dims, spec.typenum)
        array = cnp.PyArray_SimpleNewFromData(spec.n_dims, dims, spec.typenum, <void*>at)
        cnp.set_array_base(array, keeper if slot != NULL and slot.is_used else data)
        cnp.PyArray_CLEARFLAGS(array, cnp.NPY_ARRAY_WRITEABLE)
        return array

    def _strings(self, size_t first, size_t nbytes, int64_t count, bytes data, tuple shape, str what):
        """An object array of bytes."""
        cdef const char* at = PyBytes_AS_STRING(data) + first
        cdef const char* end = at + nbytes
        cdef uint32_t n
        cdef int64_t i
        cdef list found = []
        for i in range(count):
            if end - at < 4:
                raise AnswerMismatch(f"{what}: element {i} of {count} is cut short")
            memcpy(&n, at, 4)
            if n > end - at - 4:
                raise AnswerMismatch(f"{what}: element {i} of {count} is cut short")
            found.append(at[4:4 + n])
            at += 4 + n
        if at != end:
            raise AnswerMismatch(f"{what}: {end - at} bytes came after its {count} elements")
        array = np.empty(count, object)
        array[:] = found
        return array.reshape(shape)

    cdef str _output(self, const TensorSpec* spec):
        return f"output '{text_of(spec.name)}' of {self.signature.describe()}"
