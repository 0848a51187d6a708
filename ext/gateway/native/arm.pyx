"""What is counted of one version under one name."""
cimport cython
from libc.stdint cimport int64_t

from gateway.native.histogram cimport N_BOUNDS, Histogram, record
from gateway.native.refusal cimport N_CODES
from gateway.native.scales cimport Seen


@cython.final
cdef class Arm:
    """Arm(model, version, name, stage=0, weight=0)."""

    def __init__(self, str model not None, str version not None, str name not None, int64_t stage=0, int weight=0):
        self.model, self.version, self.name, self.stage, self.weight = model, version, name, stage, weight

    cdef void note(self, int code, int64_t took_us, bint is_rest=False) noexcept:
        self.stats.requests[code] += 1
        record(&self.stats.request[is_rest], took_us)

    cdef void weigh(self, int64_t mark, int code, bint has_run, int64_t took_us, const Seen* seen, int64_t now_us) noexcept:
        """A request that `scales` has marked has ended."""
        self.scales.settle(self.side, mark, code, has_run, took_us, seen, now_us)

    def absorb(self, Arm other not None):
        """Add its counters to ours: an arm that is over, to the sum of its name."""
        cdef int i, protocol
        for i in range(<int>N_CODES):
            self.stats.requests[i] += other.stats.requests[i]
        self.stats.cancelled += other.stats.cancelled
        for protocol in range(2):
            for i in range(<int>N_BOUNDS + 1):
                self.stats.request[protocol].counts[i] += other.stats.request[protocol].counts[i]
            self.stats.request[protocol].sum_us += other.stats.request[protocol].sum_us

    def statistics(self):
        """Counters since start, as a dictionary."""
        return {
            "requests": {code: self.stats.requests[code] for code in range(<int>N_CODES) if self.stats.requests[code]},
            "cancelled": self.stats.cancelled,
            "request_us": {"grpc": as_tuple(&self.stats.request[0]), "rest": as_tuple(&self.stats.request[1])},
        }


cdef tuple as_tuple(const Histogram* h):
    """(counts by bucket, sum in microseconds)."""
    return tuple([h.counts[i] for i in range(<int>N_BOUNDS + 1)]), h.sum_us
