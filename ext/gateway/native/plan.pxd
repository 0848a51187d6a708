# Plan: how one model's unpinned requests are spread: rules in order, the first that matches has the split; a split is drawn at random, or
# by the sticky key. Built once, then only read: `choose` allocates nothing and takes no lock. Loop thread only, for the dice's sake.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from gateway.native.cursor cimport Span
from gateway.native.route cimport Asked, Tally, Target


cdef enum:
    MAX_FIELDS = 32           # headers and parameters that one plan can look at: their values lie on the stack
    DIGITS_BYTES = 24         # an int64 in decimal


cdef struct Choice:           # one side of a split
    uint64_t seed             # of its draw by key
    uint32_t upto             # its share and those before it, of SHARE_UNIT
    double weight             # its share
    void* target              # borrowed from the plan's keep


cdef struct Split:
    Choice* choices           # owned
    int n_choices


cdef struct Rule:
    int field
    bint is_prefix            # else equal
    Span* values              # owned, what they point to is kept; sorted when not is_prefix
    int n_values
    Split split


cdef struct Field:
    Span name
    bint is_parameter         # of the request, else a header


cdef struct Value:            # what one request has for a field
    Span span
    bint is_known, is_there
    uint8_t digits[DIGITS_BYTES]        # behind span, when the parameter is a number


cdef class Plan:
    cdef readonly Tally tally
    cdef readonly int64_t generation
    cdef Field fields[MAX_FIELDS]
    cdef int n_fields
    cdef Rule* rules                    # owned
    cdef int n_rules
    cdef Split split                    # when no rule matches
    cdef int sticky                     # field; -1: not sticky
    cdef bint has_shadows
    cdef readonly bint wants_headers
    cdef uint64_t k0, k1                # the salt
    cdef list keep

    cdef Target choose(self, Asked* asked)                  # never None

    cdef Value* _value(self, int field, Value* values, const Asked* asked) noexcept
    cdef Target _drawn(self, Split* split, const Asked* asked)
    cdef int _field(self, bint is_parameter, bytes name) except -1
    cdef int _add_rule(self, bint is_parameter, bytes name, bint is_prefix, list values, list split) except -1
    cdef int _fill(self, Split* split, list choices) except -1
