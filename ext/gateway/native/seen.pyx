"""One look at each answer that is weighed."""
cimport numpy as cnp
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from gateway.native.batch cimport Slice
from gateway.native.compare cimport read_numbers
from gateway.native.cursor cimport Span
from gateway.native.datatype cimport DT_BF16, DT_BYTES, DT_FP16, DT_FP32, DT_FP64, datatype_size
from gateway.native.request cimport Request, TensorRef
from gateway.native.scales cimport MAX_WEIGHED, Scales, Seen, value_cell
from gateway.native.signature cimport Signature, TensorSpec
from gateway.native.sketch cimport hash_text, mix

cnp.import_array()

cdef enum:
    MAX_EACH = 8              # values of a row that are columns of their own; of more the largest and its place
    MAX_RANKED = 4096         # values of a row among which the largest is looked for
    WHOLE_BYTES = 512         # of a tensor that is hashed whole; of a larger one
    SAMPLED_WORDS = 64        # are: requests that differ elsewhere are taken for equal, which accuses nobody
    NOGIL_MIN_BYTES = 65536
    BLOCK = 64
    N_CLASSES = 512           # cells of places and of words


cdef struct Output:           # of a batch
    const uint8_t* data       # NULL: texts
    PyObject** texts
    int64_t row_elements
    int datatype
    bint is_each


cdef bint is_float(int datatype) noexcept nogil:
    return datatype == DT_FP32 or datatype == DT_FP64 or datatype == DT_FP16 or datatype == DT_BF16


cdef bint is_each(const TensorSpec* spec) noexcept nogil:
    """Whether each value of a row is a column."""
    return 0 <= spec.row_elements <= MAX_EACH and (spec.datatype != DT_BYTES or spec.row_elements == 1)


cdef bint has_no_number(int datatype, const uint8_t* data, int64_t n) noexcept nogil:
    """NaN or infinity among n floating point values."""
    cdef const uint32_t* words
    cdef const uint64_t* longs
    cdef const uint16_t* shorts
    cdef uint16_t mask = 0x7F80 if datatype == DT_BF16 else 0x7C00
    cdef bint found = False
    cdef int64_t i
    if datatype == DT_FP32:
        words = <const uint32_t*>data
        for i in range(n):
            found |= (words[i] & 0x7F800000u) == 0x7F800000u
    elif datatype == DT_FP64:
        longs = <const uint64_t*>data
        for i in range(n):
            found |= (longs[i] & 0x7FF0000000000000u) == 0x7FF0000000000000u
    else:
        shorts = <const uint16_t*>data
        for i in range(n):
            found |= (shorts[i] & mask) == mask
    return found


cdef bint is_odd_input(Request request) noexcept nogil:
    """The caller's own NaN or infinity: who says it back is not broken."""
    cdef const TensorSpec* spec
    cdef const TensorRef* tensor
    cdef uint8_t block[BLOCK * 8]
    cdef int64_t done, n
    cdef int index, size
    for index in range(request.n_tensors):
        spec, tensor = &request.signature.inputs[index], &request.tensors[index]
        if not is_float(spec.datatype):
            continue
        size, done = datatype_size(spec.datatype), 0
        while done < tensor.n_elements:                       # the wire aligns nothing
            n = min(tensor.n_elements - done, <int64_t>BLOCK)
            memcpy(block, tensor.data + done * size, n * size)
            if has_no_number(spec.datatype, block, n):
                return True
            done += n
    return False


cdef uint64_t hash_sample(uint64_t h, const uint8_t* data, size_t n) noexcept nogil:
    """All of a small tensor; of a large one words that lie evenly over it."""
    cdef Span span
    cdef uint64_t word
    cdef size_t i, step
    if n <= WHOLE_BYTES:
        span.ptr, span.len = data, n
        return mix(h ^ hash_text(span))
    step = (n - 8) // (SAMPLED_WORDS - 1)
    for i in range(SAMPLED_WORDS):
        memcpy(&word, data + i * step, 8)
        h = mix(h ^ word)
    return h


cdef int cell_of(const Output* output, int64_t at) except -1:
    """Of one value."""
    cdef double number
    cdef uint64_t bits
    if output.data == NULL:
        return 4 + <int>(word_hash(<object>output.texts[at]) % N_CLASSES)
    read_numbers(output.datatype, output.data + at * datatype_size(output.datatype), 1, &number)
    memcpy(&bits, &number, 8)
    return value_cell(bits)


cdef uint64_t word_hash(object word) except? 0:
    """The same in every process, unlike Python's."""
    cdef bytes raw = word.encode() if isinstance(word, str) else bytes(word)
    cdef Span span
    span.ptr, span.len = raw, len(raw)
    return hash_text(span)


