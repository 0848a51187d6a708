"""Counts a version's inputs, outputs and answers."""
cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from gateway.native.arm cimport Arm
from gateway.native.batch cimport Slice
from gateway.native.clock cimport monotonic_us
from gateway.native.datatype cimport DT_BYTES, GW_DATATYPES, datatype_size
from gateway.native.refusal cimport INVALID_ARGUMENT
from gateway.native.request cimport Request, TensorRef
from gateway.native.rowcount cimport (
    MAX_PROJECTIONS, PART_ALL, PART_STAGED, PART_UNSTAGED, SUMMARY_VALUES, Source, count_rows)
from gateway.native.signature cimport Signature, TensorSpec
from gateway.native.sketch cimport Span
from gateway.native.tile cimport Tile
from gateway.native.tileplan cimport (
    COLUMN_WORDS, STATISTIC_LENGTH, STATISTIC_NONE, STATISTIC_PROJECTION, TILE_ROWS, TILE_VIOLATIONS, Column, TilePlan)

cnp.import_array()

cdef enum:
    NOGIL_MIN_VALUES = 8192   # some 30 us of counting: from there on other threads gain more than letting go of the GIL costs
    MAX_SLOTS = 64            # arms and stages in one window; what comes beyond is counted under no name
    MAX_FINISHED = 256        # tiles that wait for a cut: an agent comes every few seconds, or is gone
    STAGE_ROWS = 64           # kept until counted: enough to forget what a column costs by itself, and some 10 us of counting
    STAGE_BELOW_ROWS = 24     # a batch of more is counted at once
    STAGE_ROW_BYTES = 4096    # rows that are larger are work enough by themselves


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
        self.watched.columns, self.watched.n_columns, self.watched.n_sources = plan.column, plan.n_columns, self.n_sources
        self.watched.bindings, self.watched.first_summary = self.bindings, self.first_summary

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
                    count_rows(&self.watched, sources, slot.tile.cell, slot.tile.other, rows, n_rows, PART_UNSTAGED)
            else:
                count_rows(&self.watched, sources, slot.tile.cell, slot.tile.other, rows, n_rows, PART_ALL)
        else:
            own = Tile.new(self.plan)
            with nogil:
                count_rows(&self.watched, sources, own.cell, own.other, rows, n_rows, PART_ALL)
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
        count_rows(&self.watched, self.sources, slot.tile.cell, slot.tile.other, NULL, slot.n_staged, PART_STAGED)
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
