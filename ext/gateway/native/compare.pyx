"""How far two answers to one request are apart.

All numbers are compared as doubles, in blocks that stay in the cache: one loop for every datatype, also between two (a version that
answers FP16 beside one that answers FP32). 64-bit integers are told apart exactly and ranked as doubles.
"""
from libc.math cimport INFINITY, fabs, isfinite, isnan
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from gateway.native.codec cimport GRPC_PREFIX_BYTES
from gateway.native.cursor cimport (
    WIRE_BYTES, WIRE_VARINT, Cursor, Span, cursor_over, read_bytes, read_tag, read_varint, skip_field, span_equals)
from gateway.native.datatype cimport (
    DT_BF16, DT_BOOL, DT_BYTES, DT_FP16, DT_FP32, DT_FP64, DT_INT8, DT_INT16, DT_INT32, DT_INT64, DT_INVALID, DT_UINT8, DT_UINT16,
    DT_UINT32, DT_UINT64, GW_DATATYPES, N_DATATYPES, datatype_is, datatype_size)

cdef enum:
    BLOCK = 256               # elements a side: 4 kB of doubles


# --- reading an answer of ours -------------------------------------------------------------------------------------------------

cdef int read_answer(Span body, bint streamed, TensorView* views, int room) noexcept nogil:
    cdef Cursor c
    cdef uint32_t field
    cdef int wire_type, n_outputs = 0, n_raws = 0
    cdef Span span
    if body.len < GRPC_PREFIX_BYTES:
        return -1
    body.ptr += GRPC_PREFIX_BYTES
    body.len -= GRPC_PREFIX_BYTES
    c = cursor_over(body)
    if streamed:                                              # ModelStreamInferResponse.infer_response
        if read_tag(&c, &field, &wire_type) < 0 or field != 2 or wire_type != WIRE_BYTES or read_bytes(&c, &span) < 0:
            return -1
        c = cursor_over(span)
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0:
            return -1
        if wire_type != WIRE_BYTES or (field != 5 and field != 6):
            if skip_field(&c, field, wire_type) < 0:
                return -1
            continue
        if read_bytes(&c, &span) < 0:
            return -1
        if field == 5:
            if n_outputs < room and read_output(span, &views[n_outputs]) < 0:
                return -1
            n_outputs += 1
        else:
            if n_raws < room and n_raws < n_outputs:
                views[n_raws].data, views[n_raws].nbytes = span.ptr, span.len
            n_raws += 1
    return n_outputs if n_raws == n_outputs else -1


cdef int read_output(Span message, TensorView* view) noexcept nogil:
    cdef Cursor c = cursor_over(message)
    cdef Cursor packed
    cdef uint32_t field
    cdef int wire_type, number
    cdef uint64_t dim
    cdef Span span
    memset(view, 0, sizeof(TensorView))
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0:
            return -1
        if field == 3 and wire_type == WIRE_VARINT:
            if read_varint(&c, &dim) < 0 or view.n_dims == MAX_DIMS:
                return -1
            view.dims[view.n_dims] = <int64_t>dim
            view.n_dims += 1
            continue
        if wire_type != WIRE_BYTES or field > 3:
            if skip_field(&c, field, wire_type) < 0:
                return -1
            continue
        if read_bytes(&c, &span) < 0:
            return -1
        if field == 1:
            view.name = span
        elif field == 2:
            for number in range(1, <int>N_DATATYPES):
                if datatype_is(number, span):
                    view.datatype = number
        else:
            packed = cursor_over(span)
            while packed.at < packed.end:
                if read_varint(&packed, &dim) < 0 or view.n_dims == MAX_DIMS:
                    return -1
                view.dims[view.n_dims] = <int64_t>dim
                view.n_dims += 1
    return 0


# --- numbers -------------------------------------------------------------------------------------------------------------------

ctypedef fused number_t:
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t
    float
    double


cdef void widen(number_t* kind, const uint8_t* at, int64_t n, double* out) noexcept nogil:
    """`kind` only names the type. The bytes come from the wire: unaligned."""
    cdef number_t value
    cdef int64_t i
    for i in range(n):
        memcpy(&value, at + i * sizeof(number_t), sizeof(number_t))
        out[i] = <double>value


