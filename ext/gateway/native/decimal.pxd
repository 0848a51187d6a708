# Numbers between text and memory, as JSON has them: read correctly rounded, written in the shortest digits that read back the same.
from libc.stdint cimport uint8_t, uint64_t


cdef enum:
    MAX_NUMBER_CHARS = 26     # "-1.2345678901234567e-308", and what a writer may touch beyond

# Readers return what stands behind the number; NULL: no number of JSON's grammar that is followed by something, or one that is left to
# Python: infinite, "-0" (a whole number, whose sign is lost), or a whole number of more than 19 digits.
cdef const uint8_t* read_double(const uint8_t* p, const uint8_t* end, double* value) noexcept nogil
cdef const uint8_t* read_whole(const uint8_t* p, const uint8_t* end, uint64_t* magnitude, bint* is_negative) noexcept nogil

# Writers return what stands behind; the caller has room for MAX_NUMBER_CHARS, and the number is finite.
cdef uint8_t* write_float(uint8_t* p, float value) noexcept nogil
cdef uint8_t* write_double(uint8_t* p, double value) noexcept nogil
cdef uint8_t* write_whole(uint8_t* p, uint64_t magnitude, bint is_negative) noexcept nogil
