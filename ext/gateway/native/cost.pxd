# Cost: how long a run of b rows takes, as c + a*b, learnt from what ran. Least squares with forgetting; microseconds.
from libc.stdint cimport int64_t


cdef extern from *:
    """
    #define GW_COST_FORGET 0.98        /* a change of speed shows within about 50 batches */
    #define GW_COST_CLIP 3.0           /* one batch counts at most three times what was expected: a pre-empted run is no trend */
    #define GW_COST_FLOOR_US 20.0
    """
    const double GW_COST_FORGET, GW_COST_CLIP, GW_COST_FLOOR_US


cdef struct Cost:
    double weight, rows, us, rows_rows, rows_us           # decayed sums
    double trust                                          # 0..1: how much of the estimate a refusal may rest on


cdef inline double predict_us(const Cost* k, double rows) noexcept nogil:
    """Expected microseconds for `rows`; 0 when nothing has run yet."""
    cdef double mean_rows, mean_us, variance, slope
    if k.weight <= 0:
        return 0
    mean_rows, mean_us = k.rows / k.weight, k.us / k.weight
    variance = k.rows_rows / k.weight - mean_rows * mean_rows
    if variance > 0.01 * mean_rows * mean_rows:
        slope = (k.rows_us / k.weight - mean_rows * mean_us) / variance
        if slope < 0:
            slope = 0
    else:
        slope = 0.5 * mean_us / mean_rows if mean_rows > 0 else 0      # one size only: half of it is taken to grow with rows
    mean_us += slope * (rows - mean_rows)
    return mean_us if mean_us > 0 else 0


cdef inline void observe(Cost* k, double rows, double us) noexcept nogil:
    cdef double expected, most
    expected = predict_us(k, rows)
    if us >= expected:                                        # nothing known, or the estimate is none too high
        k.trust = 1
    elif us > expected * k.trust:
        k.trust = us / expected
    if k.weight > 0:
        most = expected * GW_COST_CLIP + GW_COST_FLOOR_US
        if us > most:
            us = most
    k.weight = k.weight * GW_COST_FORGET + 1
    k.rows = k.rows * GW_COST_FORGET + rows
    k.us = k.us * GW_COST_FORGET + us
    k.rows_rows = k.rows_rows * GW_COST_FORGET + rows * rows
    k.rows_us = k.rows_us * GW_COST_FORGET + rows * us


cdef inline void relax(Cost* k) noexcept nogil:
    """A request was refused on this estimate: believe a little less, or a wrong one would refuse for ever. What decides where a batch
    runs stays as it was measured: a caller with hopeless deadlines must not talk a slow model onto the loop thread."""
    k.trust *= 0.95
