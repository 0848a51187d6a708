# Refusal: why a request gets no answer, as a gRPC code and a text for its caller. Raised only off the fast path.
cdef enum Code:
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


cdef enum:
    N_CODES = 17              # all of gRPC's
