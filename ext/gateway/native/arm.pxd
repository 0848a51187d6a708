# Arm: one side of a comparison as a request meets it: a version, under a name, for one stage. It outlives the route tables that lead to
# it, so what is counted on it goes on over a swap. Loop thread only.
from libc.stdint cimport int64_t, uint64_t

from gateway.native.histogram cimport Histogram
from gateway.native.refusal cimport N_CODES
from gateway.native.scales cimport Scales, Seen


cdef struct ArmStats:         # cumulative since start
    uint64_t requests[N_CODES]          # settled or refused, by gRPC code; first attempts only
    uint64_t cancelled
    Histogram request[2]                # from admission to the answer, by protocol: gRPC, REST


cdef class Arm:
    cdef readonly str model, version
    cdef readonly str name              # stable, candidate, shadow, fallback, pinned, or a variant's
    cdef readonly int64_t stage         # a stretch of time with a constant weight: the route's generation
    cdef readonly int weight            # the probability with which it was drawn, in 1/10,000; 0: it is not drawn
    cdef ArmStats stats
    cdef public Scales scales           # None: nobody compares it with another
    cdef public int side                # there: 0 stable, 1 candidate
    cdef bytes named                    # all of the above as its tokens have it (see receipt.pxd); None: none was made yet

    cdef void note(self, int code, int64_t took_us, bint is_rest=*) noexcept
    cdef void weigh(self, int64_t mark, int code, bint has_run, int64_t took_us, const Seen* seen, int64_t now_us) noexcept
