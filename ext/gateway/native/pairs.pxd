# Pairs: what is known of the answers of one shadow beside those of one primary arm. Integers that add up over workers, and a few samples
# for people. Loop thread only, but for Comparer.run.
from libc.stdint cimport int64_t, uint64_t

from gateway.native.arm cimport Arm
from gateway.native.compare cimport Difference, TensorView, Tolerance
from gateway.native.cursor cimport Span
from gateway.native.histogram cimport Histogram
from gateway.native.refusal cimport N_CODES
from gateway.native.request cimport Request


cdef enum:
    N_SIZES = 18              # 0; up to each power of ten from 1e-9 to 1e6; above
    MAX_OUTPUTS = 256         # of a pair that are compared; the rest is counted as left out
    MAX_KEPT = 16             # samples of each list
    MAX_KEPT_BYTES = 65536    # tensors of one sample; what is larger is cut and summarised
    KEEP_EVERY_US = 100000    # between two of the recent samples: telling them apart costs more than comparing


cdef struct OutputCounts:     # of one output, over all pairs
    uint64_t pairs, exact, within                             # compared; equal; within the tolerance, equal ones too
    uint64_t other_shape, other_kind, other_datatype, missing
    uint64_t nan[2]           # pairs with some on this side: primary, shadow
    uint64_t inf[2]
    uint64_t broken           # pairs in which NaN or infinity stands beside something else
    uint64_t elements, elements_differ, elements_beyond
    uint64_t rows, same_first, same_top, top, shared
    uint64_t max_absolute[N_SIZES]      # pairs by the size of it
    uint64_t max_relative[N_SIZES]
    uint64_t mean_absolute[N_SIZES]
    uint64_t mean_relative[N_SIZES]
    double worst_absolute, worst_relative


cdef struct PairCounts:
    uint64_t both_answered, agreed, exact, disagreed, unreadable
    uint64_t shadow_failed[N_CODES]     # the primary answered
    uint64_t primary_failed[N_CODES]    # the shadow answered
    uint64_t both_failed
    uint64_t outputs_left_out
    uint64_t other_decision   # pairs with another class in some row, another word or whole number, or what cannot be compared
    uint64_t relative[N_SIZES]          # the other pairs, by the largest relative difference in outputs that decide for no class
    uint64_t broken_alone     # pairs whose shadow has NaN, infinity or a shape that its primary has not
    Histogram primary_run     # from the start of its batch to the answer, of pairs that both answered
    Histogram shadow_run
    uint64_t shadow_slower


cdef class Comparer:          # reads two answers and holds what was found, until the next
    cdef TensorView* primary            # owned, room of each
    cdef TensorView* shadow
    cdef Difference* found              # one a primary output
    cdef int room, n_primary, n_shadow
    cdef bint is_readable, agrees, is_exact
    cdef double severity                # what disagreements are ranked by, see severity_of; negative: nothing to rank by
    cdef double absolute, relative      # the largest differences of the output that is worst; strings: 0
    cdef int worst                      # output that it is of

    cdef void run(self, Span primary, bint streamed, Span shadow, Tolerance tolerance) noexcept nogil
    cdef int _read(self, Span primary, bint streamed, Span shadow) noexcept nogil


cdef class Sample:            # one disagreement, for people
    cdef readonly str id
    cdef readonly int64_t at_us         # monotonic
    cdef readonly double severity, absolute, relative       # as the comparer had them
    cdef readonly int primary_code, shadow_code
    cdef readonly str text              # why the shadow failed
    cdef readonly str output            # where it is worst; "": cannot be said
    cdef readonly int64_t index         # there; -1: cannot be said
    cdef readonly list inputs, primary, shadow      # (name, datatype, shape, bytes or their head, nbytes, summary or None)


cdef class PairStats:
    cdef readonly Arm primary           # None: requests that no arm counts
    cdef readonly Arm shadow
    cdef Tolerance tolerance
    cdef PairCounts counts
    cdef OutputCounts* outputs          # owned
    cdef list names                     # of outputs, bytes
    cdef int n_outputs
    cdef readonly list worst            # Samples, worst first
    cdef readonly list recent           # Samples, oldest first
    cdef int64_t kept_us

    cdef int note_compared(self, Comparer comparer, Request shadow, int64_t primary_us, int64_t shadow_us, int64_t now_us) except -1
    cdef int note_failed(self, Request shadow, int primary_code, int shadow_code, str text, int64_t now_us) except -1

    cdef OutputCounts* _output(self, Span name, int position) except NULL
    cdef int _keep(self, Comparer comparer, Request shadow, int64_t now_us) except -1
