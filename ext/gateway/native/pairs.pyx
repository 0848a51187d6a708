"""Differences added up, and the worst of them kept."""
cimport cython
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from gateway.native.arm cimport Arm
from gateway.native.compare cimport (
    COMPARED, DIFFERENT_KIND, DIFFERENT_SHAPE, MISSING, Difference, TensorView, Tolerance, agrees, compare, read_answer, read_numbers)
from gateway.native.cursor cimport Span, span_equals
from gateway.native.datatype cimport DT_BF16, DT_BYTES, DT_FP16, DT_FP32, DT_FP64, DT_INVALID, GW_DATATYPES, datatype_size
from gateway.native.histogram cimport N_BOUNDS, Histogram, record
from gateway.native.refusal cimport N_CODES
from gateway.native.request cimport Request, TensorRef

cdef enum:
    ROOM_AT_FIRST = 8         # outputs; most models have one or two
    WHOLE_BYTES = 4096        # a tensor up to this stays whole in a sample that is too large
    HEAD_BYTES = 1024         # of the others
    SUMMARY_BLOCK = 256

cdef extern from *:
    """
    static const double GW_SIZES[16] = {1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6};
    """
    const double GW_SIZES[16]

SIZES = tuple([GW_SIZES[i] for i in range(16)])
"""Upper bounds, inclusive, of the histograms of differences, from their second count on; the first counts zeros."""


cdef inline void note_size(uint64_t* counts, double size) noexcept nogil:
    cdef int i = 0
    if size > 0:
        while i < 16 and size > GW_SIZES[i]:
            i += 1
        i += 1
    counts[i] += 1


@cython.final
@cython.no_gc
cdef class Comparer:
    """Room for two answers and what lies between them."""

    def __dealloc__(self):
        free(self.primary)
        free(self.shadow)
        free(self.found)

    cdef int _read(self, Span primary, bint streamed, Span shadow) noexcept nogil:
        """-1: malformed, or no memory."""
        cdef void* grown
        cdef int wanted = self.room
        while True:
            self.n_primary = read_answer(primary, streamed, self.primary, self.room)
            self.n_shadow = read_answer(shadow, False, self.shadow, self.room)
            if self.n_primary < 0 or self.n_shadow < 0:
                return -1
            wanted = min(<int>MAX_OUTPUTS, max(self.n_primary, self.n_shadow, <int>ROOM_AT_FIRST))
            if wanted <= self.room:
                return 0
            grown = realloc(self.primary, wanted * sizeof(TensorView))
            if grown == NULL:
                return -1
            self.primary = <TensorView*>grown
            grown = realloc(self.shadow, wanted * sizeof(TensorView))
            if grown == NULL:
                return -1
            self.shadow = <TensorView*>grown
            grown = realloc(self.found, wanted * sizeof(Difference))
            if grown == NULL:
                return -1
            self.found = <Difference*>grown
            self.room = wanted

    cdef void run(self, Span primary, bint streamed, Span shadow, Tolerance tolerance) noexcept nogil:
        cdef Difference* found
        cdef double severity
        cdef int i, j, n_shadow
        self.is_readable = self._read(primary, streamed, shadow) == 0
        self.agrees = self.is_exact = self.is_readable
        self.severity, self.worst, self.absolute, self.relative = -1, -1, 0, 0
        if not self.is_readable:
            self.n_primary = self.n_shadow = 0
            return
        n_shadow = min(self.n_shadow, self.room)
        for i in range(min(self.n_primary, self.room)):
            found = &self.found[i]
            j = i
            if j >= n_shadow or not span_equals(self.primary[i].name, self.shadow[j].name):
                j = 0
                while j < n_shadow and not span_equals(self.primary[i].name, self.shadow[j].name):
                    j += 1
            if j == n_shadow:
                memset(found, 0, sizeof(Difference))
                found.comparison, found.worst = MISSING, -1
            else:
                compare(&self.primary[i], &self.shadow[j], tolerance, found)
            self.agrees = self.agrees and agrees(found)
            self.is_exact = self.is_exact and agrees(found) and found.n_differ == 0
            if found.comparison == COMPARED and found.n_differ:
                severity = severity_of(found, self.primary[i].datatype)
                if severity > self.severity:
                    self.severity, self.worst = severity, i
                    self.absolute, self.relative = found.max_absolute, found.max_relative


# --- samples -------------------------------------------------------------------------------------------------------------------

cdef str text_of(Span span):
    return span.ptr[:min(span.len, <size_t>200)].decode("utf-8", "replace") if span.len else ""


