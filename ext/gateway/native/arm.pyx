"""What is counted of one version under one name."""
cimport cython
from libc.stdint cimport int64_t

from gateway.native.histogram cimport N_BOUNDS, record
from gateway.native.refusal cimport N_CODES


@cython.final
cdef class Arm:
    """Arm(model, version, name, stage=0, weight=0)."""

    def __init__(self, str model not None, str version not None, str name not None, int64_t stage=0, int weight=0):
        self.model, self.version, self.name, self.stage, self.weight = model, version, name, stage, weight

    cdef void note(self, int code, int64_t took_us) noexcept:
        self.stats.requests[code] += 1
        record(&self.stats.request, took_us)

    def statistics(self):
        """Counters since start, as a dictionary."""
        return {
            "requests": {code: self.stats.requests[code] for code in range(<int>N_CODES) if self.stats.requests[code]},
            "cancelled": self.stats.cancelled,
            "request_us": (tuple([self.stats.request.counts[i] for i in range(<int>N_BOUNDS + 1)]), self.stats.request.sum_us),
        }
