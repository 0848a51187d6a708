# Receipt: the token in an answer's parameter `gateway_request`, by which a caller reports later how the answer turned out. It says what
# answered, what was predicted, and with what probability the arm was drawn, so that nothing need be kept of the request; it is signed
# with SipHash-2-4 under a key of the gateway's own, and printed as base64url. Not secret: who holds it can read it.
#
#   u8 format and flags | u8 key | 8 random id | 6 arrived, ms since 1970 | [8 unit] | names of the arm | answered | predictions | 8 tag
#
#   names of the arm    model, version, name, each u8 length and bytes; varint stage; varint weight in 1/10,000
#   answered            u8 length and bytes: the version whose answer it is, where it is not the arm's (a fallback)
#   predictions         varint rows of the request; u8 rows told; then of each told row its PredictionKind and
#                       class: zigzag varint, float32 confidence | value: float32 | text: u8 length and bytes, float32 confidence
from libc.stdint cimport int64_t, uint8_t, uint64_t

from gateway.native.arm cimport Arm
from gateway.native.request cimport Request, Stamp


cdef enum PredictionKind:
    TOLD_NOTHING = 0
    TOLD_CLASS = 1            # a whole number
    TOLD_VALUE = 2            # a real one
    TOLD_TEXT = 3             # a class by name


cdef enum:
    FORMAT = 1
    HAS_UNIT = 0x10           # of the first byte, beside the format
    TAG_BYTES = 8
    KEY_BYTES = 16
    MAX_ROWS_TOLD = 16        # of a request with more, those are not told: a token is a line, not a log
    MAX_TEXT_BYTES = 64       # of a class by name; a longer one is not told
    MAX_CLASSES = 4096        # of a row of scores; more is no classification, and would be searched through for each answer
    MAX_TOKEN_BYTES = 2560    # all names and rows at their longest


cdef class Signer:            # one per worker; without a key no token is made
    cdef uint64_t k0, k1
    cdef uint64_t state                 # of the random ids: splitmix64, so that no two of a process are equal
    cdef uint8_t key_id
    cdef readonly bint is_ready
    cdef readonly uint64_t n_signed


cdef class Receipts(Stamp):   # of one version
    cdef readonly Signer signer
    cdef int class_output               # index of the output that names the class; -1: the highest score does
    cdef int score_output               # index of the output with scores or a value; -1: none
    cdef bint is_value                  # a score is what is predicted, no class
    cdef double threshold               # of a single score that is a probability: from here on the class is 1

    cdef uint8_t* _tell(self, uint8_t* p, const uint8_t* end, list outputs, int64_t row)


cdef bytes names_of(Arm arm)            # cached on it