cdef object summary_of(int datatype, const uint8_t* data, int64_t n_elements):
    """(smallest, largest, mean, how many are not finite); None for what are no numbers."""
    cdef double block[SUMMARY_BLOCK]
    cdef double low = INFINITY, high = -INFINITY, total = 0
    cdef int64_t done = 0, n_special = 0, n, i
    if datatype == DT_BYTES or datatype == DT_INVALID:
        return None
    with nogil:
        while done < n_elements:
            n = min(n_elements - done, <int64_t>SUMMARY_BLOCK)
            read_numbers(datatype, data + done * datatype_size(datatype), n, block)
            for i in range(n):
                if not isfinite(block[i]):
                    n_special += 1
                    continue
                low, high = min(low, block[i]), max(high, block[i])
                total += block[i]
            done += n
    if n_special == n_elements:
        return None, None, None, n_special
    return low, high, total / (n_elements - n_special), n_special


cdef tuple kept_tensor(Span name, int datatype, const int64_t* dims, int n_dims, const uint8_t* data, size_t nbytes, bint is_whole,
                       size_t* room):
    cdef size_t n = nbytes
    cdef int64_t n_elements = 1
    cdef int axis
    for axis in range(n_dims):
        n_elements *= dims[axis]
    if not is_whole and n > WHOLE_BYTES:
        n = HEAD_BYTES
    if n > room[0]:
        n = room[0]
    if n < nbytes and datatype_size(datatype):
        n -= n % datatype_size(datatype)
    room[0] -= n
    summary = summary_of(datatype, data, n_elements) if n < nbytes else None
    return (text_of(name), GW_DATATYPES[datatype].name.decode(), tuple([dims[axis] for axis in range(n_dims)]),
            <bytes>data[:n] if n else b"", nbytes, summary)


@cython.final
cdef class Sample:
    """See pairs.pxd."""


cdef double severity_of(const Difference* found, int datatype) noexcept nogil:
    """Of an output whose elements differ. Infinite: NaN or infinite on one side. 1 to 2: another decision (text, a whole number, the
    largest entry of a row); below 1: other numbers, by the largest absolute difference. Not by the relative one: 0 beside 1e-9 is no
    news."""
    cdef bint is_float = datatype == DT_FP32 or datatype == DT_FP64 or datatype == DT_FP16 or datatype == DT_BF16
    if found.n_broken:
        return INFINITY
    if not is_float:
        return 1 + <double>found.n_differ / <double>found.n_elements
    return (1 if found.n_same_first < found.n_rows else 0) + found.max_absolute / (1 + found.max_absolute)


cdef Sample sample_of(Comparer comparer, Request shadow, int64_t now_us):
    """Copies the tensors; `comparer` None: there is nothing to compare."""
    cdef Sample sample = Sample()
    cdef size_t total = 0, room = MAX_KEPT_BYTES
    cdef const TensorRef* tensor
    cdef bint is_whole
    cdef int i
    sample.id, sample.at_us, sample.text, sample.output = text_of(shadow.id), now_us, "", ""
    sample.index, sample.severity, sample.absolute, sample.relative = -1, -1, 0, 0
    sample.inputs, sample.primary, sample.shadow = [], [], []
    for i in range(shadow.n_tensors):
        total += shadow.tensors[i].nbytes
    if comparer is not None:
        for i in range(min(comparer.n_primary, comparer.room)):
            total += comparer.primary[i].nbytes
        for i in range(min(comparer.n_shadow, comparer.room)):
            total += comparer.shadow[i].nbytes
    is_whole = total <= MAX_KEPT_BYTES
    if comparer is not None:                                  # the answers first: they are what is looked at
        sample.severity, sample.absolute, sample.relative = comparer.severity, comparer.absolute, comparer.relative
        if comparer.worst >= 0:
            sample.output = text_of(comparer.primary[comparer.worst].name)
            sample.index = comparer.found[comparer.worst].worst
        for i in range(min(comparer.n_primary, comparer.room)):
            sample.primary.append(kept_view(&comparer.primary[i], is_whole, &room))
        for i in range(min(comparer.n_shadow, comparer.room)):
            sample.shadow.append(kept_view(&comparer.shadow[i], is_whole, &room))
    for i in range(shadow.n_tensors):
        tensor = &shadow.tensors[i]
        sample.inputs.append(kept_tensor(
            shadow.signature.inputs[i].name, shadow.signature.inputs[i].datatype, tensor.dims, tensor.n_dims, tensor.data, tensor.nbytes,
            is_whole, &room))
    return sample


cdef tuple kept_view(const TensorView* view, bint is_whole, size_t* room):
    return kept_tensor(view.name, view.datatype, view.dims, view.n_dims, view.data, view.nbytes, is_whole, room)


# --- counts --------------------------------------------------------------------------------------------------------------------

