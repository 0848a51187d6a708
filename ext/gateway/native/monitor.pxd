# Monitor: counts what one version is given and says, into the tile of each arm and stage, minute by minute.
#
# Once a batch, after its answers are encoded. Rows of a small batch are kept until there are enough of them: a column's bins and cells are
# then fetched from memory once for all, which is most of the work. A batch of some size is counted with the GIL held, straight into the
# tile: microseconds. A large one fills a tile of its own without the GIL, which is then merged. So no tile is ever touched by two threads,
# and there is no lock.
from libc.stdint cimport int64_t, uint8_t

from gateway.native.arm cimport Arm
from gateway.native.tileplan cimport TilePlan
from gateway.native.rowcount cimport Binding, Source, Watched
from gateway.native.signature cimport Signature, TensorSpec
from gateway.native.tile cimport Tile


cdef class Slot:
    cdef Arm arm                        # None: requests without one
    cdef str name
    cdef int64_t number                 # of the arm's stage
    cdef Tile tile
    cdef bint is_changed                # since the last cut
    cdef uint8_t* stage                 # owned: rows that are not counted yet, tensor after tensor; NULL: none came so far
    cdef int n_staged


cdef class Monitor:
    cdef readonly TilePlan plan
    cdef readonly Signature signature
    cdef int n_sources
    cdef Watched watched                # what a count goes by: pointers into this and the plan
    cdef size_t stage_bytes             # of a slot; 0: nothing is staged
    cdef bint has_unstaged
    cdef Source* sources                # owned; data and row_elements are those of a batch while it is counted
    cdef Binding* bindings              # owned, one a column
    cdef int* first_summary             # owned, one a source: the first of its summaries, or -1
    cdef int64_t window_us
    cdef int64_t window                 # number of the one in progress, since 1970
    cdef int64_t ends_us                # monotonic
    cdef int64_t wall_ahead_us          # wall clock less monotonic clock
    cdef list slots                     # of the window in progress
    cdef list finished                  # (arm, stage, window start in s, Tile), not cut yet
    cdef readonly int64_t n_dropped     # tiles that nobody cut in time

    cdef int observe(self, list members, void* slices, int low, int high, list inputs, list outputs, int64_t now_us) except -1
    cdef int note_request(self, Arm arm, int code, int64_t took_us, int64_t now_us) except -1
    cdef int note_refused(self, Arm arm, int code, int64_t now_us) except -1

    cdef const TensorSpec* _spec(self, int source)
    cdef int _choose_stage(self, int source) except -1
    cdef Slot _slot(self, Arm arm)
    cdef int _stage(self, Slot slot, const Source* sources, const int64_t* rows, int64_t n_rows) except -1
    cdef void _flush(self, Slot slot) noexcept
    cdef int _roll(self, int64_t now_us) except -1
    cdef int _bind(self, int i, dict given) except -1
    cdef int _point(self, Source* sources, list inputs, list outputs, int64_t n_rows, list members, void* slices, int low,
                    int high) except -1
    cdef int _count(self, Source* sources, Arm arm, const int64_t* rows, int64_t n_rows) except -1
