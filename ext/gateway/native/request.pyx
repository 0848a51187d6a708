"""One infer request: bound to a signature, answered once."""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from gateway.native cimport counters
from gateway.native.codec cimport Wire, WireInput, decode_contents
from gateway.native.cursor cimport Span, is_utf8, span_equals
from gateway.native.datatype cimport DT_BYTES, GW_DATATYPES, datatype_is, datatype_size
from gateway.native.refusal cimport INVALID_ARGUMENT, UNIMPLEMENTED
from gateway.native.signature cimport Signature, TensorSpec

from gateway.native.refusal import Refusal


cdef class Caller(Timed):
    """Abstract: gets exactly one of on_answer and on_failure for each request, unless it cancelled it."""

    cdef int on_answer(self, Request request, Body answer) except -1:
        raise AssertionError("abstract")

    cdef int on_failure(self, Request request, int code, str text) except -1:
        raise AssertionError("abstract")

    cdef int on_moved(self, Request request) except -1:
        raise AssertionError("abstract")

    cdef bytes id_of(self, Request request):
        if request is None:
            return self.refused_id or b""
        return <bytes>request.id.ptr[:request.id.len] if request.id.len else b""


@cython.final
@cython.no_gc
cdef class Origin:
    """Arm and sticky key of a draw."""


cdef class Stamp:
    """Abstract."""

    cdef bytes parameters_of(self, Request request, list outputs, int64_t first, int64_t n_rows):
        raise AssertionError("abstract")


cdef class Holder:
    """Abstract: holds a queued request."""

    cdef int on_expired(self, Request request, int64_t now_us) except -1:
        raise AssertionError("abstract")

    cdef int on_cancelled(self, Request request, int64_t now_us) except -1:
        raise AssertionError("abstract")


cdef class Watcher:
    """Abstract."""

    cdef int on_end(self, Request request, Body answer, int code) except -1:
        raise AssertionError("abstract")


cdef class Rescue:
    """Abstract."""

    cdef bint can_take(self, Request request, int cause) except -1:
        raise AssertionError("abstract")

    cdef bint take(self, Request request, int code, str text) except -1:
        raise AssertionError("abstract")


cdef str shape_text(const int64_t* dims, int n_dims):
    return "[" + ",".join([str(dims[axis]) for axis in range(n_dims)]) + "]"


cdef object both_kinds(const WireInput* given, Signature signature):
    """In Triton's words."""
    return Refusal(
        INVALID_ARGUMENT,
        f"contents field must not be specified when using raw_input_contents for '{text_of(given.name)}' for model '{signature.model}'")


cdef inline str text_of(Span span):
    """For an error text: the head of a name that may have the length of a message."""
    return span.ptr[:min(span.len, <size_t>200)].decode("utf-8", "replace") if span.len else ""


