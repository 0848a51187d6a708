"""What a draw leads to, and what holds for the request from there on."""
cimport cython
from libc.stdint cimport int64_t

from gateway.native.arm cimport Arm
from gateway.native.dice cimport roll
from gateway.native.lane cimport Lane
from gateway.native.rescue cimport Fallback
from gateway.native.sticky cimport mix, share_of, sip_hash
from gateway.native.cursor cimport Span

ON = {"error": FALLBACK_ERROR, "circuit_open": FALLBACK_CIRCUIT, "timeout": FALLBACK_TIMEOUT}


cdef tuple lane_or_reason(object serves):
    """(lane, ""), or (None, why not)."""
    if isinstance(serves, Lane):
        return serves, ""
    if isinstance(serves, str):
        return None, serves
    raise TypeError(f"a route leads to a Lane or to a reason, got {type(serves).__name__}")


@cython.final
cdef class Tally:
    """Tally(model): one per model and worker, whatever tables come and go."""

    def __init__(self, str model not None):
        self.model = model


@cython.final
cdef class ShadowLoad:
    """Nothing in flight."""


@cython.final
cdef class ShadowSpec:
    """ShadowSpec(version, serves, arm, share, salt, load, max_rows, max_bytes, max_concurrency); `serves` is a Lane, or why there is
    none."""

    def __init__(self, str version not None, serves, Arm arm, int share, bytes salt not None, ShadowLoad load not None,
                 int64_t max_rows, size_t max_bytes, int max_concurrency):
        cdef Span text
        if not 0 <= share <= SHARE_UNIT:
            raise ValueError(f"share: got {share}, expected 0 to {SHARE_UNIT}")
        self.version, self.arm, self.share, self.load = version, arm, share, load
        self.lane, self.reason = lane_or_reason(serves)
        self.max_rows, self.max_bytes, self.max_concurrency = max_rows, max_bytes, max_concurrency
        salt = b"shadow\0" + salt + b"\0" + version.encode()
        text.ptr, text.len = salt, len(salt)
        self.seed = sip_hash(0, 0, text)

    cdef bint draws(self, const Asked* asked) noexcept:
        if self.share == SHARE_UNIT:
            return True
        if asked.has_key:
            return share_of(mix(asked.key ^ self.seed), SHARE_UNIT) < <uint64_t>self.share
        return roll(SHARE_UNIT) < <uint64_t>self.share


@cython.final
cdef class Route:
    """Route(model, generation=0, *, shadows, fallback, fallback_on, circuit_failures, circuit_open_us, circuit_probes)."""

    def __init__(self, str model not None, int64_t generation=0, *, list shadows=None, Target fallback=None, int fallback_on=0,
                 int circuit_failures=0, int64_t circuit_open_us=0, int circuit_probes=1):
        self.model, self.generation, self.shadows = model, generation, shadows or None
        self.fallback, self.fallback_on = fallback, fallback_on
        if fallback is not None and fallback.lane is not None:
            self.rescue = Fallback(fallback.lane, fallback_on, fallback.arm)
        self.circuit_failures, self.circuit_open_us, self.circuit_probes = circuit_failures, circuit_open_us, circuit_probes


@cython.final
cdef class Target:
    """Target(version, serves, arm=None, route=None); `serves` is a Lane, or why there is none."""

    def __init__(self, str version not None, serves, Arm arm=None, Route route=None):
        self.version, self.arm, self.route = version, arm, route
        self.lane, self.reason = lane_or_reason(serves)