cdef void widen_short_floats(bint is_bf16, const uint8_t* at, int64_t n, double* out) noexcept nogil:
    cdef uint16_t bits
    cdef uint32_t wide, exponent, fraction
    cdef float value
    cdef int64_t i
    for i in range(n):
        memcpy(&bits, at + 2 * i, 2)
        if is_bf16:
            wide = <uint32_t>bits << 16
        else:
            exponent, fraction = (bits >> 10) & 0x1F, bits & 0x3FF
            if exponent == 0:                                 # zero or subnormal: fraction * 2**-24
                out[i] = (-1.0 if bits & 0x8000 else 1.0) * fraction / 16777216.0
                continue
            wide = (<uint32_t>(bits & 0x8000) << 16) | ((0xFF if exponent == 31 else exponent + 112) << 23) | (fraction << 13)
        memcpy(&value, &wide, 4)
        out[i] = value


cdef int read_numbers(int datatype, const uint8_t* at, int64_t n, double* out) noexcept nogil:
    if datatype == DT_FP32:
        widen(<float*>NULL, at, n, out)
    elif datatype == DT_FP64:
        widen(<double*>NULL, at, n, out)
    elif datatype == DT_FP16 or datatype == DT_BF16:
        widen_short_floats(datatype == DT_BF16, at, n, out)
    elif datatype == DT_INT64:
        widen(<int64_t*>NULL, at, n, out)
    elif datatype == DT_INT32:
        widen(<int32_t*>NULL, at, n, out)
    elif datatype == DT_INT16:
        widen(<int16_t*>NULL, at, n, out)
    elif datatype == DT_INT8:
        widen(<int8_t*>NULL, at, n, out)
    elif datatype == DT_UINT64:
        widen(<uint64_t*>NULL, at, n, out)
    elif datatype == DT_UINT32:
        widen(<uint32_t*>NULL, at, n, out)
    elif datatype == DT_UINT16:
        widen(<uint16_t*>NULL, at, n, out)
    elif datatype == DT_UINT8 or datatype == DT_BOOL:
        widen(<uint8_t*>NULL, at, n, out)
    else:
        return -1
    return 0


cdef inline bint is_integer(int datatype) noexcept nogil:
    return not (datatype == DT_FP32 or datatype == DT_FP64 or datatype == DT_FP16 or datatype == DT_BF16)


cdef struct Sums:             # of the elements that are finite on both sides
    double absolute, relative
    int64_t n


cdef void compare_blocks(const TensorView* primary, const TensorView* shadow, Tolerance tolerance, Difference* found) noexcept nogil:
    cdef double left[BLOCK]
    cdef double right[BLOCK]
    cdef int64_t done = 0, n, i
    cdef size_t left_size = datatype_size(primary.datatype), right_size = datatype_size(shadow.datatype)
    cdef bint is_alike = primary.datatype == shadow.datatype
    cdef bint is_exact = is_integer(primary.datatype) and is_integer(shadow.datatype)
    cdef bint has_equal_bytes
    cdef Sums sums
    if is_exact:
        tolerance.absolute = tolerance.relative = 0           # a count or a class that is off by one is another
    memset(&sums, 0, sizeof(Sums))
    while done < found.n_elements:
        n = min(found.n_elements - done, <int64_t>BLOCK)
        has_equal_bytes = is_alike and memcmp(primary.data + done * left_size, shadow.data + done * right_size, n * left_size) == 0
        if has_equal_bytes and is_exact:
            sums.n += n
            done += n
            continue
        read_numbers(primary.datatype, primary.data + done * left_size, n, left)
        if has_equal_bytes:
            for i in range(n):
                if isfinite(left[i]):
                    sums.n += 1
                else:
                    note_special(left[i], left[i], found)
        else:
            read_numbers(shadow.datatype, shadow.data + done * right_size, n, right)
            for i in range(n):
                if left[i] == right[i] and isfinite(left[i]):
                    if is_alike and left_size == 8 and is_exact:
                        note_long_integers(primary, shadow, done + i, left[i], found, &sums)
                    sums.n += 1
                elif isfinite(left[i]) and isfinite(right[i]):
                    note_difference(fabs(left[i] - right[i]), fmax_of(left[i], right[i]), done + i, tolerance, found, &sums)
                    sums.n += 1
                elif not note_special(left[i], right[i], found):
                    found.n_differ += 1
                    found.n_beyond += 1
                    found.n_broken += 1
                    if found.n_broken == 1:
                        found.worst = done + i
        done += n
    if sums.n:
        found.mean_absolute, found.mean_relative = sums.absolute / sums.n, sums.relative / sums.n


cdef inline double fmax_of(double a, double b) noexcept nogil:
    a, b = fabs(a), fabs(b)
    return a if a > b else b


