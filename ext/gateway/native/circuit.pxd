# Circuit: whether one version gets requests at all. Sans-clock, loop thread only.
#
#   CLOSED ──`failures` in a row──▶ OPEN ──pause over, a request comes──▶ HALF_OPEN ──`probes` succeeded──▶ CLOSED
#                                    ▲                                        │
#                                    └──────── one failed, pause doubled ─────┘
#
# What it is told counts only for the period in which it was admitted: a batch that began before the circuit opened says nothing about
# the version as it is now.
from libc.stdint cimport int64_t, uint64_t


cdef enum CircuitState:
    CIRCUIT_CLOSED
    CIRCUIT_OPEN
    CIRCUIT_HALF_OPEN
    N_CIRCUIT_STATES


cdef enum Outcome:
    OUTCOME_SUCCESS
    OUTCOME_FAILURE           # the version is to blame
    OUTCOME_NEITHER           # the caller's fault, its cancellation, load: says nothing


cdef class Circuit:
    cdef readonly int failures          # in a row: then it opens
    cdef readonly int probes            # at once while half open, and as many must succeed
    cdef readonly int64_t open_for_us, max_open_for_us
    cdef object changed                 # (before, after, failures in a row, pause_us) -> None, or None
    cdef CircuitState current
    cdef int64_t period                 # changes with each move
    cdef int64_t pause_us, open_until_us
    cdef int n_failed                   # in a row
    cdef int n_probing, n_probed        # in this half open period: out, and succeeded
    cdef uint64_t n_opened, n_refused

    cdef int64_t admit(self, int64_t now_us) except -1                  # the period to report with; 0: refused
    cdef int note(self, int64_t period, Outcome outcome, int64_t now_us) except -1
    cdef str refusal(self, str whom, int64_t now_us)
    cdef int _move(self, CircuitState to) except -1
