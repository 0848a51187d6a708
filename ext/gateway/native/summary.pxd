# Summary: statistics of one row of a large tensor, in doubles; whoever counts them rounds to FP32. gateway/monitoring/summaries.py is the
# definition.
from libc.math cimport sqrt
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from gateway.native.sketch cimport GW_INFINITE, GW_NO_NUMBER, mix


cdef struct Summary:          # filled piece by piece
    int64_t n
    double origin             # the first value: sums are around it, lest a large mean eats a small deviation
    double shifted, squares   # sums of x - origin and of its square
    double total              # sum of x: what it is once something is not finite
    double least, greatest
    bint has_nan


cdef inline void start_summary(Summary* s) noexcept nogil:
    s.n = s.has_nan = 0
    s.origin = s.shifted = s.squares = s.total = 0
    s.least, s.greatest = GW_INFINITE, -GW_INFINITE


cdef inline void summarise(Summary* s, const double* x, int n) noexcept nogil:
    """Four sums side by side: one would wait for itself at each step."""
    cdef double d0, d1, d2, d3, a0 = 0, a1 = 0, a2 = 0, a3 = 0, q0 = 0, q1 = 0, q2 = 0, q3 = 0
    cdef double low0 = s.least, low1 = s.least, high0 = s.greatest, high1 = s.greatest, origin
    cdef int i = 0
    if s.n == 0 and n:
        s.origin = x[0]
    origin = s.origin
    while i + 4 <= n:
        d0, d1, d2, d3 = x[i] - origin, x[i + 1] - origin, x[i + 2] - origin, x[i + 3] - origin
        a0 += d0
        a1 += d1
        a2 += d2
        a3 += d3
        q0 += d0 * d0
        q1 += d1 * d1
        q2 += d2 * d2
        q3 += d3 * d3
        low0 = x[i] if x[i] < low0 else low0
        low1 = x[i + 1] if x[i + 1] < low1 else low1
        low0 = x[i + 2] if x[i + 2] < low0 else low0
        low1 = x[i + 3] if x[i + 3] < low1 else low1
        high0 = x[i] if x[i] > high0 else high0
        high1 = x[i + 1] if x[i + 1] > high1 else high1
        high0 = x[i + 2] if x[i + 2] > high0 else high0
        high1 = x[i + 3] if x[i + 3] > high1 else high1
        i += 4
    while i < n:
        d0 = x[i] - origin
        a0 += d0
        q0 += d0 * d0
        low0 = x[i] if x[i] < low0 else low0
        high0 = x[i] if x[i] > high0 else high0
        i += 1
    s.least = low0 if low0 < low1 else low1
    s.greatest = high0 if high0 > high1 else high1
    s.n += n
    d0 = a0 + a1 + (a2 + a3)
    s.shifted += d0
    s.squares += q0 + q1 + (q2 + q3)
    if not -GW_INFINITE < d0 < GW_INFINITE:                   # NaN or infinity: what the plain sum makes of it
        for i in range(n):
            s.total += x[i]
            s.has_nan |= x[i] != x[i]


cdef inline double signed_by(double x, uint64_t bit) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &x, 8)
    bits ^= bit << 63
    memcpy(&x, &bits, 8)
    return x


cdef inline double project(const double* x, int n, uint64_t word) noexcept nogil:
    """Sum of up to 64 values, those negated whose bit is set."""
    cdef double a = 0, b = 0, c = 0, d = 0
    cdef int i = 0
    while i + 4 <= n:
        a += signed_by(x[i], word & 1)
        b += signed_by(x[i + 1], word >> 1 & 1)
        c += signed_by(x[i + 2], word >> 2 & 1)
        d += signed_by(x[i + 3], word >> 3 & 1)
        word >>= 4
        i += 4
    while i < n:
        a += signed_by(x[i], word & 1)
        word >>= 1
        i += 1
    return (a + b) + (c + d)


cdef inline uint64_t sign_word(uint64_t seed, uint64_t number) noexcept nogil:
    """The number-th of SplitMix64's outputs, from 0."""
    return mix(seed + (number + 1) * 0x9E3779B97F4A7C15u)


cdef inline bint is_finite(const Summary* s) noexcept nogil:
    return -GW_INFINITE < s.shifted < GW_INFINITE


cdef inline double mean_of(const Summary* s) noexcept nogil:
    return s.origin + s.shifted / <double>s.n if is_finite(s) else s.total


cdef inline double std_of(const Summary* s) noexcept nogil:
    cdef double mean, variance
    if not is_finite(s):
        return GW_NO_NUMBER
    if s.squares == GW_INFINITE:                              # of finite values: more than FP32 holds
        return GW_INFINITE
    mean = s.shifted / <double>s.n
    variance = s.squares / <double>s.n - mean * mean
    return sqrt(variance) if variance > 0 else 0


cdef inline double norm_of(const Summary* s) noexcept nogil:
    if not is_finite(s):
        return GW_NO_NUMBER if s.has_nan else GW_INFINITE
    if s.squares == GW_INFINITE:
        return GW_INFINITE
    return sqrt(max(0.0, s.squares + 2 * s.origin * s.shifted + <double>s.n * s.origin * s.origin))


cdef inline double least_of(const Summary* s) noexcept nogil:
    return GW_NO_NUMBER if s.has_nan else s.least


cdef inline double greatest_of(const Summary* s) noexcept nogil:
    return GW_NO_NUMBER if s.has_nan else s.greatest