@cython.final
cdef class PairStats:
    """PairStats(primary, shadow, absolute, relative): two arms, and how far apart their numbers may lie."""

    def __init__(self, Arm primary, Arm shadow not None, double absolute=1e-6, double relative=1e-3):
        self.primary, self.shadow = primary, shadow
        self.tolerance.absolute, self.tolerance.relative = absolute, relative
        self.names, self.worst, self.recent = [], [], []

    def __dealloc__(self):
        free(self.outputs)

    cdef OutputCounts* _output(self, Span name, int position) except NULL:
        """The counts of that output; new ones at first. NULL never without MemoryError."""
        cdef OutputCounts* grown
        cdef bytes known
        cdef int i = position
        if i < self.n_outputs:
            known = <bytes>self.names[i]
            if <size_t>len(known) == name.len and known == name.ptr[:name.len]:
                return &self.outputs[i]
        wanted = <bytes>name.ptr[:name.len] if name.len else b""
        if wanted in self.names:
            return &self.outputs[<int>self.names.index(wanted)]
        grown = <OutputCounts*>realloc(self.outputs, (self.n_outputs + 1) * sizeof(OutputCounts))
        if grown == NULL:
            raise MemoryError("no memory for counters")
        self.outputs = grown
        memset(&grown[self.n_outputs], 0, sizeof(OutputCounts))
        self.names.append(wanted)
        self.n_outputs += 1
        return &self.outputs[self.n_outputs - 1]

    cdef int note_compared(self, Comparer comparer, Request shadow, int64_t primary_us, int64_t shadow_us, int64_t now_us) except -1:
        cdef PairCounts* counts = &self.counts
        cdef int i, n = min(comparer.n_primary, comparer.room)
        counts.both_answered += 1
        record(&counts.primary_run, primary_us)
        record(&counts.shadow_run, shadow_us)
        counts.shadow_slower += shadow_us > primary_us
        counts.outputs_left_out += comparer.n_primary - n
        if not comparer.is_readable:
            counts.unreadable += 1
            return 0
        note_pair(counts, comparer.found, comparer.primary, n)
        for i in range(n):
            note_output(self._output(comparer.primary[i].name, i), &comparer.found[i])
        if comparer.agrees:
            counts.agreed += 1
            counts.exact += comparer.is_exact
            return 0
        counts.disagreed += 1
        return self._keep(comparer, shadow, now_us)

    cdef int _keep(self, Comparer comparer, Request shadow, int64_t now_us) except -1:
        cdef Sample sample = None
        cdef int at
        if comparer.severity >= 0 and (len(self.worst) < MAX_KEPT or comparer.severity > (<Sample>self.worst[MAX_KEPT - 1]).severity):
            sample = sample_of(comparer, shadow, now_us)
            at = len(self.worst)
            while at and (<Sample>self.worst[at - 1]).severity < sample.severity:
                at -= 1
            self.worst.insert(at, sample)
            del self.worst[MAX_KEPT:]
        if len(self.recent) < MAX_KEPT or now_us - self.kept_us >= KEEP_EVERY_US:
            self.kept_us = now_us
            self.recent.append(sample if sample is not None else sample_of(comparer, shadow, now_us))
            del self.recent[:-MAX_KEPT]
        return 0

    cdef int note_failed(self, Request shadow, int primary_code, int shadow_code, str text, int64_t now_us) except -1:
        cdef Sample sample
        if primary_code and shadow_code:
            self.counts.both_failed += 1
            return 0
        if primary_code:
            self.counts.primary_failed[primary_code] += 1
        else:
            self.counts.shadow_failed[shadow_code] += 1
        if len(self.recent) < MAX_KEPT or now_us - self.kept_us >= KEEP_EVERY_US:
            self.kept_us = now_us
            sample = sample_of(None, shadow, now_us)
            sample.primary_code, sample.shadow_code, sample.text = primary_code, shadow_code, text or ""
            self.recent.append(sample)
            del self.recent[:-MAX_KEPT]
        return 0

    def outcome(self):
        """What decides about the shadow, pair by pair: whichever output it is that differs."""
        cdef PairCounts* counts = &self.counts
        cdef int i
        cdef uint64_t n_failed = 0
        for i in range(<int>N_CODES):
            n_failed += counts.shadow_failed[i]
        return {
            "answered": counts.both_answered, "failed": n_failed, "other": counts.other_decision + counts.unreadable,
            "relative": sizes_of(counts.relative), "broken": counts.broken_alone,
        }

    def statistics(self):
        """Counters since start, as a dictionary of integers that add up; only `worst_*` are maxima."""
        cdef PairCounts* counts = &self.counts
        cdef int i
        return {
            "both_answered": counts.both_answered, "agreed": counts.agreed, "exact": counts.exact, "disagreed": counts.disagreed,
            "unreadable": counts.unreadable, "both_failed": counts.both_failed, "outputs_left_out": counts.outputs_left_out,
            "shadow_failed": {code: counts.shadow_failed[code] for code in range(<int>N_CODES) if counts.shadow_failed[code]},
            "primary_failed": {code: counts.primary_failed[code] for code in range(<int>N_CODES) if counts.primary_failed[code]},
            "primary_run_us": as_tuple(&counts.primary_run), "shadow_run_us": as_tuple(&counts.shadow_run),
            "shadow_slower": counts.shadow_slower,
            "outputs": {(<bytes>self.names[i]).decode("utf-8", "replace"): output_of(&self.outputs[i]) for i in range(self.n_outputs)},
        }


