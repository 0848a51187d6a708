"""Stops sending requests to a version that fails every time, and tries it again with a few."""
cimport cython
from libc.stdint cimport int64_t

cdef enum:
    MAX_OPEN_US = 60_000_000            # doubling ends here: a version that is mended is back within a minute

STATE_NAMES = ("closed", "open", "half_open")
OUTCOMES = {"success": <int>OUTCOME_SUCCESS, "failure": <int>OUTCOME_FAILURE, "neither": <int>OUTCOME_NEITHER}

cdef bint MAY_MOVE[<int>N_CIRCUIT_STATES][<int>N_CIRCUIT_STATES]        # from, to
MAY_MOVE[<int>CIRCUIT_CLOSED][<int>CIRCUIT_OPEN] = True
MAY_MOVE[<int>CIRCUIT_OPEN][<int>CIRCUIT_HALF_OPEN] = True
MAY_MOVE[<int>CIRCUIT_HALF_OPEN][<int>CIRCUIT_OPEN] = True
MAY_MOVE[<int>CIRCUIT_HALF_OPEN][<int>CIRCUIT_CLOSED] = True

cdef int64_t last_period = 0            # over all circuits: a request admitted under an earlier one of its lane is not taken for a new one


@cython.final
cdef class Circuit:
    """Circuit(failures, open_for_us, probes=1, changed=None). changed(before, after, n_failed, pause_us) hears of each change."""

    def __init__(self, int failures, int64_t open_for_us, int probes=1, changed=None):
        for name, got in (("failures", failures), ("open_for_us", open_for_us), ("probes", probes)):
            if got < 1:
                raise ValueError(f"{name}: got {got}, expected 1 or more")
        self.failures, self.open_for_us, self.probes, self.changed = failures, open_for_us, probes, changed
        self.max_open_for_us = max(open_for_us, <int64_t>MAX_OPEN_US)
        self.pause_us = open_for_us
        self.period = next_period()

    cdef int64_t admit(self, int64_t now_us) except -1:
        if self.current == CIRCUIT_OPEN and now_us >= self.open_until_us:
            self._move(CIRCUIT_HALF_OPEN)
        if self.current == CIRCUIT_CLOSED:
            return self.period
        if self.current == CIRCUIT_HALF_OPEN and self.n_probing + self.n_probed < self.probes:
            self.n_probing += 1
            return self.period
        self.n_refused += 1
        return 0

    cdef int note(self, int64_t period, Outcome outcome, int64_t now_us) except -1:
        if period != self.period:
            return 0
        if self.current == CIRCUIT_HALF_OPEN:
            self.n_probing -= 1
        if outcome == OUTCOME_FAILURE:
            self.n_failed += 1
            if self.current == CIRCUIT_HALF_OPEN:
                self.pause_us = min(2 * self.pause_us, self.max_open_for_us)
            elif self.n_failed < self.failures:
                return 0
            self.open_until_us = now_us + self.pause_us
            self.n_opened += 1
            return self._move(CIRCUIT_OPEN)
        if outcome == OUTCOME_SUCCESS:
            if self.current == CIRCUIT_HALF_OPEN:
                self.n_probed += 1
                if self.n_probed < self.probes:
                    return 0
                self.pause_us = self.open_for_us
                self._move(CIRCUIT_CLOSED)
            self.n_failed = 0
        return 0

    cdef int _move(self, CircuitState to) except -1:
        cdef CircuitState before = self.current
        if not MAY_MOVE[<int>before][<int>to]:
            raise RuntimeError(f"a circuit does not go from {STATE_NAMES[<int>before]} to {STATE_NAMES[<int>to]}")
        self.current = to
        self.period = next_period()
        self.n_probing = self.n_probed = 0
        if self.changed is not None:
            self.changed(STATE_NAMES[<int>before], STATE_NAMES[<int>to], self.n_failed, self.pause_us)
        return 0

    cdef str refusal(self, str whom, int64_t now_us):
        left_us = self.open_until_us - now_us
        when = (f"it is tried again in {left_us / 1e6:.1f} s" if self.current == CIRCUIT_OPEN and left_us > 0
                else "it is being tried again now")
        return f"{whom} failed {self.n_failed} times in a row and gets no requests (circuit open); {when}"

    @property
    def state(self):
        """closed, open or half_open. An open one whose pause is over becomes half open when a request comes."""
        return STATE_NAMES[<int>self.current]

    def statistics(self):
        """The state, and counters since start."""
        return {"state": self.state, "failed_in_a_row": self.n_failed, "opened": self.n_opened, "refused": self.n_refused}

    # --- for tests ---------------------------------------------------------------------------------------------------------------

    def try_admit(self, int64_t now_us):
        """The period that an admitted request reports with; 0: refused."""
        return self.admit(now_us)

    def tell(self, int64_t period, str outcome not None, int64_t now_us):
        """How a request of that period ended: success, failure or neither."""
        self.note(period, <Outcome><int>OUTCOMES[outcome], now_us)


cdef int64_t next_period() noexcept:
    global last_period
    last_period += 1
    return last_period
