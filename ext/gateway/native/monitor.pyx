"""Counts a version's inputs, outputs and answers."""
cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.math cimport sqrt
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from gateway.native.arm cimport Arm
from gateway.native.batch cimport Slice
from gateway.native.clock cimport monotonic_us
from gateway.native.datatype cimport (
    DT_BF16, DT_BOOL, DT_BYTES, DT_FP16, DT_FP32, DT_FP64, DT_INT8, DT_INT16, DT_INT32, DT_INT64, DT_UINT8, DT_UINT16, DT_UINT32, DT_UINT64,
    GW_DATATYPES, datatype_size)
from gateway.native.others cimport KEPT_TEXT_BYTES, Counter, Others, others_new, others_note
from gateway.native.tileplan cimport (
    COLUMN_WORDS, STATISTIC_LENGTH, STATISTIC_MAX, STATISTIC_MEAN, STATISTIC_MIN, STATISTIC_NONE, STATISTIC_NORM, STATISTIC_PROJECTION,
    STATISTIC_STD, TILE_ROWS, TILE_VIOLATIONS, Column, TilePlan)
from gateway.native.refusal cimport INVALID_ARGUMENT
from gateway.native.request cimport Request, TensorRef
from gateway.native.signature cimport Signature, TensorSpec
from gateway.native.sketch cimport (
    BLOCK_ROWS, CELL_MISSING, CELL_OTHER, GW_NO_NUMBER, Span, bfloat_to_double, count_block, find_number, find_text, half_to_double,
    hash_number, hash_text, is_whole)
from gateway.native.summary cimport (
    Summary, greatest_of, least_of, mean_of, norm_of, project, sign_word, start_summary, std_of, summarise)
from gateway.native.tile cimport Tile

cnp.import_array()

cdef enum:
    NOGIL_MIN_VALUES = 8192   # some 30 us of counting: from there on other threads gain more than letting go of the GIL costs
    MAX_SLOTS = 64            # arms and stages in one window; what comes beyond is counted under no name
    MAX_FINISHED = 256        # tiles that wait for a cut: an agent comes every few seconds, or is gone
    CHUNK = 256               # values of a large tensor looked at together, four words of signs
    STAGE_ROWS = 64           # kept until counted: enough to forget what a column costs by itself, and some 10 us of counting
    STAGE_BELOW_ROWS = 24     # a batch of more is counted at once
    STAGE_ROW_BYTES = 4096    # rows that are larger are work enough by themselves
    MAX_PROJECTIONS = 64      # of one tensor
    SUMMARY_VALUES = 8192     # of a row that may be looked at for each row that comes: of larger tensors, a share of the rows is


cdef enum Part:               # which columns
    PART_ALL = 0
    PART_STAGED = 1
    PART_UNSTAGED = 2


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


@cython.final
cdef class Slot:
    """One arm and stage."""

    def __dealloc__(self):
        free(self.stage)


