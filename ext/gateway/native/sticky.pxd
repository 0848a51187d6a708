# Sticky: a key's place in a split, the same in every worker and after every restart. The key is hashed under a salt (SipHash-2-4), and
# each arm draws its own number from that: weighted rendezvous, where the smallest -ln(u) / weight wins. An arm is chosen as often as its
# weight says; raising one weight changes no other arm's score, so keys move only to the raised arm, and back when it is lowered.
from libc.math cimport log
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from gateway.native.cursor cimport Span


cdef extern from *:
    """
    static inline unsigned long long gw_multiply_high(unsigned long long a, unsigned long long b, unsigned long long* low) {
        unsigned __int128 product = (unsigned __int128)a * b;
        *low = (unsigned long long)product;
        return (unsigned long long)(product >> 64);
    }
    """
    unsigned long long gw_multiply_high(unsigned long long a, unsigned long long b, unsigned long long* low) nogil


cdef inline uint64_t multiply_high(uint64_t a, uint64_t b, uint64_t* low) noexcept nogil:
    cdef unsigned long long rest
    cdef uint64_t high = gw_multiply_high(a, b, &rest)
    low[0] = rest
    return high


cdef inline uint64_t share_of(uint64_t word, uint64_t unit) noexcept nogil:
    """A word's place on 0 to unit - 1."""
    cdef uint64_t low
    return multiply_high(word, unit, &low)


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    """splitmix64's finalizer: one to one, every bit of x moves every bit of the result."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu
    return x ^ (x >> 31)


cdef inline double score_of(uint64_t key, uint64_t seed, double weight) noexcept nogil:
    """Of one arm for one key; weight > 0. 52 bits and a half: exact in a double, and never 0 or 1."""
    return -log((<double>(mix(key ^ seed) >> 12) + 0.5) * (1.0 / 4503599627370496.0)) / weight


cdef inline uint64_t turned(uint64_t x, int by) noexcept nogil:
    return x << by | x >> (64 - by)


cdef inline void sip_round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[1] = turned(v[1], 13) ^ v[0]
    v[0] = turned(v[0], 32)
    v[2] += v[3]
    v[3] = turned(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = turned(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = turned(v[1], 17) ^ v[2]
    v[2] = turned(v[2], 32)


cdef inline uint64_t sip_hash(uint64_t k0, uint64_t k1, Span text) noexcept nogil:
    """SipHash-2-4: callers choose the keys, so they must not be able to aim them at an arm without knowing the salt."""
    cdef uint64_t v[4]
    cdef uint64_t word, last = <uint64_t>text.len << 56
    cdef const uint8_t* at = text.ptr
    cdef size_t left = text.len
    cdef int i
    v[0], v[1] = k0 ^ 0x736F6D6570736575u, k1 ^ 0x646F72616E646F6Du
    v[2], v[3] = k0 ^ 0x6C7967656E657261u, k1 ^ 0x7465646279746573u
    while left >= 8:
        memcpy(&word, at, 8)                                  # little-endian machines only, as the wire's tensors are
        v[3] ^= word
        sip_round(v)
        sip_round(v)
        v[0] ^= word
        at += 8
        left -= 8
    for i in range(<int>left):
        last |= <uint64_t>at[i] << (8 * i)
    v[3] ^= last
    sip_round(v)
    sip_round(v)
    v[0] ^= last
    v[2] ^= 0xFF
    for _ in range(4):
        sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