cdef inline void note_difference(double difference, double size, int64_t at, Tolerance tolerance, Difference* found,
                                 Sums* sums) noexcept nogil:
    cdef double relative = difference / (size if size > GW_RELATIVE_FLOOR else GW_RELATIVE_FLOOR)
    found.n_differ += 1
    if difference > tolerance.absolute + tolerance.relative * size:
        found.n_beyond += 1
    if difference > found.max_absolute:
        found.max_absolute = difference
    if relative > found.max_relative:
        found.max_relative = relative
        if found.n_broken == 0:
            found.worst = at
    sums.absolute += difference
    sums.relative += relative


cdef inline void note_long_integers(const TensorView* primary, const TensorView* shadow, int64_t at, double size, Difference* found,
                                    Sums* sums) noexcept nogil:
    """Two 64-bit integers that are equal as doubles and may yet differ: above 2**53."""
    cdef uint64_t a, b
    cdef int64_t by
    cdef Tolerance none
    memcpy(&a, primary.data + 8 * at, 8)
    memcpy(&b, shadow.data + 8 * at, 8)
    if a != b:
        none.absolute = none.relative = 0
        by = <int64_t>(a - b)
        note_difference(fabs(<double>by), fabs(size), at, none, found, sums)


cdef inline bint note_special(double a, double b, Difference* found) noexcept nogil:
    """Counts NaN and infinities; whether both sides say the same."""
    found.n_nan[0] += isnan(a)
    found.n_nan[1] += isnan(b)
    found.n_inf[0] += not isnan(a) and not isfinite(a)
    found.n_inf[1] += not isnan(b) and not isfinite(b)
    return a == b or (isnan(a) and isnan(b))


# --- rows: which entries are the largest ---------------------------------------------------------------------------------------

cdef struct Top:              # the k largest entries of a row, largest first
    int k, n
    double values[TOP_K]
    int64_t indexes[TOP_K]


cdef inline void offer(Top* top, double value, int64_t index) noexcept nogil:
    cdef int at
    if isnan(value):
        value = -INFINITY
    if top.n == top.k:
        if value <= top.values[top.k - 1]:                    # the first of equals stays
            return
        at = top.k - 1
    else:
        at = top.n
        top.n += 1
    while at and top.values[at - 1] < value:
        top.values[at], top.indexes[at] = top.values[at - 1], top.indexes[at - 1]
        at -= 1
    top.values[at], top.indexes[at] = value, index


cdef void find_top(const TensorView* view, int64_t first, int64_t length, Top* top) noexcept nogil:
    cdef double block[BLOCK]
    cdef size_t size = datatype_size(view.datatype)
    cdef int64_t done = 0, n, i
    top.n = 0
    while done < length:
        n = min(length - done, <int64_t>BLOCK)
        read_numbers(view.datatype, view.data + (first + done) * size, n, block)
        for i in range(n):
            offer(top, block[i], done + i)
        done += n


cdef void compare_rows(const TensorView* primary, const TensorView* shadow, Difference* found) noexcept nogil:
    cdef int64_t length = primary.dims[primary.n_dims - 1] if primary.n_dims else 0
    cdef int64_t row
    cdef size_t size = datatype_size(primary.datatype)
    cdef bint is_alike = primary.datatype == shadow.datatype
    cdef Top left, right
    cdef int i, j, shared
    if length < 2 or found.n_elements == 0:
        return
    found.n_rows = found.n_elements // length
    left.k = right.k = <int>min(<int64_t>TOP_K, length - 1)
    found.n_top = found.n_rows * left.k
    for row in range(found.n_rows):
        if is_alike and memcmp(primary.data + row * length * size, shadow.data + row * length * size, length * size) == 0:
            found.n_same_first += 1
            found.n_same_top += 1
            found.n_shared += left.k
            continue
        find_top(primary, row * length, length, &left)
        find_top(shadow, row * length, length, &right)
        shared = 0
        for i in range(left.n):
            for j in range(right.n):
                shared += left.indexes[i] == right.indexes[j]
        found.n_shared += shared
        found.n_same_first += left.indexes[0] == right.indexes[0]
        found.n_same_top += shared == left.k


# --- strings -------------------------------------------------------------------------------------------------------------------

cdef void compare_strings(const TensorView* primary, const TensorView* shadow, Difference* found) noexcept nogil:
    cdef Span left, right
    cdef size_t i = 0, j = 0
    cdef int64_t at = 0
    while next_string(primary, &i, &left) and next_string(shadow, &j, &right):
        if not span_equals(left, right):
            found.n_differ += 1
            found.n_beyond += 1
            if found.worst < 0:
                found.worst = at
        at += 1


cdef inline bint next_string(const TensorView* view, size_t* at, Span* span) noexcept nogil:
    cdef uint32_t n
    if view.nbytes - at[0] < 4:
        return False
    memcpy(&n, view.data + at[0], 4)
    at[0] += 4
    if n > view.nbytes - at[0]:
        return False
    span.ptr, span.len = view.data + at[0], n
    at[0] += n
    return True


