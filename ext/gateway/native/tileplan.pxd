# TilePlan: what is counted of one version, column by column, and where its cells are. Immutable once built: it is compiled from a
# profile (or from a signature, where there is none), and everything of that which depends on data is frozen in there.
from libc.stdint cimport int64_t, uint64_t

from gateway.native.sketch cimport Bins, Span, Word, Words


cdef enum ColumnKind:
    COLUMN_BINNED = 0
    COLUMN_WORDS = 1


cdef enum Statistic:          # of a row's tensor; NONE: one value of it
    STATISTIC_NONE = 0
    STATISTIC_MEAN = 1
    STATISTIC_STD = 2
    STATISTIC_MIN = 3
    STATISTIC_MAX = 4
    STATISTIC_NORM = 5
    STATISTIC_PROJECTION = 6
    STATISTIC_LENGTH = 7


cdef enum:                    # what every tile counts
    TILE_ROWS = 0
    TILE_REQUESTS = 1         # answered, by gRPC code: 17 cells
    TILE_VIOLATIONS = 18      # refused, because they do not fit the signature
    TILE_LATENCY = 19         # of the requests that were answered OK
    N_LATENCY = 737           # exact below 32 us, then 32 to an octave up to 2**27 us (134 s); the last is above
    TILE_COLUMNS = 756


cdef struct Column:
    ColumnKind kind
    Statistic statistic
    bint is_output
    int64_t index             # of the value in the row's tensor, flat
    uint64_t seed             # of a projection
    Bins bins
    Words words
    int n_cells
    int first                 # its first cell in a tile
    int other                 # which of a tile's Others is this column's; -1: none


cdef class TilePlan:
    cdef readonly list columns          # what it was built from, dictionaries
    cdef readonly bytes digest          # of that: tiles of one digest add up
    cdef readonly int n_cells           # of a tile
    cdef int n_columns, n_others
    cdef Column* column                 # owned
    cdef uint64_t* greatest             # owned, a bit a cell: the greatest stays, the others add up
    cdef list keep                      # arrays and texts that the columns point into

    cdef int _fill_bins(self, Column* column, dict given) except -1
    cdef int _fill_words(self, Column* column, dict given) except -1


cdef inline bint is_greatest(const uint64_t* bits, int cell) noexcept nogil:
    return (bits[cell >> 6] >> (cell & 63)) & 1
