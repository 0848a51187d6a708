"""Decimal text to binary numbers and back.

Reading: up to 2^53 and 10^22 one multiplication or division of doubles is exact (Clinger); else the product of the digits with a 128 bit
power of five tells all bits (Lemire, "Number Parsing at a Gigabyte per Second", 2021); beyond 19 digits or 10^64, strtod.
Writing: Schubfach (Giulietti, "The Schubfach way to render doubles", 2021), laid out as orjson lays numbers out.
The tables are made at import, by exact whole numbers.
"""
from libc.math cimport isinf
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport strtod
from libc.string cimport memcpy, memmove, memset

cdef extern from *:
    """
    static inline uint64_t gw_multiply(uint64_t a, uint64_t b, uint64_t* low) {
        unsigned __int128 product = (unsigned __int128)a * b;
        *low = (uint64_t)product;
        return (uint64_t)(product >> 64);
    }
    /* Eight digits at once, as ASCII in a little-endian word. */
    static inline int gw_are_digits(uint64_t v) {
        return !(((v + 0x4646464646464646u) | (v - 0x3030303030303030u)) & 0x8080808080808080u);
    }
    static inline uint32_t gw_eight_digits(uint64_t v) {
        v -= 0x3030303030303030u;
        v = v * 10 + (v >> 8);
        return (uint32_t)(((v & 0x000000FF000000FFu) * 0x000F424000000064u
                           + ((v >> 16) & 0x000000FF000000FFu) * 0x0000271000000001u) >> 32);
    }
    static inline int gw_leading_zeros(uint64_t v) { return __builtin_clzll(v); }
    """
    uint64_t gw_multiply(uint64_t a, uint64_t b, uint64_t* low) noexcept nogil
    bint gw_are_digits(uint64_t v) noexcept nogil
    uint32_t gw_eight_digits(uint64_t v) noexcept nogil
    int gw_leading_zeros(uint64_t v) noexcept nogil

cdef enum:
    MAX_DIGITS = 19           # that 64 bits always hold
    MAX_POWER = 64            # of ten, either way, that Lemire's table has: with 19 digits no double is subnormal there
    MAX_EXACT_POWER = 22      # of ten that a double holds exactly
    MIN_FLOAT_POWER = -31
    MAX_FLOAT_POWER = 45
    MIN_DOUBLE_POWER = -292
    MAX_DOUBLE_POWER = 324

cdef uint64_t FIVES[2 * (2 * MAX_POWER + 1)]                                    # high and low word of each
cdef double EXACT_TENS[MAX_EXACT_POWER + 1]
cdef uint64_t FLOAT_TENS[MAX_FLOAT_POWER - MIN_FLOAT_POWER + 1]
cdef uint64_t DOUBLE_TENS[2 * (MAX_DOUBLE_POWER - MIN_DOUBLE_POWER + 1)]        # high and low word of each


def _normalised_five(power):
    """128 bits of 5^power: cut off, for negative powers rounded up."""
    if power >= 0:
        five = 5 ** power
        n_more = 128 - five.bit_length()
        return five << n_more if n_more >= 0 else five >> -n_more
    five = 5 ** -power
    z = (five - 1).bit_length()
    number = (1 << (2 * z + 128)) // five + 1
    return number >> (number.bit_length() - 128)


