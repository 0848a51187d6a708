"""A batch: gathered, run, halved when it fails, encoded."""
cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from gateway.native cimport counters
from gateway.native.blocks cimport MIN_BLOCK_BYTES, Loan
from gateway.native.body cimport Body
from gateway.native.clock cimport monotonic_us, thread_cpu_us
from gateway.native.codec cimport OutputView, encode_response
from gateway.native.cursor cimport Span
from gateway.native.datatype cimport DT_BYTES, datatype_size
from gateway.native.refusal cimport INTERNAL, N_CODES
from gateway.native.request cimport REQUEST_DONE, Holder, Request, TensorRef
from gateway.native.seen cimport look_at
from gateway.native.signature cimport MAX_DIMS, Signature, TensorSpec

import numpy as np

from gateway.native.refusal import Refusal

cnp.import_array()

cdef enum:
    NOGIL_MIN_BYTES = 65536   # below this, giving up the GIL costs more than the copy
    IN_PLACE_ALIGNMENT = 16   # as NumPy's own memory has it, so that a model sees no difference
    MAX_OUTPUTS_INLINE = 8


class BatchMismatch(Exception):
    """The model's answer does not fit its own signature or the batch: wrong for every member."""


@cython.final
cdef class Batch:
    """See batch.pxd. Python sees perform-time facts only."""

    def __cinit__(self, Signature signature not None, lane):
        counters.count(counters.KIND_BATCH, 1)
        self.signature = signature
        self.lane = lane
        self.members, self.results = [], []

    def __dealloc__(self):
        free(self.slices)
        counters.count(counters.KIND_BATCH, -1)

    cdef int add(self, Request request, int64_t first, int64_t n_rows) except -1:
        cdef Slice* grown
        if self.n_members == self.capacity:
            self.capacity = self.capacity * 2 if self.capacity else 16
            grown = <Slice*>realloc(self.slices, self.capacity * sizeof(Slice))
            if grown == NULL:
                raise MemoryError("no memory for a batch")
            self.slices = grown
        self.slices[self.n_members].first = first
        self.slices[self.n_members].n_rows = n_rows
        self.n_members += 1
        self.n_rows += n_rows
        self.nbytes += request.nbytes if n_rows == request.n_rows else request.nbytes * n_rows // request.n_rows
        self.has_marked = self.has_marked or request.mark != 0
        self.members.append(request)
        self.results.append(None)
        return 0

    cdef bint has_part(self) noexcept:
        cdef int i
        for i in range(self.n_members):
            if self.slices[i].n_rows != (<Request>self.members[i]).n_rows:
                return True
        return False

    def execute(self, run):
        """Run it with `run(inputs: list[ndarray]) -> list[ndarray]`; any thread, once."""
        self.perform(run)

    cdef int perform(self, object run) except -1:
        cdef int64_t began = thread_cpu_us() if self.counts_cpu else monotonic_us()
        try:
            if self.inputs is None or not self._run_only(run):
                self._run(run, 0, self.n_members)
        except BaseException as error:                        # members without a result are answered INTERNAL
            self.has_failed = True
            self._record(error)
        self.cost_us = (thread_cpu_us() if self.counts_cpu else monotonic_us()) - began
        return 0

    cdef int prepare(self) except -1:
        self.inputs = self._gather(0, self.n_members)
        return 0

    cdef bint _run_only(self, object run) except -1:
        """Whether that was all. A run that fails is made again, in halves, for the guilty one."""
        try:
            self.outputs = run(self.inputs)
            self._check(self.outputs, self.n_rows, False)
            return True
        except Exception:
            self.inputs = self.outputs = None
            return False

    cdef int conclude(self, int high) except -1:
        self.n_rows_concluded = self._scatter(self.outputs, self.n_concluded, high, self.n_rows_concluded)
        self.n_concluded = high
        if high == self.n_members and self.monitor is not None:
            self._watch(0, high, self.inputs, self.outputs)
        return 0

    cdef int _run(self, object run, int low, int high) except -1:
        """Members low..high; a failing range is halved until the guilty request fails alone."""
        cdef int i, middle
        cdef int64_t n_rows = 0
        for i in range(low, high):
            n_rows += self.slices[i].n_rows
        try:
            inputs = self._gather(low, high)
            outputs = run(inputs)
            self._check(outputs, n_rows, False)
            self._scatter(outputs, low, high, 0)
            if self.has_marked:
                self._look(low, high, outputs)
            if self.monitor is not None:
                self._watch(low, high, inputs, outputs)
            return 0
        except BatchMismatch as error:
            self.has_failed = True
            self._record(error)
            for i in range(low, high):
                (<Request>self.members[i]).seen.is_broken = True
                self.results[i] = (INTERNAL, f"{self.signature.describe()} gave an answer that does not fit its signature")
            return 0
        except Exception as error:
            self.has_failed = True
            if high - low == 1:
                code = getattr(error, "code", None)
                if not isinstance(code, int) or not 0 < code < N_CODES:     # not ours: other libraries' errors have codes too
                    self._record(error)
                    self.results[low] = (INTERNAL, f"{self.signature.describe()} failed on this request")
                else:
                    if code == INTERNAL:
                        self._record(error)
                    self.results[low] = (<int>code, str(error))
                return 0
        middle = (low + high) // 2
        self._run(run, low, middle)
        return self._run(run, middle, high)

    cdef int _watch(self, int low, int high, list inputs, list outputs) except -1:
        """Whatever goes wrong here is nothing to the members."""
        try:
            self.monitor.observe(self.members, self.slices, low, high, inputs, outputs, monotonic_us())
        except Exception as error:
            self._record(error)
        return 0

    cdef int _look(self, int low, int high, list outputs) except -1:
        try:
            look_at(self.signature, self.members, self.slices, low, high, outputs)
        except Exception as error:
            self._record(error)
        return 0

    def _record(self, error):
        if self.errors is None:
            self.errors = []
        self.errors.append(error)

    # --- a run elsewhere, on the loop thread -----------------------------------------------------------------------------------

    def begin(self):
        """It is on its way."""
        self.began_us = monotonic_us()

    @property
    def deadline_us(self):
        """When the last of those who wait gives up, in monotonic microseconds; 0: somebody waits for ever."""
        cdef Request request
        cdef int64_t latest_us = 0
        for request in self.members:
            if request.state != REQUEST_DONE:
                if request.deadline_us == 0:
                    return 0
                latest_us = max(latest_us, request.deadline_us, request.final_deadline_us)
        return latest_us

    @property
    def is_abandoned(self):
        """Nobody waits for any of it."""
        cdef Request request
        for request in self.members:
            if request.state != REQUEST_DONE:
                return False
        return True

    @property
    def trace(self):
        """The first member's traceparent, or None."""
        return (<Request>self.members[0]).trace

    @property
    def forwarded(self):
        """The first member's headers that the deployment forwards, as [(name, value)], or None."""
        return (<Request>self.members[0]).parameters

    @property
    def is_watched(self):
        """Somebody counts its values."""
        return self.monitor is not None

    def gather(self, int low, int high):
        """The inputs of members low..high as arrays."""
        if not 0 <= low < high <= self.n_members:
            raise ValueError(f"members {low}..{high} of {self.n_members}")
        return self._gather(low, high)

    def accept(self, int low, int high, outputs):
        """Members low..high have these outputs, which may be unaligned; whether they fit. Who they do not fit is answered INTERNAL."""
        cdef int64_t n_rows = 0
        cdef int i
        cdef Holder holder
        if not 0 <= low < high <= self.n_members:
            raise ValueError(f"members {low}..{high} of {self.n_members}")
        for i in range(low, high):
            n_rows += self.slices[i].n_rows
        try:
            self._check(outputs, n_rows, True)
        except BatchMismatch as error:
            for i in range(low, high):
                (<Request>self.members[i]).seen.is_broken = True
            self.refuse(low, high, INTERNAL, f"{self.signature.describe()} gave an answer that does not fit its signature", error)
            return False
        holder = (<Request>self.members[low]).holder
        if self.has_marked or self.monitor is not None or holder is not None and holder.stamp is not None:
            outputs = [np.require(array, requirements="A") for array in outputs]
        self._scatter(outputs, low, high, 0)
        if self.has_marked:
            self._look(low, high, outputs)
        if self.monitor is not None:
            inputs = self._gather(low, high) if wants_inputs(self.monitor) else None
            self._watch(low, high, inputs, outputs)
        return True

    def refuse(self, int low, int high, int code, str text not None, error=None):
        """Members low..high get no answer: what their callers hear, and what the log hears."""
        cdef int i
        if not 0 <= low < high <= self.n_members or not 0 < code < N_CODES:
            raise ValueError(f"members {low}..{high} of {self.n_members}, code {code}")
        self.has_failed = True
        if error is not None:
            self._record(error)
        for i in range(low, high):
            self.results[i] = (code, text)

    def end(self, bint is_typical=True):
        """It is back; the lane completes it. `is_typical`: what it took says what such a batch takes."""
        self.cost_us = monotonic_us() - self.began_us
        self.has_failed = self.has_failed or not is_typical

    # --- rows in ---------------------------------------------------------------------------------------------------------------

    cdef list _gather(self, int low, int high):
        cdef Signature signature = self.signature
        cdef Py_ssize_t dims[MAX_DIMS]
        cdef const TensorSpec* spec
        cdef const TensorRef* tensor
        cdef uint8_t* to
        cdef size_t row_nbytes, total
        cdef int index, axis, i
        cdef int64_t n_rows = 0
        cdef Request request
        cdef list arrays = self.buffers if self.buffers is not None and high - low == self.n_members else []
        cdef bint is_buffered = arrays is self.buffers
        for i in range(low, high):
            n_rows += self.slices[i].n_rows
        for index in range(signature.n_inputs):
            spec = &signature.inputs[index]
            tensor = &(<Request>self.members[low]).tensors[index]
            for axis in range(spec.n_dims):
                dims[axis] = tensor.dims[axis]
            if signature.batched:
                dims[0] = n_rows
            if spec.datatype == DT_BYTES:
                arrays.append(self._gather_strings(index, low, high, dims))
                continue
            if is_buffered:
                array = arrays[index]
            else:
                array = self._in_place(low, index, dims) if high - low == 1 else None
                if array is not None:
                    arrays.append(array)
                    continue
                array = new_array(spec, dims)
                arrays.append(array)
            to = <uint8_t*>cnp.PyArray_DATA(array)
            total = cnp.PyArray_NBYTES(array)
            if total >= NOGIL_MIN_BYTES and high - low == 1:
                row_nbytes = tensor.nbytes // <size_t>max(1, (<Request>self.members[low]).n_rows)
                with nogil:
                    memcpy(to, tensor.data + self.slices[low].first * row_nbytes, total)
                continue
            for i in range(low, high):
                request = <Request>self.members[i]
                tensor = &request.tensors[index]
                if request.n_rows <= 0:
                    continue
                row_nbytes = tensor.nbytes // <size_t>request.n_rows
                memcpy(to, tensor.data + self.slices[i].first * row_nbytes, self.slices[i].n_rows * row_nbytes)
                to += self.slices[i].n_rows * row_nbytes
        return arrays

    cdef object _in_place(self, int member, int index, Py_ssize_t* dims):
        """A large tensor of a batch's only member, where its message has it: an array that holds the request. None: it is copied."""
        cdef const TensorSpec* spec = &self.signature.inputs[index]
        cdef Request request = <Request>self.members[member]
        cdef const TensorRef* tensor = &request.tensors[index]
        cdef Slice* rows = &self.slices[member]
        cdef size_t row_nbytes = tensor.nbytes // <size_t>max(1, request.n_rows)
        cdef const uint8_t* data = tensor.data + rows.first * row_nbytes
        if rows.n_rows * row_nbytes < IN_PLACE_MIN_BYTES or <uintptr_t>data & (IN_PLACE_ALIGNMENT - 1):
            return None
        array = cnp.PyArray_SimpleNewFromData(spec.n_dims, <cnp.npy_intp*>dims, spec.typenum, <void*>data)
        cnp.PyArray_CLEARFLAGS(array, cnp.NPY_ARRAY_WRITEABLE)    # a shadow may read it too, and a fallback after us
        cnp.set_array_base(array, request)
        return array

    cdef object _gather_strings(self, int index, int low, int high, Py_ssize_t* dims):
        """Python strings in an object array: the only form in which ONNX Runtime's Python API takes them."""
        cdef const TensorSpec* spec = &self.signature.inputs[index]
        cdef const TensorRef* tensor
        cdef const uint8_t* at
        cdef PyObject** cell
        cdef int64_t skip, take
        cdef uint32_t n
        cdef int i
        cdef Request request
        array = np.empty(tuple([dims[axis] for axis in range(spec.n_dims)]), object)
        cell = <PyObject**>cnp.PyArray_DATA(array)
        for i in range(low, high):
            request = <Request>self.members[i]
            tensor = &request.tensors[index]
            if request.n_rows <= 0:
                continue
            skip = self.slices[i].first * (tensor.n_elements // request.n_rows)
            take = self.slices[i].n_rows * (tensor.n_elements // request.n_rows)
            at = tensor.data
            while skip + take:
                memcpy(&n, at, 4)
                if skip:
                    skip -= 1
                else:
                    text = PyUnicode_DecodeUTF8(<const char*>at + 4, n, NULL)
                    Py_XDECREF(cell[0])
                    Py_INCREF(text)
                    cell[0] = <PyObject*>text
                    cell += 1
                    take -= 1
                at += 4 + n
        return array

    # --- rows out --------------------------------------------------------------------------------------------------------------

    cdef int _check(self, object outputs, int64_t n_rows, bint may_be_unaligned) except -1:
        cdef Signature signature = self.signature
        cdef const TensorSpec* spec
        cdef int index
        if not isinstance(outputs, list) or len(outputs) != signature.n_outputs:
            came = f"{len(outputs)} outputs" if isinstance(outputs, list) else type(outputs).__name__
            raise BatchMismatch(f"{signature.describe()}: got {came}, expected a list of {signature.n_outputs} arrays")
        for index in range(signature.n_outputs):
            spec = &signature.outputs[index]
            array = outputs[index]
            if not (isinstance(array, np.ndarray) and cnp.PyArray_EquivTypenums(cnp.PyArray_TYPE(array), spec.typenum)
                    and (cnp.PyArray_ISCARRAY_RO(array) or may_be_unaligned and cnp.PyArray_IS_C_CONTIGUOUS(array))):
                raise BatchMismatch(
                    f"output '{spec.name.ptr[:spec.name.len].decode()}' of {signature.describe()}: got {type(array).__name__} of "
                    f"{getattr(array, 'dtype', '?')}, expected an aligned C-contiguous array of NumPy type {spec.typenum} in native byte "
                    "order")
            if cnp.PyArray_NDIM(array) > MAX_DIMS or signature.batched and (
                    cnp.PyArray_NDIM(array) < 1 or cnp.PyArray_DIM(array, 0) != n_rows):
                raise BatchMismatch(
                    f"output '{spec.name.ptr[:spec.name.len].decode()}' of {signature.describe()}: got shape {array.shape}, expected "
                    f"{n_rows} rows")
        return 0

    cdef int64_t _scatter(self, list outputs, int low, int high, int64_t row) except -1:
        cdef int i
        cdef Request request
        for i in range(low, high):
            request = <Request>self.members[i]
            if request.caller is not None:                    # nobody waits for a cancelled member
                if self.slices[i].n_rows == request.n_rows:
                    try:
                        self.results[i] = encode_rows(request, outputs, row, request.n_rows)
                    except Refusal as refusal:
                        self.results[i] = (refusal.code, refusal.text)
                else:
                    self.results[i] = (self.slices[i].first, [array[row:row + self.slices[i].n_rows] for array in outputs])
            row += self.slices[i].n_rows
        return row


cdef object new_array(const TensorSpec* spec, Py_ssize_t* dims):
    """Without values; a large one in a block that the next batch uses again."""
    cdef size_t nbytes = datatype_size(spec.datatype)
    cdef int axis
    for axis in range(spec.n_dims):
        nbytes *= <size_t>dims[axis]                          # no more than the messages that it is for
    if nbytes < MIN_BLOCK_BYTES:
        return cnp.PyArray_SimpleNew(spec.n_dims, <cnp.npy_intp*>dims, spec.typenum)
    loan = Loan(nbytes)
    array = cnp.PyArray_SimpleNewFromData(spec.n_dims, <cnp.npy_intp*>dims, spec.typenum, (<Loan>loan).at)
    cnp.set_array_base(array, loan)
    return array


cdef bint wants_inputs(Monitor monitor) noexcept:
    """Whether it counts any of them: without a profile it looks at outputs alone."""
    cdef int i
    for i in range(monitor.signature.n_inputs):
        if monitor.sources[i].is_wanted:
            return True
    return False


cdef bytes packed_strings(object array, int64_t first, int64_t count):
    """Elements first..first+count of an object array, length-prefixed."""
    cdef PyObject** cells = <PyObject**>cnp.PyArray_DATA(array)
    cdef list pieces = []
    cdef int64_t i
    cdef uint32_t n
    for i in range(first, first + count):
        element = <object>cells[i]
        if isinstance(element, str):
            raw = (<str>element).encode()
        elif isinstance(element, bytes):
            raw = element
        else:                                                 # bytes(3) would be three zeros
            raise TypeError(f"element {i} of a BYTES output: got {type(element).__name__}, expected str or bytes")
        n = <uint32_t>len(raw)
        pieces.append((<char*>&n)[:4])
        pieces.append(raw)
    return b"".join(pieces)


cdef Body encode_rows(Request request, list outputs, int64_t first, int64_t n_rows):
    """The answer to one request from rows first..first+n_rows of the batch's outputs (all of them when there is no batch dimension)."""
    cdef Signature signature = request.signature
    cdef OutputView inside[MAX_OUTPUTS_INLINE]
    cdef OutputView* views = inside
    cdef OutputView* view
    cdef Span parameters
    cdef bytes added, stamped
    cdef int i, axis
    cdef int64_t row_elements
    cdef list keep = None
    if request.n_wanted > MAX_OUTPUTS_INLINE:
        views = <OutputView*>realloc(NULL, request.n_wanted * sizeof(OutputView))
        if views == NULL:
            raise MemoryError("no memory for an answer")
    try:
        for i in range(request.n_wanted):
            view = &views[i]
            array = outputs[request.wanted[i]]
            view.spec = &signature.outputs[request.wanted[i]]
            view.n_dims = cnp.PyArray_NDIM(array)
            for axis in range(view.n_dims):
                view.dims[axis] = cnp.PyArray_DIM(array, axis)
            view.data = <const uint8_t*>cnp.PyArray_DATA(array)
            view.nbytes = cnp.PyArray_NBYTES(array)
            row_elements = cnp.PyArray_SIZE(array)
            if signature.batched:
                row_elements = row_elements // view.dims[0] if view.dims[0] else 0
                view.nbytes = view.nbytes // view.dims[0] if view.dims[0] else 0
                view.data += first * view.nbytes
                view.nbytes *= n_rows
                view.dims[0] = n_rows
            if view.spec.datatype == DT_BYTES:
                packed = (packed_strings(array, first * row_elements, n_rows * row_elements) if signature.batched
                          else packed_strings(array, 0, row_elements))
                if keep is None:
                    keep = []
                keep.append(packed)
                view.data, view.nbytes = <const uint8_t*>PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed)
        parameters.ptr, parameters.len = NULL, 0
        added = request.answer_parameters
        if request.holder is not None and request.holder.stamp is not None:
            stamped = request.holder.stamp.parameters_of(request, outputs, first, n_rows)
            added = stamped if added is None else added if stamped is None else added + stamped
        if added is not None:
            parameters.ptr, parameters.len = <const uint8_t*>PyBytes_AS_STRING(added), PyBytes_GET_SIZE(added)
        return encode_response(signature, request.id, parameters, views, request.n_wanted, request.streamed)
    finally:
        if views != inside:
            free(views)