@cython.final
@cython.no_gc
cdef class Request(Timed):
    """See request.pxd."""

    def __cinit__(self):
        counters.count(counters.KIND_REQUEST, 1)
        self.tensors = self.inside
        self.wanted = self.inside_wanted

    def __dealloc__(self):
        cdef int i
        for i in range(self.n_tensors):
            if self.tensors[i].is_owned:
                free(<void*>self.tensors[i].data)
                counters.count(counters.KIND_MEMORY, -1)
        if self.tensors != self.inside:
            free(self.tensors)
        if self.wanted != self.inside_wanted:
            free(self.wanted)
        counters.count(counters.KIND_REQUEST, -1)

    @staticmethod
    cdef Request new(Body body, Signature signature, Caller caller):
        cdef Request request = Request.__new__(Request)
        request.body = body
        request.signature = signature
        request.caller = caller
        request.state = REQUEST_NEW
        return request

    # --- binding to the signature ----------------------------------------------------------------------------------------------

    cdef int bind(self, Wire* wire) except -1:
        """Match inputs and outputs by name, check datatypes, shapes and sizes; Refusal names field, got and expected."""
        cdef Signature signature = self.signature
        cdef TensorRef* block
        cdef Span* raw
        cdef int position, index, next_raw = 0
        self.id = wire.id
        self.priority_given = wire.priority
        self.timeout_us = wire.timeout_us
        self.nbytes = self.body.length
        if signature.n_inputs > INLINE_TENSORS:
            block = <TensorRef*>malloc(signature.n_inputs * sizeof(TensorRef))
            if block == NULL:
                raise MemoryError("no memory for a request")
            self.tensors = block
        memset(self.tensors, 0, signature.n_inputs * sizeof(TensorRef))
        self.n_tensors = signature.n_inputs
        if wire.n_raws and wire.n_raws != wire.n_inputs:
            for position in range(wire.n_inputs):
                if wire.inputs[position].has_contents:
                    raise both_kinds(&wire.inputs[position], signature)
            raise Refusal(
                INVALID_ARGUMENT,
                f"raw_input_contents of {signature.describe()}: got {wire.n_raws} entries, expected {wire.n_inputs}, one for each input")
        for position in range(wire.n_inputs):
            index = position if position < signature.n_inputs else 0
            if not span_equals(wire.inputs[position].name, signature.inputs[index].name):
                for index in range(signature.n_inputs):
                    if span_equals(wire.inputs[position].name, signature.inputs[index].name):
                        break
                else:
                    raise Refusal(
                        INVALID_ARGUMENT,
                        f"inputs of {signature.describe()}: got '{text_of(wire.inputs[position].name)}', expected "
                        f"{signature.input_names()}")
            raw = NULL
            if wire.n_raws:
                raw = &wire.raws[next_raw]
                next_raw += 1
            self._bind_input(wire, index, position, raw)
        for index in range(signature.n_inputs):
            if self.tensors[index].data == NULL:
                raise Refusal(INVALID_ARGUMENT, f"{self._input(index)} is missing, expected {signature.input_names()}")
        if signature.batched:
            self.n_rows = self.tensors[0].dims[0]
            for index in range(1, signature.n_inputs):
                if self.tensors[index].dims[0] != self.n_rows:
                    raise Refusal(
                        INVALID_ARGUMENT,
                        f"{self._input(index)}: got {self.tensors[index].dims[0]} rows, expected {self.n_rows} as in {self._input(0)}")
        else:
            self.n_rows = 1
        self._bind_outputs(wire)
        return 0

    cdef int _bind_input(self, Wire* wire, int index, int position, Span* raw) except -1:
        cdef WireInput* given = &wire.inputs[position]
        cdef const TensorSpec* spec = &self.signature.inputs[index]
        cdef TensorRef* tensor = &self.tensors[index]
        cdef int64_t found
        cdef uint8_t* decoded
        cdef size_t wanted_nbytes
        if tensor.data != NULL:
            raise Refusal(INVALID_ARGUMENT, f"{self._input(index)} comes twice, expected once")
        if not datatype_is(spec.datatype, given.datatype):
            raise Refusal(
                INVALID_ARGUMENT,
                f"{self._input(index)}: got datatype {text_of(given.datatype) or 'none'}, expected "
                f"{GW_DATATYPES[spec.datatype].name.decode()}")
        self._bind_shape(given, index, position)
        if given.in_shared_memory:
            raise Refusal(UNIMPLEMENTED, f"{self._input(index)}: shared memory is not offered here, send raw_input_contents")
        if given.has_contents and raw != NULL:
            raise both_kinds(given, self.signature)
        if raw != NULL:
            tensor.data = raw.ptr
            tensor.nbytes = raw.len
            if spec.datatype != DT_BYTES:
                wanted_nbytes = <size_t>tensor.n_elements * datatype_size(spec.datatype)
                if raw.len != wanted_nbytes:
                    raise Refusal(
                        INVALID_ARGUMENT,
                        f"{self._input(index)}: got {raw.len} bytes in raw_input_contents, expected {wanted_nbytes} for shape "
                        f"{shape_text(tensor.dims, tensor.n_dims)} of {GW_DATATYPES[spec.datatype].name.decode()}")
            elif count_strings(tensor) != tensor.n_elements:
                raise strings_refusal(tensor, self._input(index))
        elif given.has_contents:
            decoded = NULL
            found = decode_contents(given, spec.datatype, &decoded, &tensor.nbytes, self.signature)
            if decoded != NULL:
                counters.count(counters.KIND_MEMORY, 1)
            tensor.is_owned = decoded != NULL
            tensor.data = decoded if decoded != NULL else self.body.data
            self.nbytes += tensor.nbytes
            if found != tensor.n_elements:
                raise Refusal(
                    INVALID_ARGUMENT,
                    f"{self._input(index)}: got {found} elements in contents, expected {tensor.n_elements} for shape "
                    f"{shape_text(tensor.dims, tensor.n_dims)}")
        elif tensor.n_elements == 0:
            tensor.data = self.body.data                      # nothing to read, but present
        else:
            raise Refusal(
                INVALID_ARGUMENT,
                f"unable to find data for input tensor '{text_of(given.name)}' for model '{self.signature.model}' in request: got neither "
                "contents nor raw_input_contents")
        if tensor.data == NULL:
            tensor.data = self.body.data
        return 0

    cdef int _bind_shape(self, void* wire_input, int index, int position) except -1:
        cdef WireInput* given = <WireInput*>wire_input
        cdef const TensorSpec* spec = &self.signature.inputs[index]
        cdef TensorRef* tensor = &self.tensors[index]
        cdef bint fits = given.n_dims == spec.n_dims
        cdef int64_t n = 1, extent = 1, dim                   # extent: without the zeros, as NumPy bounds an array's size
        cdef int axis
        if fits:
            for axis in range(spec.n_dims):
                dim = given.dims[axis]
                if dim < 0 or (spec.dims[axis] >= 0 and dim != spec.dims[axis]):
                    fits = False
        if not fits:
            hint = " (-1 is any)" if spec.is_variable or self.signature.batched else ""
            raise Refusal(
                INVALID_ARGUMENT,
                f"{self._input(index)}: got shape {shape_text(given.dims, given.n_dims)}, expected "
                f"{shape_text(spec.dims, spec.n_dims)}{hint}")
        tensor.n_dims = spec.n_dims
        for axis in range(spec.n_dims):
            dim = given.dims[axis]
            tensor.dims[axis] = dim
            if dim and extent > (<int64_t>1 << 40) // dim:
                raise Refusal(
                    INVALID_ARGUMENT,
                    f"{self._input(index)}: shape {shape_text(given.dims, given.n_dims)} has more elements than any message can carry")
            n *= dim
            extent *= max(dim, <int64_t>1)
            if spec.is_variable and (axis or not self.signature.batched):
                self.shape_key = (self.shape_key ^ <uint64_t>dim) * 0x100000001B3u + index
        tensor.n_elements = n
        return 0

    cdef int _bind_outputs(self, Wire* wire) except -1:
        cdef Signature signature = self.signature
        cdef int* block
        cdef int i, index, earlier
        self.n_wanted = wire.n_outputs if wire.n_outputs else signature.n_outputs
        if self.n_wanted > INLINE_WANTED:
            block = <int*>malloc(self.n_wanted * sizeof(int))
            if block == NULL:
                raise MemoryError("no memory for a request")
            self.wanted = block
        for i in range(self.n_wanted):
            index = i
            if wire.n_outputs:
                for index in range(signature.n_outputs):
                    if span_equals(wire.outputs[i], signature.outputs[index].name):
                        break
                else:
                    raise Refusal(
                        INVALID_ARGUMENT,
                        f"outputs of {signature.describe()}: got '{text_of(wire.outputs[i])}', expected {signature.output_names()}")
                for earlier in range(i):
                    if self.wanted[earlier] == index:
                        raise Refusal(
                            INVALID_ARGUMENT,
                            f"outputs of {signature.describe()}: '{text_of(wire.outputs[i])}' is asked for twice, expected once")
            self.wanted[i] = index
        return 0

    cdef str _input(self, int index):
        return f"input '{text_of(self.signature.inputs[index].name)}' of {self.signature.describe()}"

    cdef bint can_join(self, Request other) noexcept:
        """Whether the two may share a batch: same version, equal inner dimensions."""
        cdef int index, axis
        if self.shape_key != other.shape_key:
            return False
        if not self.signature.is_variable:
            return True
        for index in range(self.n_tensors):
            for axis in range(1, self.tensors[index].n_dims):
                if self.tensors[index].dims[axis] != other.tensors[index].dims[axis]:
                    return False
        return True

    # --- leaving ---------------------------------------------------------------------------------------------------------------

    cdef int settle(self, Body answer) except -1:
        cdef Caller caller = self.caller
        self.state = REQUEST_DONE
        self.rescue = None
        try:
            if caller is not None:
                self.caller = None
                caller.on_answer(self, answer)
        finally:
            self._tell_watcher(answer, 0)
        return 0

    cdef int fail(self, int code, str text) except -1:
        cdef Caller caller
        self.state = REQUEST_DONE
        rescue, self.rescue = self.rescue, None
        try:
            if self.caller is not None and (rescue is None or not (<Rescue>rescue).take(self, code, text)):
                caller, self.caller = self.caller, None
                caller.on_failure(self, code, text)
        finally:
            self._tell_watcher(None, code)
        return 0

    cdef int cancel(self, int64_t now_us=0) except -1:
        self.caller = self.rescue = None
        if self.holder is not None and self.state != REQUEST_DONE:
            self.holder.on_cancelled(self, now_us)
        return 0

    cdef int _tell_watcher(self, Body answer, int code) except -1:
        if self.watcher is not None:
            watcher, self.watcher = self.watcher, None
            (<Watcher>watcher).on_end(self, answer, code)
        return 0

    cdef int fire(self, int64_t now_us) except -1:
        """The deadline came first."""
        if self.holder is not None and self.state != REQUEST_DONE:
            self.holder.on_expired(self, now_us)
        return 0


