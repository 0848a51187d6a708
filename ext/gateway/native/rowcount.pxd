# Rowcount: rows of tensors, counted into cells by a plan's columns. May run without the GIL; whoever calls keeps all memory alive.
from libc.stdint cimport int64_t, uint8_t, uint64_t

from gateway.native.others cimport Others
from gateway.native.sketch cimport Span
from gateway.native.tileplan cimport Column


cdef enum:
    MAX_PROJECTIONS = 64      # of one tensor
    SUMMARY_VALUES = 8192     # of a row that may be looked at for each row that comes: of larger tensors, a share of the rows is


cdef enum Part:               # which columns
    PART_ALL = 0
    PART_STAGED = 1
    PART_UNSTAGED = 2


cdef struct Source:           # one tensor of a batch
    bint is_wanted            # some column looks at it
    bint is_staged            # rows of small batches are kept: they are small, and nothing but numbers
    int datatype
    const uint8_t* data       # row after row
    Span* texts               # BYTES: one an element; owned by the batch's turn
    int64_t row_elements
    size_t row_bytes, stage_at          # of those that are staged
    int n_projections
    int64_t n_seen            # rows of this window: of a large tensor's, each of so many is summarised


cdef struct Binding:          # of a column: where its values are
    int source                # inputs first, then outputs
    int next                  # summaries: the next column of the same tensor, or -1


cdef struct Watched:          # borrowed: a monitor's
    const Column* columns
    int n_columns, n_sources
    const Binding* bindings             # one a column
    const int* first_summary            # one a source


cdef void count_rows(const Watched* watched, const Source* sources, uint64_t* cells, Others** others, const int64_t* rows,
                     int64_t n_rows, Part part) noexcept nogil          # rows NULL: the first n_rows
