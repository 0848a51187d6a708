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
    DATA_LOSS = 15


cdef enum:
    N_CODES = 17              # all of gRPC's


cdef inline bint blames_version(int code) noexcept nogil:
    """Whether an answer with this code, given by a run, is the version's fault. A deadline is when it passed during the run; refused
    input is the caller's, and whatever was turned away before a run is nobody's."""
    return code == INTERNAL or code == UNAVAILABLE or code == UNKNOWN or code == DATA_LOSS
