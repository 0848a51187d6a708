# Dice: the random draws of one process: splitmix64, seeded from the operating system when the module is loaded. Loop thread only.
from libc.stdint cimport uint64_t


cdef uint64_t roll(uint64_t below) noexcept               # 0 to below - 1, each exactly as likely
