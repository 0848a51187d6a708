# Linger: whether an idle executor waits a moment for companions of what is queued, learnt from what came in such moments.
#
# A run costs c + a*rows (cost.pxd). Callers that were answered together ask again together: who takes the first four of sixteen that
# are on their way pays c twice, and so do all who wait for it. So each time that an idle executor finds work, a window of a share of c
# opens, and the rows that come while it is open are counted, whether or not anybody waits for them. When about as many as usual would
# save more than the wait can cost, the batch is held until they are there, and never longer than the window.
# A caller alone never waits: nothing ever comes in its windows. A model that is cheap to run has none.
from libc.stdint cimport int64_t


cdef extern from *:
    """
    #define GW_LINGER_SHARE 0.5        /* of a run's fixed cost: the longest wait */
    #define GW_LINGER_MIN_US 50.0      /* shorter windows are within the noise of a loop's turn */
    #define GW_LINGER_MAX_US 5000.0
    #define GW_LINGER_LEARN 0.125      /* weight of the latest window */
    #define GW_LINGER_ENOUGH 0.9       /* of the rows expected: who still waits for the last waits for a straggler */
    """
    const double GW_LINGER_SHARE, GW_LINGER_MIN_US, GW_LINGER_MAX_US, GW_LINGER_LEARN, GW_LINGER_ENOUGH


cdef struct Linger:
    int64_t until_us                    # end of the window that was opened last; 0: none yet
    int64_t first_rows, more_rows       # queued when it opened; and arrived since, while it was open
    double expected, expected_more      # decayed means of all of a window's rows, and of more_rows
    double enough_rows                  # held until so many are queued; 0: nobody is held


cdef inline void arrived(Linger* k, int64_t rows, int64_t now_us) noexcept nogil:
    if now_us <= k.until_us:
        k.more_rows += rows


cdef inline int64_t hold_until_us(Linger* k, int64_t rows, int64_t max_rows, double fixed_us, int64_t now_us) noexcept nogil:
    """An executor is idle and `rows` are queued: until when to wait for more; 0: not at all."""
    cdef double span_us, more
    if k.enough_rows == 0 and now_us > k.until_us:
        if k.until_us:
            k.expected += GW_LINGER_LEARN * (k.first_rows + k.more_rows - k.expected)
            k.expected_more += GW_LINGER_LEARN * (k.more_rows - k.expected_more)
        span_us = GW_LINGER_SHARE * fixed_us
        if span_us > GW_LINGER_MAX_US:
            span_us = GW_LINGER_MAX_US
        k.until_us, k.first_rows, k.more_rows = now_us + <int64_t>span_us, rows, 0
        more = k.expected - rows if k.expected - rows < k.expected_more else k.expected_more
        if span_us >= GW_LINGER_MIN_US and more >= 1 and more * fixed_us > rows * span_us:
            k.enough_rows = GW_LINGER_ENOUGH * (rows + more)
    if rows >= max_rows or rows >= k.enough_rows or now_us >= k.until_us:
        k.enough_rows = 0
    return k.until_us if k.enough_rows > 0 else 0