def _normalised_ten(power, n_bits):
    """n_bits of 10^power, rounded up."""
    if power >= 0:
        ten = 10 ** power
        n_less = ten.bit_length() - n_bits
        return -(-ten >> n_less) if n_less > 0 else ten << -n_less
    ten = 10 ** -power
    return -(-(1 << (n_bits - 1 + ten.bit_length())) // ten)


cdef int _fill_tables() except -1:
    for i in range(2 * MAX_POWER + 1):
        number = _normalised_five(i - MAX_POWER)
        FIVES[2 * i], FIVES[2 * i + 1] = number >> 64, number & 0xFFFFFFFFFFFFFFFF
    for i in range(MAX_EXACT_POWER + 1):
        EXACT_TENS[i] = 10 ** i
    for i in range(MAX_FLOAT_POWER - MIN_FLOAT_POWER + 1):
        FLOAT_TENS[i] = _normalised_ten(i + MIN_FLOAT_POWER, 64)
    for i in range(MAX_DOUBLE_POWER - MIN_DOUBLE_POWER + 1):
        number = _normalised_ten(i + MIN_DOUBLE_POWER, 128)
        DOUBLE_TENS[2 * i], DOUBLE_TENS[2 * i + 1] = number >> 64, number & 0xFFFFFFFFFFFFFFFF
    return 0


_fill_tables()


# --- reading -------------------------------------------------------------------------------------------------------------------

cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return <uint8_t>(c - c'0') < 10


cdef inline const uint8_t* read_digits(const uint8_t* p, const uint8_t* end, uint64_t* w) noexcept nogil:
    """Overflows silently: the caller counts them."""
    cdef uint64_t eight
    while end - p >= 8:
        memcpy(&eight, p, 8)
        if not gw_are_digits(eight):
            break
        w[0] = w[0] * 100000000 + gw_eight_digits(eight)
        p += 8
    while p < end and is_digit(p[0]):
        w[0] = w[0] * 10 + (p[0] - c'0')
        p += 1
    return p


cdef inline const uint8_t* read_integer_part(const uint8_t* p, const uint8_t* end, uint64_t* w) noexcept nogil:
    """One zero, or digits that begin with none; NULL: neither."""
    if p == end or not is_digit(p[0]):
        return NULL
    if p[0] != c'0':
        return read_digits(p, end, w)
    if p + 1 < end and is_digit(p[1]):
        return NULL
    return p + 1


cdef const uint8_t* read_whole(const uint8_t* p, const uint8_t* end, uint64_t* magnitude, bint* is_negative) noexcept nogil:
    cdef const uint8_t* digits
    is_negative[0] = p < end and p[0] == c'-'
    p += is_negative[0]
    digits = p
    magnitude[0] = 0
    p = read_integer_part(p, end, magnitude)
    if p == NULL or p == end or p - digits > MAX_DIGITS or (is_negative[0] and magnitude[0] == 0):
        return NULL
    return p


cdef const uint8_t* read_double(const uint8_t* p, const uint8_t* end, double* value) noexcept nogil:
    cdef const uint8_t* start = p
    cdef const uint8_t* digits
    cdef const uint8_t* point = NULL
    cdef uint64_t w = 0
    cdef long power = 0
    cdef Py_ssize_t n_digits
    cdef bint is_negative = p < end and p[0] == c'-'
    p += is_negative
    digits = p
    p = read_integer_part(p, end, &w)
    if p == NULL:
        return NULL
    n_digits = p - digits
    if p < end and p[0] == c'.':
        point = p
        p = read_digits(p + 1, end, &w)
        power = point + 1 - p
        if power == 0:
            return NULL
        n_digits -= power
    if n_digits > MAX_DIGITS:                                 # zeros in front say nothing
        while digits < p and (digits[0] == c'0' or digits[0] == c'.'):
            n_digits -= digits[0] == c'0'
            digits += 1
    if p < end and (p[0] == c'e' or p[0] == c'E'):
        p = read_exponent(p + 1, end, &power)
        if p == NULL:
            return NULL
    elif point == NULL and is_negative and w == 0 and n_digits == 1:
        return NULL
    if p == end:
        return NULL
    if n_digits <= MAX_DIGITS:
        if w == 0:
            value[0] = -0.0 if is_negative else 0.0
            return p
        if w <= <uint64_t>1 << 53 and -MAX_EXACT_POWER <= power <= MAX_EXACT_POWER:
            value[0] = <double>w / EXACT_TENS[-power] if power < 0 else <double>w * EXACT_TENS[power]
            if is_negative:
                value[0] = -value[0]
            return p
        if -MAX_POWER <= power <= MAX_POWER and multiply_out(w, <int>power, is_negative, value):
            return p
    return read_slowly(start, p, value)


cdef inline const uint8_t* read_exponent(const uint8_t* p, const uint8_t* end, long* power) noexcept nogil:
    cdef const uint8_t* digits
    cdef uint64_t exponent = 0
    cdef bint is_negative = p < end and p[0] == c'-'
    p += is_negative or (p < end and p[0] == c'+')
    digits = p
    p = read_digits(p, end, &exponent)
    if p == digits or p - digits > 6:
        return NULL
    power[0] += -<long>exponent if is_negative else <long>exponent
    return p


cdef bint multiply_out(uint64_t w, int power, bint is_negative, double* value) noexcept nogil:
    """w * 10^power, w not 0; False: the bits at hand do not tell."""
    cdef const uint64_t* five = &FIVES[2 * (power + MAX_POWER)]
    cdef int n_zeros = gw_leading_zeros(w)
    cdef uint64_t high, low, more, ignored, mantissa, bits
    cdef int upper, shift, exponent
    w <<= n_zeros
    high = gw_multiply(w, five[0], &low)
    if high & 0x1FF == 0x1FF:                                 # the lower word may carry up to here
        more = gw_multiply(w, five[1], &ignored)
        low += more
        high += low < more
    if low == ~<uint64_t>0:
        return False
    upper = <int>(high >> 63)
    shift = upper + 64 - 52 - 3
    mantissa = high >> shift
    exponent = ((217706 * power) >> 16) + 63 + upper - n_zeros + 1023
    if low <= 1 and -4 <= power <= 23 and mantissa & 3 == 1 and mantissa << shift == high:
        mantissa &= ~<uint64_t>1                              # exactly between two: to the even one
    mantissa = (mantissa + (mantissa & 1)) >> 1
    if mantissa >= <uint64_t>1 << 53:
        mantissa = <uint64_t>1 << 52
        exponent += 1
    bits = (mantissa & ~(<uint64_t>1 << 52)) | <uint64_t>exponent << 52 | <uint64_t>is_negative << 63
    memcpy(value, &bits, 8)
    return True


cdef const uint8_t* read_slowly(const uint8_t* start, const uint8_t* end, double* value) noexcept nogil:
    """strtod; something that is no part of a number stands at `end`."""
    cdef char* stopped
    value[0] = strtod(<const char*>start, &stopped)
    if <const uint8_t*>stopped != end or isinf(value[0]):
        return NULL
    return end


# --- writing -------------------------------------------------------------------------------------------------------------------

cdef uint8_t* write_whole(uint8_t* p, uint64_t magnitude, bint is_negative) noexcept nogil:
    cdef uint8_t digits[20]
    cdef int at = 20
    if is_negative:
        p[0] = c'-'
        p += 1
    while True:
        at -= 1
        digits[at] = c'0' + <uint8_t>(magnitude % 10)
        magnitude //= 10
        if magnitude == 0:
            break
    memcpy(p, digits + at, 20 - at)
    return p + 20 - at


cdef inline uint8_t* lay_out(uint8_t* p, uint64_t digits, int power, int max_plain, int min_plain) noexcept nogil:
    """digits * 10^power: with a point when it stands behind at most max_plain digits, or before at most -min_plain zeros."""
    cdef uint8_t* first = p
    cdef int n, point, exponent
    while digits % 10 == 0:
        digits //= 10
        power += 1
    p = write_whole(p, digits, False)
    n = <int>(p - first)
    point = n + power                                         # digits in front of it
    if 0 <= power and point <= max_plain:
        memset(p, c'0', power)
        p += power
        p[0], p[1] = c'.', c'0'
        return p + 2
    if 0 < point <= max_plain:
        memmove(first + point + 1, first + point, n - point)
        first[point] = c'.'
        return p + 1
    if min_plain < point <= 0:
        memmove(first + 2 - point, first, n)
        memset(first, c'0', 2 - point)
        first[1] = c'.'
        return p + 2 - point
    if n > 1:
        memmove(first + 2, first + 1, n - 1)
        first[1] = c'.'
        p += 1
    exponent = point - 1
    p[0], p[1] = c'e', c'-' if exponent < 0 else c'+'
    if exponent < 0:
        p[1] = c'-'
        return write_whole(p + 2, -exponent, False)
    return write_whole(p + 2, exponent, False)


cdef inline int floor_log2_of_ten(int power) noexcept nogil:
    return (power * 1741647) >> 19


cdef inline uint32_t round_to_odd_32(uint64_t ten, uint32_t c) noexcept nogil:
    cdef uint64_t low
    cdef uint64_t high = gw_multiply(ten, c, &low)
    return <uint32_t>high | (<uint32_t>(low >> 32) > 1)


cdef inline uint64_t round_to_odd_64(const uint64_t* ten, uint64_t c) noexcept nogil:
    cdef uint64_t ignored, low, high
    cdef uint64_t carry = gw_multiply(ten[1], c, &ignored)
    high = gw_multiply(ten[0], c, &low)
    low += carry
    high += low < carry
    return high | (low > 1)


cdef uint8_t* write_float(uint8_t* p, float value) noexcept nogil:
    cdef uint32_t bits, c, lower, upper, between, s
    cdef int32_t q, k, h
    cdef bint is_odd, is_closer, low_fits, high_fits
    cdef uint64_t ten
    memcpy(&bits, &value, 4)
    if bits >> 31:
        p[0] = c'-'
        p += 1
    c, q = bits & 0x7FFFFF, (bits >> 23) & 0xFF
    if c == 0 and q == 0:
        p[0], p[1], p[2] = c'0', c'.', c'0'
        return p + 3
    is_closer = c == 0 and q > 1                              # the neighbour below is half as far
    if q:
        c |= 1 << 23
        q -= 150
        if 0 <= -q < 24 and c & ((<uint32_t>1 << -q) - 1) == 0:
            return lay_out(p, c >> -q, 0, 13, -6)
    else:
        q = -149
    is_odd = c & 1
    k = (q * 1262611 - (524031 if is_closer else 0)) >> 22
    h = q + floor_log2_of_ten(-k) + 1
    ten = FLOAT_TENS[-k - MIN_FLOAT_POWER]
    lower = round_to_odd_32(ten, (4 * c - 2 + is_closer) << h) + is_odd
    between = round_to_odd_32(ten, (4 * c) << h)
    upper = round_to_odd_32(ten, (4 * c + 2) << h) - is_odd
    s = between // 4
    if s >= 10:
        low_fits, high_fits = lower <= s // 10 * 40, s // 10 * 40 + 40 <= upper
        if low_fits != high_fits:
            return lay_out(p, s // 10 + high_fits, k + 1, 13, -6)
    low_fits, high_fits = lower <= 4 * s, 4 * s + 4 <= upper
    if low_fits == high_fits:
        high_fits = between > 4 * s + 2 or (between == 4 * s + 2 and s & 1)
    return lay_out(p, s + high_fits, k, 13, -6)


cdef uint8_t* write_double(uint8_t* p, double value) noexcept nogil:
    cdef uint64_t bits, c, lower, upper, between, s
    cdef int32_t q, k, h
    cdef bint is_odd, is_closer, low_fits, high_fits
    cdef const uint64_t* ten
    memcpy(&bits, &value, 8)
    if bits >> 63:
        p[0] = c'-'
        p += 1
    c, q = bits & ((<uint64_t>1 << 52) - 1), <int32_t>(bits >> 52) & 0x7FF
    if c == 0 and q == 0:
        p[0], p[1], p[2] = c'0', c'.', c'0'
        return p + 3
    is_closer = c == 0 and q > 1
    if q:
        c |= <uint64_t>1 << 52
        q -= 1075
        if 0 <= -q < 53 and c & ((<uint64_t>1 << -q) - 1) == 0:
            return lay_out(p, c >> -q, 0, 16, -5)
    else:
        q = -1074
    is_odd = c & 1
    k = (q * 1262611 - (524031 if is_closer else 0)) >> 22
    h = q + floor_log2_of_ten(-k) + 1
    ten = &DOUBLE_TENS[2 * (-k - MIN_DOUBLE_POWER)]
    lower = round_to_odd_64(ten, (4 * c - 2 + is_closer) << h) + is_odd
    between = round_to_odd_64(ten, (4 * c) << h)
    upper = round_to_odd_64(ten, (4 * c + 2) << h) - is_odd
    s = between // 4
    if s >= 10:
        low_fits, high_fits = lower <= s // 10 * 40, s // 10 * 40 + 40 <= upper
        if low_fits != high_fits:
            return lay_out(p, s // 10 + high_fits, k + 1, 16, -5)
    low_fits, high_fits = lower <= 4 * s, 4 * s + 4 <= upper
    if low_fits == high_fits:
        high_fits = between > 4 * s + 2 or (between == 4 * s + 2 and s & 1)
    return lay_out(p, s + high_fits, k, 16, -5)


# --- for tests and tools -------------------------------------------------------------------------------------------------------

def read(bytes text not None):
    """The double that `text` is, all of it; None when read_double leaves it to others."""
    cdef double value
    cdef const uint8_t* p = <const uint8_t*><char*>text
    cdef const uint8_t* end = p + len(text)
    return value if read_double(p, end + 1, &value) == end else None   # a bytes object ends with a zero


def write_doubles(const double[::1] values not None):
    """Each on a line of its own."""
    cdef uint8_t line[MAX_NUMBER_CHARS]
    cdef double value
    return b"\n".join([(<char*>line)[:write_double(line, value) - line] for value in values])


def write_floats(const float[::1] values not None):
    """Each on a line of its own."""
    cdef uint8_t line[MAX_NUMBER_CHARS]
    cdef float value
    return b"\n".join([(<char*>line)[:write_float(line, value) - line] for value in values])