@cython.final
cdef class Monitor:
    """Monitor(plan, signature, window_s=60): ValueError names the column that the signature's tensors do not have.

    Windows are aligned to the wall clock, which `cut` tells.
    """

    def __cinit__(self, TilePlan plan not None, Signature signature not None, int64_t window_s=60):
        cdef int i
        if window_s < 1:
            raise ValueError(f"window_s: got {window_s}, expected at least 1")
        self.plan, self.signature, self.window_us = plan, signature, window_s * 1_000_000
        self.slots, self.finished = [], []
        self.window = -1
        self.n_sources = signature.n_inputs + signature.n_outputs
        self.sources = <Source*>calloc(self.n_sources, sizeof(Source))
        self.bindings = <Binding*>calloc(plan.n_columns + 1, sizeof(Binding))
        self.first_summary = <int*>malloc(self.n_sources * sizeof(int))
        if self.sources == NULL or self.bindings == NULL or self.first_summary == NULL:
            raise MemoryError("no memory for a monitor")
        for i in range(self.n_sources):
            self.first_summary[i] = -1
            self.sources[i].datatype = self._spec(i).datatype
        for i in range(plan.n_columns - 1, -1, -1):
            self._bind(i, plan.columns[i])
        for i in range(self.n_sources):
            self._choose_stage(i)

    def __dealloc__(self):
        free(self.sources)
        free(self.bindings)
        free(self.first_summary)

    cdef int _choose_stage(self, int source) except -1:
        cdef const TensorSpec* spec = self._spec(source)
        cdef Source* tensor = &self.sources[source]
        if not tensor.is_wanted:
            return 0
        tensor.row_bytes = max(spec.row_elements, 0) * datatype_size(spec.datatype)
        tensor.is_staged = (spec.datatype != DT_BYTES and spec.row_elements > 0 and self.first_summary[source] < 0
                            and self.stage_bytes // STAGE_ROWS + tensor.row_bytes <= STAGE_ROW_BYTES)
        if tensor.is_staged:
            tensor.stage_at = self.stage_bytes
            self.stage_bytes += (STAGE_ROWS * tensor.row_bytes + 15) // 16 * 16       # the next one's values are aligned
        else:
            self.has_unstaged = True
        return 0

    cdef const TensorSpec* _spec(self, int source):
        cdef Signature signature = self.signature
        return &signature.inputs[source] if source < signature.n_inputs else &signature.outputs[source - signature.n_inputs]

    cdef int _bind(self, int i, dict given) except -1:
        cdef Column* column = &self.plan.column[i]
        cdef const TensorSpec* spec
        cdef int source
        cdef bint is_text
        where = f"column {given['name']!r} of {self.signature.describe()}"
        wanted = given["tensor"].encode()
        for source in range(self.signature.n_inputs if column.is_output else 0,
                            self.n_sources if column.is_output else self.signature.n_inputs):
            spec = self._spec(source)
            if spec.name.ptr[:spec.name.len] == wanted:
                break
        else:
            names = self.signature.output_names() if column.is_output else self.signature.input_names()
            raise ValueError(f"{where}: tensor: got {given['tensor']!r}, expected one of {names}")
        is_text = spec.datatype == DT_BYTES
        if column.statistic == STATISTIC_NONE:
            if column.index < 0 or spec.row_elements >= 0 and column.index >= spec.row_elements:
                raise ValueError(f"{where}: index: got {column.index}, expected less than the row's {spec.row_elements} values")
            if column.kind != COLUMN_WORDS and is_text:
                raise ValueError(f"{where}: kind: got {given['kind']!r}, expected categorical: the tensor is text")
            if column.kind == COLUMN_WORDS and column.words.n_words and is_text != (column.words.texts != NULL):
                raise ValueError(
                    f"{where}: vocabulary: got {given['vocabulary'][0]!r}, expected {'texts' if is_text else 'whole numbers'}: the tensor "
                    f"is of {GW_DATATYPES[spec.datatype].name.decode()}")
        elif is_text and column.statistic != STATISTIC_LENGTH:
            raise ValueError(f"{where}: statistic: got {given['statistic']!r}, expected length: the tensor is text")
        self.sources[source].is_wanted = True
        self.bindings[i].source, self.bindings[i].next = source, -1
        if column.statistic == STATISTIC_PROJECTION:
            self.sources[source].n_projections += 1
            if self.sources[source].n_projections > MAX_PROJECTIONS:
                raise ValueError(f"{where}: projection: got more than {<int>MAX_PROJECTIONS} of one tensor, expected fewer")
        if column.statistic != STATISTIC_NONE:
            self.bindings[i].next, self.first_summary[source] = self.first_summary[source], i
        return 0

    # --- windows ---------------------------------------------------------------------------------------------------------------

    cdef Slot _slot(self, Arm arm):
        cdef Slot slot
        cdef str name = arm.name if arm is not None else ""
        cdef int64_t stage = arm.stage if arm is not None else 0
        for slot in self.slots:
            if slot.arm is arm:
                return slot
        if len(self.slots) >= MAX_SLOTS:
            arm, name, stage = None, "", 0
        for slot in self.slots:
            if slot.name == name and slot.number == stage:
                slot.arm = arm                                # a table's new arm for the same comparison
                return slot
        slot = Slot()
        slot.arm, slot.name, slot.number, slot.tile = arm, name, stage, Tile.new(self.plan)
        self.slots.append(slot)
        return slot

    cdef int _roll(self, int64_t now_us) except -1:
        """The window that holds now_us begins, unless the wall clock was only set back a little: then the one in progress goes on."""
        cdef int64_t window = (now_us + self.wall_ahead_us) // self.window_us
        cdef Slot slot
        cdef int i
        if window > self.window or window < self.window - 1:
            for slot in self.slots:
                self._flush(slot)
                if slot.is_changed:
                    self.finished.append((slot.name, slot.number, self.window * self.window_us // 1_000_000, slot.tile))
            self.slots = []
            for i in range(self.n_sources):
                self.sources[i].n_seen = 0                    # the first row of a minute is summarised, however large
            if len(self.finished) > MAX_FINISHED:
                self.n_dropped += len(self.finished) - MAX_FINISHED
                del self.finished[:len(self.finished) - MAX_FINISHED]
            self.window = window
        self.ends_us = (self.window + 1) * self.window_us - self.wall_ahead_us
        return 0

    def cut(self, double wall_s, now_us=None):
        """[(arm, stage, start of the window in s since 1970, bytes)] of all that has changed since the last cut: tiles of windows that are
        over, for the last time, and those in progress, which will come again with more. `now_us` is the monotonic clock."""
        cdef int64_t at_us = monotonic_us() if now_us is None else now_us
        cdef Slot slot
        self.wall_ahead_us = <int64_t>(wall_s * 1e6) - at_us
        self._roll(at_us)
        cuts = [(name, stage, start_s, (<Tile>tile).to_bytes()) for name, stage, start_s, tile in self.finished]
        self.finished = []
        for slot in self.slots:
            if slot.is_changed:
                self._flush(slot)
                cuts.append((slot.name, slot.number, self.window * self.window_us // 1_000_000, slot.tile.to_bytes()))
                slot.is_changed = False
        return cuts

    # --- what a lane tells -----------------------------------------------------------------------------------------------------

    cdef int note_request(self, Arm arm, int code, int64_t took_us, int64_t now_us) except -1:
        """A request was answered."""
        cdef Slot slot
        if now_us >= self.ends_us:
            self._roll(now_us)
        slot = self._slot(arm)
        slot.tile.note_request(code, took_us)
        slot.is_changed = True
        return 0

    cdef int note_refused(self, Arm arm, int code, int64_t now_us) except -1:
        """A request was refused before it was queued."""
        cdef Slot slot
        if now_us >= self.ends_us:
            self._roll(now_us)
        slot = self._slot(arm)
        slot.tile.note_request(code, 0)
        slot.tile.cell[TILE_VIOLATIONS] += code == INVALID_ARGUMENT
        slot.is_changed = True
        return 0

    # --- what a batch tells ----------------------------------------------------------------------------------------------------

    cdef int observe(self, list members, void* slices, int low, int high, list inputs, list outputs, int64_t now_us) except -1:
        """Members low..high of a batch ran together; their rows lie one after the other."""
        cdef Slice* slice_ = <Slice*>slices
        cdef Arm arm
        cdef int64_t n_rows = 0, n_own, row, at
        cdef int64_t* rows = NULL
        cdef Source* sources
        cdef int i, k
        for i in range(low, high):
            n_rows += slice_[i].n_rows
        if n_rows == 0:
            return 0
        if now_us >= self.ends_us:
            self._roll(now_us)
        sources = <Source*>malloc(self.n_sources * sizeof(Source))
        if sources == NULL:
            raise MemoryError("no memory to count a batch")
        memcpy(sources, self.sources, self.n_sources * sizeof(Source))
        try:
            self._point(sources, inputs, outputs, n_rows, members, slices, low, high)
            arm = (<Request>members[low]).arm
            for i in range(low + 1, high):
                if (<Request>members[i]).arm is not arm:
                    break
            else:
                self._count(sources, arm, NULL, n_rows)
                return 0
            rows = <int64_t*>malloc(n_rows * sizeof(int64_t))
            if rows == NULL:
                raise MemoryError("no memory to count a batch")
            for i in range(low, high):
                arm = (<Request>members[i]).arm
                for k in range(low, i):
                    if (<Request>members[k]).arm is arm:
                        break                                 # counted with that one
                else:
                    row = n_own = 0
                    for k in range(low, high):
                        if k >= i and (<Request>members[k]).arm is arm:
                            for at in range(slice_[k].n_rows):
                                rows[n_own] = row + at
                                n_own += 1
                        row += slice_[k].n_rows
                    self._count(sources, arm, rows, n_own)
        finally:
            free(rows)
            for i in range(self.n_sources):
                free(sources[i].texts)
            free(sources)
        return 0

    def note_rows(self, list inputs not None, list outputs not None, Arm arm=None, now_us=None):
        """Count a batch given as arrays, in the signature's order."""
        cdef Source* sources
        cdef int i
        cdef int64_t n_rows, at_us = monotonic_us() if now_us is None else now_us
        for arrays, n_wanted in ((inputs, self.signature.n_inputs), (outputs, self.signature.n_outputs)):
            if len(arrays) != n_wanted:
                raise ValueError(f"{self.signature.describe()}: got {len(arrays)} arrays, expected {n_wanted}")
        n_rows = len(inputs[0]) if self.signature.batched else 1
        for i, array in enumerate(inputs + outputs):
            if not (cnp.PyArray_Check(array) and cnp.PyArray_EquivTypenums(cnp.PyArray_TYPE(array), self._spec(i).typenum)
                    and cnp.PyArray_ISCARRAY_RO(array)) or self.signature.batched and (array.ndim < 1 or len(array) != n_rows):
                raise ValueError(f"{self.signature.describe()}: array {i} is none of its tensor's type with {n_rows} rows in C order")
        if at_us >= self.ends_us:
            self._roll(at_us)
        sources = <Source*>malloc(self.n_sources * sizeof(Source))
        if sources == NULL:
            raise MemoryError("no memory to count a batch")
        memcpy(sources, self.sources, self.n_sources * sizeof(Source))
        try:
            self._point(sources, inputs, outputs, n_rows, None, NULL, 0, 0)
            self._count(sources, arm, NULL, n_rows)
        finally:
            for i in range(self.n_sources):
                free(sources[i].texts)
            free(sources)

    cdef int _point(self, Source* sources, list inputs, list outputs, int64_t n_rows, list members, void* slices, int low,
                    int high) except -1:
        """Where each wanted tensor's values are; texts are found here, for Python's need the GIL."""
        cdef int i, n_inputs = self.signature.n_inputs
        cdef int64_t n
        for i in range(self.n_sources):
            if not sources[i].is_wanted:
                continue
            array = inputs[i] if i < n_inputs else outputs[i - n_inputs]
            n = cnp.PyArray_SIZE(array)
            sources[i].row_elements = n // n_rows if n_rows else 0
            sources[i].data = <const uint8_t*>cnp.PyArray_DATA(array)
            if sources[i].datatype != DT_BYTES:
                continue
            sources[i].texts = <Span*>calloc(n + 1, sizeof(Span))
            if sources[i].texts == NULL:
                raise MemoryError("no memory to count a batch")
            if i < n_inputs and members is not None:
                point_at_wire(sources[i].texts, i, members, <Slice*>slices, low, high)
            else:
                point_at_objects(sources[i].texts, <PyObject**>cnp.PyArray_DATA(array), n)
        return 0

    cdef int _count(self, Source* sources, Arm arm, const int64_t* rows, int64_t n_rows) except -1:
        """These rows (NULL: the first n_rows) on the tile of `arm`."""
        cdef Slot slot
        cdef Tile own
        cdef int64_t n_values = n_rows * self.plan.n_columns
        cdef int i
        for i in range(self.n_sources):
            if self.first_summary[i] >= 0:
                n_values += n_rows * min(sources[i].row_elements, <int64_t>SUMMARY_VALUES)
        if n_values < NOGIL_MIN_VALUES:
            slot = self._slot(arm)
            if self.stage_bytes and n_rows < STAGE_BELOW_ROWS:
                self._stage(slot, sources, rows, n_rows)
                if self.has_unstaged:
                    count_rows(self, sources, slot.tile.cell, slot.tile.other, rows, n_rows, PART_UNSTAGED)
            else:
                count_rows(self, sources, slot.tile.cell, slot.tile.other, rows, n_rows, PART_ALL)
        else:
            own = Tile.new(self.plan)
            with nogil:
                count_rows(self, sources, own.cell, own.other, rows, n_rows, PART_ALL)
            slot = self._slot(arm)                            # anew: a window may have ended
            slot.tile.merge(own)
            slot.tile.trim()
        for i in range(self.n_sources):
            self.sources[i].n_seen += n_rows
        slot.tile.cell[TILE_ROWS] += <uint64_t>n_rows
        slot.is_changed = True
        return 0

    cdef int _stage(self, Slot slot, const Source* sources, const int64_t* rows, int64_t n_rows) except -1:
        cdef const Source* source
        cdef uint8_t* to
        cdef int64_t k
        cdef int i
        if slot.stage == NULL:
            slot.stage = <uint8_t*>malloc(self.stage_bytes)
            if slot.stage == NULL:
                raise MemoryError("no memory to count a batch")
        if slot.n_staged + n_rows > STAGE_ROWS:
            self._flush(slot)
        for i in range(self.n_sources):
            source = &sources[i]
            if not source.is_staged:
                continue
            to = slot.stage + source.stage_at + slot.n_staged * source.row_bytes
            if rows == NULL:
                memcpy(to, source.data, n_rows * source.row_bytes)
                continue
            for k in range(n_rows):
                memcpy(to + k * source.row_bytes, source.data + rows[k] * source.row_bytes, source.row_bytes)
        slot.n_staged += <int>n_rows
        return 0

    cdef void _flush(self, Slot slot) noexcept:
        """Count what is staged. The sources of the monitor itself are free: nobody else has them while the GIL is held."""
        cdef int i
        if slot.n_staged == 0:
            return
        for i in range(self.n_sources):
            if self.sources[i].is_staged:
                self.sources[i].data = slot.stage + self.sources[i].stage_at
                self.sources[i].row_elements = self._spec(i).row_elements
        count_rows(self, self.sources, slot.tile.cell, slot.tile.other, NULL, slot.n_staged, PART_STAGED)
        slot.n_staged = 0


# --- texts of a batch ---------------------------------------------------------------------------------------------------------------

cdef int point_at_wire(Span* texts, int index, list members, Slice* slices, int low, int high) except -1:
    """The members' own bytes: checked when the requests were bound."""
    cdef const TensorRef* tensor
    cdef const uint8_t* at
    cdef Request request
    cdef int64_t skip, take, row_elements
    cdef uint32_t n
    cdef int i
    for i in range(low, high):
        request = <Request>members[i]
        tensor = &request.tensors[index]
        if request.n_rows <= 0:
            continue
        row_elements = tensor.n_elements // request.n_rows
        skip, take = slices[i].first * row_elements, slices[i].n_rows * row_elements
        at = tensor.data
        while skip + take:
            memcpy(&n, at, 4)
            if skip:
                skip -= 1
            else:
                texts.ptr, texts.len = at + 4, n
                texts += 1
                take -= 1
            at += 4 + n
    return 0


cdef int point_at_objects(Span* texts, PyObject** cells, int64_t n) except -1:
    """Strings and bytes that an array keeps alive."""
    cdef Py_ssize_t size
    cdef int64_t i
    for i in range(n):
        element = <object>cells[i]
        if isinstance(element, bytes):
            texts[i].ptr, texts[i].len = <const uint8_t*>PyBytes_AS_STRING(element), PyBytes_GET_SIZE(element)
        elif isinstance(element, str):
            texts[i].ptr = <const uint8_t*>PyUnicode_AsUTF8AndSize(element, &size)
            texts[i].len = size
    return 0


# --- counting: may run without the GIL ----------------------------------------------------------------------------------------------

cdef void count_rows(Monitor monitor, const Source* sources, uint64_t* cells, Others** others, const int64_t* rows, int64_t n_rows,
                     Part part) noexcept nogil:
    """Column by column in blocks of rows, so that a block's values stay in the cache."""
    cdef int64_t at[BLOCK_ROWS]
    cdef double x[BLOCK_ROWS]
    cdef const Source* source
    cdef Column* column
    cdef int64_t start = 0
    cdef int n, i, k, n_columns = monitor.plan.n_columns
    while start < n_rows:
        n = <int>min(n_rows - start, <int64_t>BLOCK_ROWS)
        for k in range(n):
            at[k] = rows[start + k] if rows != NULL else start + k
        for i in range(n_columns):
            column = &monitor.plan.column[i]
            source = &sources[monitor.bindings[i].source]
            if column.statistic != STATISTIC_NONE or part == (PART_UNSTAGED if source.is_staged else PART_STAGED):
                continue
            if column.kind == COLUMN_WORDS:
                count_words(column, source, at, n, cells + column.first, &others[column.other])
            else:
                load(source, column.index, at, n, x)
                count_block(&column.bins, x, n, cells + column.first)
        for i in range(monitor.n_sources):
            if monitor.first_summary[i] >= 0 and part != PART_STAGED:
                for k in range(n):
                    if (sources[i].n_seen + start + k) % every_nth(&sources[i]) == 0:
                        count_summaries(monitor, &sources[i], monitor.first_summary[i], at[k], cells)
        start += n


cdef void load(const Source* source, int64_t index, const int64_t* at, int n, double* x) noexcept nogil:
    """One value of each row; a row that is too short for it has NaN."""
    cdef int64_t row = source.row_elements
    cdef int i, datatype = source.datatype
    cdef const uint8_t* data = source.data
    if index >= row:
        for i in range(n):
            x[i] = GW_NO_NUMBER
    elif datatype == DT_FP32:
        for i in range(n):
            x[i] = (<const float*>data)[at[i] * row + index]
    elif datatype == DT_FP64:
        for i in range(n):
            x[i] = (<const double*>data)[at[i] * row + index]
    elif datatype == DT_INT64:
        for i in range(n):
            x[i] = <double>(<const int64_t*>data)[at[i] * row + index]
    elif datatype == DT_INT32:
        for i in range(n):
            x[i] = (<const int32_t*>data)[at[i] * row + index]
    elif datatype == DT_FP16:
        for i in range(n):
            x[i] = half_to_double((<const uint16_t*>data)[at[i] * row + index])
    elif datatype == DT_BF16:
        for i in range(n):
            x[i] = bfloat_to_double((<const uint16_t*>data)[at[i] * row + index])
    elif datatype == DT_UINT8 or datatype == DT_BOOL:
        for i in range(n):
            x[i] = data[at[i] * row + index]
    elif datatype == DT_INT8:
        for i in range(n):
            x[i] = (<const int8_t*>data)[at[i] * row + index]
    elif datatype == DT_UINT16:
        for i in range(n):
            x[i] = (<const uint16_t*>data)[at[i] * row + index]
    elif datatype == DT_INT16:
        for i in range(n):
            x[i] = (<const int16_t*>data)[at[i] * row + index]
    elif datatype == DT_UINT32:
        for i in range(n):
            x[i] = (<const uint32_t*>data)[at[i] * row + index]
    elif datatype == DT_UINT64:
        for i in range(n):
            x[i] = <double>(<const uint64_t*>data)[at[i] * row + index]


cdef inline int64_t whole(const Source* source, int64_t at) noexcept nogil:
    """An element of a tensor of whole numbers, as 64 bits."""
    if source.datatype == DT_INT64:
        return (<const int64_t*>source.data)[at]
    if source.datatype == DT_INT32:
        return (<const int32_t*>source.data)[at]
    if source.datatype == DT_UINT8 or source.datatype == DT_BOOL:
        return source.data[at]
    if source.datatype == DT_INT8:
        return (<const int8_t*>source.data)[at]
    if source.datatype == DT_UINT16:
        return (<const uint16_t*>source.data)[at]
    if source.datatype == DT_INT16:
        return (<const int16_t*>source.data)[at]
    if source.datatype == DT_UINT32:
        return (<const uint32_t*>source.data)[at]
    return (<const int64_t*>source.data)[at]


cdef void count_words(const Column* column, const Source* source, const int64_t* at, int n, uint64_t* cells,
                      Others** others) noexcept nogil:
    cdef uint64_t* after = cells + column.words.n_words
    cdef int64_t row = source.row_elements, index = column.index, number
    cdef bint is_real = source.datatype == DT_FP32 or source.datatype == DT_FP64 or source.datatype == DT_FP16 or source.datatype == DT_BF16
    cdef double x[BLOCK_ROWS]
    cdef uint64_t hashed
    cdef Span text
    cdef int i, found
    if index >= row:
        after[CELL_MISSING] += n
        return
    if source.datatype == DT_BYTES:
        for i in range(n):
            text = source.texts[at[i] * row + index]
            if text.len == 0:
                after[CELL_MISSING] += 1
                continue
            hashed = hash_text(text)
            found = find_text(&column.words, text, hashed)
            if found >= 0:
                cells[found] += 1
            else:
                after[CELL_OTHER] += 1
                note_text(others, hashed, text)
        return
    if is_real:
        load(source, index, at, n, x)
    for i in range(n):
        if not is_real:
            number = whole(source, at[i] * row + index)
        elif x[i] != x[i]:
            after[CELL_MISSING] += 1
            continue
        elif not is_whole(x[i], &number):
            after[CELL_OTHER] += 1
            note_real(others, x[i])
            continue
        hashed = hash_number(<uint64_t>number)
        found = find_number(&column.words, <uint64_t>number, hashed)
        if found >= 0:
            cells[found] += 1
        else:
            after[CELL_OTHER] += 1
            note_whole(others, hashed, number, source.datatype == DT_UINT64)


cdef Counter* note(Others** others, uint64_t hashed) noexcept nogil:
    if others[0] == NULL:
        others[0] = others_new()
        if others[0] == NULL:
            return NULL                                       # it counts as OTHER, and is told apart no further
    return others_note(others[0], hashed)


cdef void note_text(Others** others, uint64_t hashed, Span text) noexcept nogil:
    cdef Counter* counter = note(others, hashed)
    if counter != NULL:
        counter.length = <uint8_t>min(text.len, <size_t>KEPT_TEXT_BYTES)
        memcpy(counter.text, text.ptr, counter.length)


cdef void note_whole(Others** others, uint64_t hashed, int64_t number, bint is_unsigned) noexcept nogil:
    cdef Counter* counter = note(others, hashed)
    if counter == NULL:
        return
    if is_unsigned:
        counter.length = <uint8_t>snprintf(<char*>counter.text, KEPT_TEXT_BYTES, "%llu", <unsigned long long>number)
    else:
        counter.length = <uint8_t>snprintf(<char*>counter.text, KEPT_TEXT_BYTES, "%lld", <long long>number)


cdef void note_real(Others** others, double x) noexcept nogil:
    cdef uint64_t bits
    cdef Counter* counter
    memcpy(&bits, &x, 8)
    counter = note(others, hash_number(bits))
    if counter != NULL:
        counter.length = <uint8_t>snprintf(<char*>counter.text, KEPT_TEXT_BYTES, "%.17g", x)


cdef inline int64_t every_nth(const Source* source) noexcept nogil:
    """Of how many rows one is summarised: the work for each row that comes is bounded."""
    return 1 + source.row_elements // SUMMARY_VALUES if source.datatype != DT_BYTES else 1


cdef void load_run(const Source* source, int64_t begin, int n, double* x) noexcept nogil:
    """Values that lie one after the other."""
    cdef int64_t at[CHUNK]
    cdef const float* singles
    cdef const uint8_t* octets
    cdef Source flat
    cdef int k
    if source.datatype == DT_FP32:
        singles = <const float*>source.data + begin
        for k in range(n):
            x[k] = singles[k]
    elif source.datatype == DT_UINT8:
        octets = source.data + begin
        for k in range(n):
            x[k] = octets[k]
    else:
        memcpy(&flat, source, sizeof(Source))
        flat.row_elements = 1                                 # as a column
        for k in range(n):
            at[k] = begin + k
        load(&flat, 0, at, n, x)


cdef void count_summaries(Monitor monitor, const Source* source, int first, int64_t row, uint64_t* cells) noexcept nogil:
    """All statistics of one row of one tensor, in one pass."""
    cdef Summary summary
    cdef double x[CHUNK]
    cdef double projected[MAX_PROJECTIONS]
    cdef double value, root
    cdef int64_t n = source.row_elements, begin = 0, n_bytes = 0, word
    cdef bint has_sums = False, has_values = False
    cdef Column* column
    cdef int i, k, at, size
    start_summary(&summary)
    memset(projected, 0, sizeof(projected))
    i = first
    while i >= 0:
        column = &monitor.plan.column[i]
        has_values |= column.statistic != STATISTIC_LENGTH
        has_sums |= column.statistic != STATISTIC_LENGTH and column.statistic != STATISTIC_PROJECTION
        i = monitor.bindings[i].next
    if source.datatype == DT_BYTES:
        for word in range(n):
            n_bytes += <int64_t>source.texts[row * n + word].len
    while has_values and begin < n:
        size = <int>min(n - begin, <int64_t>CHUNK)
        load_run(source, row * n + begin, size, x)
        if has_sums:
            summarise(&summary, x, size)
        i, k = first, 0
        while i >= 0:
            column = &monitor.plan.column[i]
            if column.statistic == STATISTIC_PROJECTION:
                at = 0
                while at < size:
                    projected[k] += project(x + at, min(size - at, 64), sign_word(column.seed, (begin + at) // 64))
                    at += 64
                k += 1
            i = monitor.bindings[i].next
        begin += size
    root = sqrt(<double>n)
    i, k = first, 0
    while i >= 0:
        column = &monitor.plan.column[i]
        if column.statistic == STATISTIC_LENGTH:
            value = <double>(n_bytes if source.datatype == DT_BYTES else n)
        elif n == 0:
            value = GW_NO_NUMBER
        elif column.statistic == STATISTIC_MEAN:
            value = mean_of(&summary)
        elif column.statistic == STATISTIC_STD:
            value = std_of(&summary)
        elif column.statistic == STATISTIC_MIN:
            value = least_of(&summary)
        elif column.statistic == STATISTIC_MAX:
            value = greatest_of(&summary)
        elif column.statistic == STATISTIC_NORM:
            value = norm_of(&summary)
        else:
            value = projected[k] / root
            k += 1
        value = <double><float>value
        count_block(&column.bins, &value, 1, cells + column.first)
        i = monitor.bindings[i].next