cdef void note_pair(PairCounts* counts, const Difference* found, const TensorView* primary, int n) noexcept:
    """Over all outputs: one pair, one count."""
    cdef bint is_broken = False, is_other = False
    cdef double relative = 0
    cdef int i, datatype
    for i in range(n):
        datatype = primary[i].datatype
        if found[i].comparison != COMPARED:
            is_other = True
            is_broken |= found[i].comparison == DIFFERENT_SHAPE
            continue
        is_broken |= found[i].n_nan[1] + found[i].n_inf[1] > 0 and found[i].n_nan[0] + found[i].n_inf[0] == 0
        if not (datatype == DT_FP32 or datatype == DT_FP64 or datatype == DT_FP16 or datatype == DT_BF16):
            is_other |= found[i].n_differ > 0
        elif found[i].n_rows:
            is_other |= found[i].n_same_first < found[i].n_rows or found[i].n_broken > 0
        else:
            is_other |= found[i].n_broken > 0
            relative = max(relative, found[i].max_relative)
    counts.broken_alone += is_broken
    if is_other:
        counts.other_decision += 1
    else:
        note_size(counts.relative, relative)


cdef void note_output(OutputCounts* counts, const Difference* found) noexcept:
    cdef int side
    counts.pairs += 1
    counts.other_datatype += found.comparison != MISSING and found.is_other_datatype
    if found.comparison != COMPARED:
        counts.other_shape += found.comparison == DIFFERENT_SHAPE
        counts.other_kind += found.comparison == DIFFERENT_KIND
        counts.missing += found.comparison == MISSING
        return
    counts.exact += found.n_differ == 0
    counts.within += found.n_beyond == 0
    for side in range(2):
        counts.nan[side] += found.n_nan[side] > 0
        counts.inf[side] += found.n_inf[side] > 0
    counts.broken += found.n_broken > 0
    counts.elements += found.n_elements
    counts.elements_differ += found.n_differ
    counts.elements_beyond += found.n_beyond
    counts.rows += found.n_rows
    counts.same_first += found.n_same_first
    counts.same_top += found.n_same_top
    counts.top += found.n_top
    counts.shared += found.n_shared
    note_size(counts.max_absolute, found.max_absolute)
    note_size(counts.max_relative, found.max_relative)
    note_size(counts.mean_absolute, found.mean_absolute)
    note_size(counts.mean_relative, found.mean_relative)
    counts.worst_absolute = max(counts.worst_absolute, found.max_absolute)
    counts.worst_relative = max(counts.worst_relative, found.max_relative)


cdef tuple as_tuple(const Histogram* h):
    """(counts by bucket, sum in microseconds)."""
    return tuple([h.counts[i] for i in range(<int>N_BOUNDS + 1)]), h.sum_us


cdef list sizes_of(const uint64_t* counts):
    return [counts[i] for i in range(<int>N_SIZES)]


cdef dict output_of(const OutputCounts* counts):
    return {
        "pairs": counts.pairs, "exact": counts.exact, "within": counts.within,
        "other_shape": counts.other_shape, "other_kind": counts.other_kind, "other_datatype": counts.other_datatype,
        "missing": counts.missing, "primary_nan": counts.nan[0], "shadow_nan": counts.nan[1],
        "primary_inf": counts.inf[0], "shadow_inf": counts.inf[1], "broken": counts.broken,
        "elements": counts.elements, "elements_differ": counts.elements_differ, "elements_beyond": counts.elements_beyond,
        "rows": counts.rows, "same_first": counts.same_first, "same_top": counts.same_top, "top": counts.top, "shared": counts.shared,
        "max_absolute": sizes_of(counts.max_absolute), "max_relative": sizes_of(counts.max_relative),
        "mean_absolute": sizes_of(counts.mean_absolute), "mean_relative": sizes_of(counts.mean_relative),
        "worst_absolute": counts.worst_absolute, "worst_relative": counts.worst_relative,
    }
