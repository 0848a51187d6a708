# Tile: what one version, arm and stage saw over a stretch of time, as integers. Tiles of one plan add up, in any order and grouping, to the
# same bits. Whoever touches one holds the GIL, or holds it alone.
from libc.stdint cimport int64_t, uint64_t

from gateway.native.cursor cimport Cursor
from gateway.native.others cimport Others
from gateway.native.tileplan cimport N_LATENCY, TilePlan
from gateway.native.sketch cimport GW_LEADING_ZEROS


cdef class Tile:
    cdef readonly TilePlan plan
    cdef uint64_t* cell                 # owned, plan.n_cells
    cdef Others** other                 # owned, plan.n_others; NULL where nothing came that is not in the vocabulary

    @staticmethod
    cdef Tile new(TilePlan plan)
    cdef int merge(self, Tile more) except -1
    cdef void trim(self) noexcept       # what a stream of one worker does after a merge: back to bounded memory
    cdef int read_cells(self, Cursor* c) except -1
    cdef void note_request(self, int code, int64_t took_us) noexcept


cdef inline int latency_cell(int64_t us) noexcept nogil:
    cdef int shift
    if us < 32:
        return <int>us if us > 0 else 0
    shift = 58 - GW_LEADING_ZEROS(<uint64_t>us)               # bits below the leading one and its five followers
    if shift > 21:
        return N_LATENCY - 1
    return 32 * shift + <int>(us >> shift)
