# Route: what holds for a model's requests beside the draw: shadows, fallback, circuit; and Target, where a draw leads. Made by
# gateway.routing.compile, immutable once they are in a table; a change is a new table. References run one way, Target ─▶ Route ─▶ its
# fallback Target (whose own route is None), so that an old table is gone with the last request that needs it. Loop thread only.
#
#   DataPlane: choose(&asked) ─▶ Target ─▶ request.arm, lane
#              target.route.shadows: spec.draws(&asked), spec.lane, spec.load
#              target.route.fallback, while target.route.rescues(FALLBACK_...)
from libc.stdint cimport int64_t, uint64_t

from gateway.native.arm cimport Arm
from gateway.native.cursor cimport Span
from gateway.native.lane cimport Lane
from gateway.native.noted cimport Noted
from gateway.native.rescue cimport Fallback


cdef enum:
    SHARE_UNIT = 10000        # shares are counted in 1/10,000: 0.01 %


cdef enum FallbackOn:         # bits, those of request.Cause
    FALLBACK_ERROR = 1        # the version failed, or does not serve
    FALLBACK_CIRCUIT = 2      # its circuit is open
    FALLBACK_TIMEOUT = 4      # its part of the deadline is over


cdef struct Asked:            # what a request brings to the draw, borrowed for one `choose`; and what that leaves for shadows
    Span model, version       # version "": not pinned
    Span body                 # ModelInferRequest, for its parameters
    const Noted* headers      # NULL: none
    uint64_t key              # salted hash of the sticky key, once chosen
    bint has_key


cdef class Tally:             # what is counted of a model's routes, over all their tables
    cdef readonly str model
    cdef readonly uint64_t unkeyed          # drawn at random for want of the sticky key
    cdef readonly uint64_t forbidden        # refused for naming a version where the route forbids it


cdef class ShadowLoad:        # what one shadow has in flight, over all tables
    cdef public int64_t rows
    cdef public size_t nbytes
    cdef public int requests


cdef class ShadowSpec:
    cdef readonly str version
    cdef readonly Lane lane             # None: it does not serve now
    cdef readonly str reason            # why not; "" when it does
    cdef readonly Arm arm               # named shadow
    cdef readonly int share             # of SHARE_UNIT
    cdef readonly int64_t max_rows      # in flight, this and the two below
    cdef readonly size_t max_bytes
    cdef readonly int max_concurrency   # requests
    cdef readonly ShadowLoad load       # the same object after a swap
    cdef uint64_t seed

    cdef bint draws(self, const Asked* asked) noexcept      # whether the request is shadowed: by its sticky key, else at random


cdef class Route:
    cdef readonly str model
    cdef readonly int64_t generation
    cdef readonly list shadows          # of ShadowSpec; None: none
    cdef readonly Target fallback       # None: none. Its arm is named fallback, its route is None
    cdef readonly int fallback_on       # FallbackOn bits
    cdef readonly Fallback rescue       # what carries it out; None: no fallback, or it does not serve now
    cdef readonly int circuit_failures  # consecutive ones that open it; 0: no circuit
    cdef readonly int64_t circuit_open_us
    cdef readonly int circuit_probes

    cdef inline bint rescues(self, int condition) noexcept:
        return self.fallback is not None and self.fallback_on & condition != 0


cdef class Target:            # one version under one arm
    cdef readonly str version
    cdef readonly Lane lane             # None: it does not serve now
    cdef readonly str reason            # why not; "" when it does
    cdef readonly Arm arm               # None: nobody counts
    cdef readonly Route route           # None: pinned, a fallback itself, or the model has no route