cdef int note_largest(const Output* output, int64_t first, uint16_t* place, uint16_t* size) noexcept nogil:
    """The place of a row's largest value, and into which cell that falls; NaN is smaller than all."""
    cdef double block[BLOCK]
    cdef double largest = 0
    cdef int64_t best = -1, done = 0, n, total = min(output.row_elements, <int64_t>MAX_RANKED)
    cdef uint64_t bits
    cdef int i, width = datatype_size(output.datatype)
    while done < total:
        n = min(total - done, <int64_t>BLOCK)
        read_numbers(output.datatype, output.data + (first + done) * width, n, block)
        for i in range(<int>n):
            if block[i] == block[i] and (best < 0 or block[i] > largest):
                best, largest = done + i, block[i]
        done += n
    memcpy(&bits, &largest, 8)
    place[0] = <uint16_t>(4 + min(best, <int64_t>N_CLASSES - 1)) if best >= 0 else 0
    size[0] = <uint16_t>value_cell(bits) if best >= 0 else 0
    return 0


cdef int look(Request request, const Output* outputs, int n_outputs, int64_t row, int64_t n_rows) except -1:
    cdef Seen* seen = &request.seen
    cdef const Output* output
    cdef bint is_odd = False
    cdef int64_t at, k, first
    cdef size_t n_bytes
    cdef int index, column = 0
    for index in range(n_outputs):
        output = &outputs[index]
        if output.data == NULL or not is_float(output.datatype):
            continue
        n_bytes = n_rows * output.row_elements * datatype_size(output.datatype)
        first = row * output.row_elements * datatype_size(output.datatype)
        if n_bytes > NOGIL_MIN_BYTES:
            with nogil:
                is_odd |= has_no_number(output.datatype, output.data + first, n_rows * output.row_elements)
        else:
            is_odd |= has_no_number(output.datatype, output.data + first, n_rows * output.row_elements)
    if is_odd and not is_odd_input(request):
        seen.is_broken = True
    if seen.is_known or n_rows <= 0:                          # another slice of it was looked at before
        return 0
    seen.given = seen.said = <uint64_t>n_rows
    for index in range(request.n_tensors):
        seen.given = hash_sample(seen.given, request.tensors[index].data, request.tensors[index].nbytes)
    # One row, for the others of a request go the same way; which one has nothing to do with the arm.
    at = row + <int64_t>(mix(<uint64_t>request.arrived_us ^ seen.given) % <uint64_t>n_rows)
    for index in range(n_outputs):
        output = &outputs[index]
        first = at * output.row_elements
        if output.data == NULL:
            if output.row_elements:
                seen.said = mix(seen.said ^ word_hash(<object>output.texts[row * output.row_elements]))
        else:
            n_bytes = n_rows * output.row_elements * datatype_size(output.datatype)
            seen.said = hash_sample(
                seen.said, output.data + row * output.row_elements * datatype_size(output.datatype), n_bytes)
        if output.is_each:
            for k in range(output.row_elements):
                if column < MAX_WEIGHED:
                    seen.cells[column] = <uint16_t>cell_of(output, first + k)
                    column += 1
        elif output.data != NULL and column + 2 <= MAX_WEIGHED:
            note_largest(output, first, &seen.cells[column], &seen.cells[column + 1])
            column += 2
    seen.n_columns = column
    seen.is_known = True
    return 0


cdef int look_at(Signature signature, list members, void* slices, int low, int high, list outputs) except -1:
    """Members low..high ran together; their rows lie one after the other."""
    cdef Slice* slice_ = <Slice*>slices
    cdef Output* found = <Output*>malloc(max(signature.n_outputs, 1) * sizeof(Output))
    cdef int64_t n_rows = 0, row = 0
    cdef int i, index
    cdef Request request
    if found == NULL:
        raise MemoryError("no memory to look at a batch")
    try:
        for i in range(low, high):
            n_rows += slice_[i].n_rows
        for index in range(signature.n_outputs):
            array = outputs[index]
            found[index].datatype = signature.outputs[index].datatype
            found[index].is_each = is_each(&signature.outputs[index])
            found[index].row_elements = cnp.PyArray_SIZE(array) // n_rows if n_rows else 0
            found[index].data, found[index].texts = <const uint8_t*>cnp.PyArray_DATA(array), <PyObject**>cnp.PyArray_DATA(array)
            if found[index].datatype == DT_BYTES:
                found[index].data = NULL
        for i in range(low, high):
            request = <Request>members[i]
            if request.mark:
                name_columns(request.arm.scales, request.arm.side, signature)
                look(request, found, signature.n_outputs, row, slice_[i].n_rows)
            row += slice_[i].n_rows
    finally:
        free(found)
    return 0


cdef int name_columns(Scales scales, int side, Signature signature) except -1:
    if scales.columns[side] is None:
        scales.columns[side] = columns_of(signature)
    return 0


cdef list columns_of(Signature signature):
    cdef const TensorSpec* spec
    cdef int index
    cdef list names = []
    for index in range(signature.n_outputs):
        spec = &signature.outputs[index]
        name = spec.name.ptr[:spec.name.len].decode()
        if is_each(spec):
            each = [name] if spec.row_elements == 1 else [f"{name}[{k}]" for k in range(spec.row_elements)]
            names += each[:MAX_WEIGHED - len(names)]
        elif spec.datatype != DT_BYTES and len(names) + 2 <= MAX_WEIGHED:
            names += [f"{name}.place", f"{name}.largest"]
    return names