# --- one output ----------------------------------------------------------------------------------------------------------------

cdef void compare(const TensorView* primary, const TensorView* shadow, Tolerance tolerance, Difference* found) noexcept nogil:
    cdef int axis
    memset(found, 0, sizeof(Difference))
    found.worst = -1
    found.is_other_datatype = primary.datatype != shadow.datatype
    if primary.n_dims != shadow.n_dims:
        found.comparison = DIFFERENT_SHAPE
        return
    found.n_elements = 1
    for axis in range(primary.n_dims):
        if primary.dims[axis] != shadow.dims[axis]:
            found.comparison = DIFFERENT_SHAPE
            return
        found.n_elements *= primary.dims[axis]
    if primary.datatype == DT_BYTES and shadow.datatype == DT_BYTES:
        compare_strings(primary, shadow, found)
        return
    if not (is_whole(primary, found.n_elements) and is_whole(shadow, found.n_elements)):
        found.comparison = DIFFERENT_KIND
        return
    compare_blocks(primary, shadow, tolerance, found)
    compare_rows(primary, shadow, found)


cdef inline bint is_whole(const TensorView* view, int64_t n_elements) noexcept nogil:
    """Numbers, and as many bytes as its shape says."""
    return (view.datatype != DT_INVALID and view.datatype != DT_BYTES
            and view.nbytes == <size_t>n_elements * <size_t>datatype_size(view.datatype))


cdef bint agrees(const Difference* found) noexcept nogil:
    """Whether an application may be given the one for the other."""
    return (found.comparison == COMPARED and not found.is_other_datatype and found.n_beyond == 0
            and found.n_same_first == found.n_rows)


# --- for tests and tools -------------------------------------------------------------------------------------------------------

def compare_tensors(str datatype not None, shape, const uint8_t[::1] data not None, str other_datatype not None, other_shape,
                    const uint8_t[::1] other_data not None, double absolute=0, double relative=0):
    """compare() of two raw tensors, as a dictionary."""
    cdef TensorView views[2]
    cdef Difference found
    cdef Tolerance tolerance
    memset(views, 0, sizeof(views))
    for side, (name, dims) in enumerate(((datatype, shape), (other_datatype, other_shape))):
        views[<int>side].datatype = next((i for i in range(1, N_DATATYPES) if GW_DATATYPES[<int>i].name == name.encode()), DT_INVALID)
        views[<int>side].n_dims = len(dims)
        for axis, dim in enumerate(dims):
            views[<int>side].dims[<int>axis] = dim
    views[0].data, views[0].nbytes = &data[0] if data.shape[0] else NULL, data.shape[0]
    views[1].data, views[1].nbytes = &other_data[0] if other_data.shape[0] else NULL, other_data.shape[0]
    tolerance.absolute, tolerance.relative = absolute, relative
    with nogil:
        compare(&views[0], &views[1], tolerance, &found)
    return {
        "comparison": ("compared", "different_shape", "different_kind", "missing")[<int>found.comparison],
        "is_other_datatype": bool(found.is_other_datatype), "agrees": bool(agrees(&found)),
        "n_elements": found.n_elements, "n_differ": found.n_differ, "n_beyond": found.n_beyond, "n_broken": found.n_broken,
        "n_nan": (found.n_nan[0], found.n_nan[1]), "n_inf": (found.n_inf[0], found.n_inf[1]),
        "max_absolute": found.max_absolute, "max_relative": found.max_relative,
        "mean_absolute": found.mean_absolute, "mean_relative": found.mean_relative, "worst": found.worst,
        "n_rows": found.n_rows, "n_same_first": found.n_same_first, "n_same_top": found.n_same_top,
        "n_top": found.n_top, "n_shared": found.n_shared,
    }


def read_tensors(const uint8_t[::1] body not None, bint streamed=False):
    """What read_answer finds: [(name, datatype, shape, bytes)]; None when it is malformed."""
    cdef TensorView views[16]
    cdef Span span
    span.ptr, span.len = &body[0] if body.shape[0] else NULL, body.shape[0]
    cdef int n = read_answer(span, streamed, views, 16)
    if n < 0:
        return None
    return [(
        views[i].name.ptr[:views[i].name.len].decode(), GW_DATATYPES[views[i].datatype].name.decode(),
        [views[i].dims[axis] for axis in range(views[i].n_dims)], <bytes>views[i].data[:views[i].nbytes],
    ) for i in range(min(n, 16))]
