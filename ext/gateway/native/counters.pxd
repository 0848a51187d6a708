# Debug counters: how many of each native kind are alive. In a release build counting compiles to nothing and `live()` says {}.
cdef enum Kind:
    KIND_BODY = 0
    KIND_CALL = 1
    KIND_REQUEST = 2
    KIND_BATCH = 3
    KIND_SESSION = 4
    KIND_CONNECTION = 5
    KIND_MEMORY = 6           # heap blocks behind bodies and requests
    KIND_PAIR = 7
    N_KINDS = 8


cdef extern from *:
    """
    #ifdef GATEWAY_DEBUG
    #define GW_COUNTING 1
    #else
    #define GW_COUNTING 0
    #endif
    """
    bint GW_COUNTING


cdef void adjust(int kind, int delta) noexcept nogil


cdef inline void count(int kind, int delta) noexcept nogil:
    if GW_COUNTING:
        adjust(kind, delta)
