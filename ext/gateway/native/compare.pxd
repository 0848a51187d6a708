# Compare: two answers to one request, output by output. Leaf loops over bytes that somebody else keeps alive: any thread, no GIL.
#
#   read_answer   Body of an answer ─▶ TensorViews into it
#   compare       two TensorViews ─▶ Difference
from libc.stdint cimport int64_t, uint8_t

from gateway.native.cursor cimport Span
from gateway.native.signature cimport MAX_DIMS


cdef enum:
    TOP_K = 5                 # classes of a row that are looked at, and never all of them: see Difference.n_shared


cdef enum Comparison:         # how two tensors could be compared
    COMPARED = 0
    DIFFERENT_SHAPE = 1
    DIFFERENT_KIND = 2        # strings beside numbers
    MISSING = 3               # only one side has it


cdef extern from *:
    """
    #define GW_RELATIVE_FLOOR 1e-6     /* of values that are both nearer to 0 the ratio says nothing: noise */
    """
    const double GW_RELATIVE_FLOOR


cdef struct Tolerance:        # two numbers a, b agree when |a - b| <= absolute + relative * max(|a|, |b|)
    double absolute, relative


cdef struct TensorView:
    Span name
    int datatype              # DT_INVALID: none of ours
    int n_dims
    int64_t dims[MAX_DIMS]
    const uint8_t* data
    size_t nbytes


cdef struct Difference:       # of one output. NaN equals NaN and -0 equals 0; strings agree only when equal, byte for byte
    Comparison comparison
    bint is_other_datatype
    int64_t n_elements
    int64_t n_differ          # not equal
    int64_t n_beyond          # not within the tolerance
    int64_t n_nan[2]          # primary, shadow
    int64_t n_inf[2]
    int64_t n_broken          # NaN or infinite on one side, and not the same on the other; among n_beyond
    double max_absolute, max_relative   # over elements that are finite on both sides; relative to the larger of the two
    double mean_absolute, mean_relative
    int64_t worst             # index of the largest relative difference, or of the first that is broken; -1: none
    int64_t n_rows            # along the last axis, where that is longer than 1; else 0
    int64_t n_same_first      # rows with the same largest entry (the first of equals; NaN is smaller than all)
    int64_t n_same_top        # rows with the same set of the k largest, k = min(TOP_K, length - 1)
    int64_t n_top, n_shared   # entries in those sets over all rows, and how many of them both have


cdef int read_answer(Span body, bint streamed, TensorView* views, int room) noexcept nogil     # outputs, also beyond room; -1: malformed
cdef void compare(const TensorView* primary, const TensorView* shadow, Tolerance tolerance, Difference* found) noexcept nogil
cdef bint agrees(const Difference* found) noexcept nogil
cdef int read_numbers(int datatype, const uint8_t* at, int64_t n, double* out) noexcept nogil   # -1: not numbers