cdef int64_t count_strings(TensorRef* tensor) noexcept:
    """Elements found, or -1 - index of the element that is cut short, or INT64_MIN + index of the one that is not UTF-8."""
    cdef size_t at = 0
    cdef int64_t found = 0
    cdef uint32_t n
    cdef Span span
    while at < tensor.nbytes:
        if tensor.nbytes - at < 4:
            return -1 - found
        memcpy(&n, tensor.data + at, 4)
        at += 4
        if n > tensor.nbytes - at:
            return -1 - found
        span.ptr, span.len = tensor.data + at, n
        if not is_utf8(span):
            return (-<int64_t>0x7FFFFFFFFFFFFFFF - 1) + found
        at += n
        found += 1
    return found


cdef object strings_refusal(TensorRef* tensor, str what):
    cdef int64_t found = count_strings(tensor)
    if found >= 0:
        return Refusal(
            INVALID_ARGUMENT,
            f"{what}: got {found} strings in raw_input_contents, expected {tensor.n_elements} for shape "
            f"{shape_text(tensor.dims, tensor.n_dims)}")
    if found < -(<int64_t>1 << 62):
        return Refusal(INVALID_ARGUMENT, f"{what}: element {found + 0x7FFFFFFFFFFFFFFF + 1} is not valid UTF-8, expected text")
    return Refusal(
        INVALID_ARGUMENT,
        f"{what}: element {-1 - found} is cut short in raw_input_contents, expected a 4-byte little-endian length and that many bytes")
