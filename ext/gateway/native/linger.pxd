# Linger: whether an idle executor waits a moment for those who are about to ask again, learnt from how those before them did.
#
# A run costs c + a*rows (cost.pxd). Callers that are answered together ask again together, and they come in pieces: an executor that takes
# the first piece pays c for it, the rest waits for the other executors, and is a small batch again when it is answered. So the lane notes
# how many of those that were answered came back, and how late. Whoever is owed that way, is queued or runs is shared out among the
# executors: an idle one is held until its share is queued, if they come faster than a run without them is worth (queued / c: the rate
# at which a longer wait makes a run's fixed cost per request no smaller). It is held once, and for half of c at most.
# A caller alone never waits: when it has asked again, nobody is owed. A model that is cheap to run holds nobody.
from libc.stdint cimport int64_t


cdef extern from *:
    """
    #define GW_LINGER_SHARE 0.5        /* of a run's fixed cost: the longest wait */
    #define GW_LINGER_MIN_US 50.0      /* shorter waits are within the noise of a loop's turn */
    #define GW_LINGER_MAX_US 5000.0
    #define GW_LINGER_RETURN 2.0       /* fixed costs after an answer: who asks later than that is somebody else */
    #define GW_LINGER_FORGET 0.875     /* of what was learnt, with each batch */
    """
    const double GW_LINGER_SHARE, GW_LINGER_MIN_US, GW_LINGER_MAX_US, GW_LINGER_RETURN, GW_LINGER_FORGET


cdef struct Linger:                     # in requests, not rows: one caller is one, whatever it asks
    double answered, back, late_us      # decayed sums: answered; of these come back; how late, summed over those who came
    double owed                         # expected back of those answered last, and not there yet
    int64_t answered_us, until_us       # the last answers; until when those who come are taken for their callers
    int64_t held_until_us               # 0: nobody is held


cdef inline void arrived(Linger* k, int64_t now_us) noexcept nogil:
    if now_us <= k.until_us:
        k.back += 1
        k.late_us += now_us - k.answered_us
        k.owed = k.owed - 1 if k.owed > 1 else 0


cdef inline void answered(Linger* k, int64_t requests, double fixed_us, int64_t now_us) noexcept nogil:
    """A batch ended, and so many have their answer."""
    cdef double share = k.back / k.answered if k.answered > 0 else 0
    if requests <= 0:
        return
    if now_us >= k.until_us:
        k.owed = 0
    else:                               # who was owed before is given up bit by bit: else answer upon answer would keep him owed for ever
        k.owed *= <double>(k.until_us - now_us) / (k.until_us - k.answered_us)
    k.owed += requests * (share if share < 1 else 1)
    k.answered = k.answered * GW_LINGER_FORGET + requests
    k.back *= GW_LINGER_FORGET
    k.late_us *= GW_LINGER_FORGET
    k.answered_us, k.until_us = now_us, now_us + <int64_t>(GW_LINGER_RETURN * fixed_us)


cdef inline int64_t hold_until_us(Linger* k, int64_t queued, int64_t all, int instances, double fixed_us, int64_t now_us) noexcept nogil:
    """An executor is idle, and of `all` requests in the lane `queued` are not running: until when to wait for more; 0: not at all."""
    cdef int64_t is_held_until_us = k.held_until_us
    cdef double span_us = GW_LINGER_SHARE * fixed_us, left_us
    cdef int64_t expected
    if now_us > k.until_us:
        k.owed = 0
    expected = <int64_t>(k.owed + 0.5)
    k.held_until_us = 0
    if expected < 1 or queued * instances >= all + expected:
        return 0
    if is_held_until_us == 0:
        if span_us > GW_LINGER_MAX_US:
            span_us = GW_LINGER_MAX_US
        left_us = 2 * k.late_us / k.back - (now_us - k.answered_us)     # until the last is back: those who come are late by the half
        if span_us < GW_LINGER_MIN_US or k.owed * fixed_us <= queued * left_us:
            return 0
        is_held_until_us = now_us + <int64_t>span_us
        if is_held_until_us > k.until_us:
            is_held_until_us = k.until_us
    if now_us >= is_held_until_us:
        return 0
    k.held_until_us = is_held_until_us
    return is_held_until_us
