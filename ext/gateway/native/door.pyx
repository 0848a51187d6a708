"""Counts what was turned away at the door."""
cimport cython

from gateway.native.refusal cimport N_CODES

REASON_NAMES = (                        # DoorReason, in order
    "malformed", "header_list_bytes", "message_bytes", "in_flight_bytes", "too_slow", "unknown_path", "unknown_model",
    "not_ready")


@cython.final
cdef class Door:
    """Nothing was turned away yet."""

    cdef void count(self, DoorReason reason, int code, bint is_infer) noexcept:
        self.by_reason[<int>reason] += 1
        if is_infer:
            self.by_code[code] += 1

    def refuse(self, str reason not None, int code, bint is_infer):
        """One more: a name of REASON_NAMES, the gRPC code that says the same as its answer."""
        if not 0 <= code < <int>N_CODES:
            raise ValueError(f"code: got {code}, expected 0 to {<int>N_CODES - 1}")
        self.count(<DoorReason><int>REASON_NAMES.index(reason), code, is_infer)

    @property
    def reasons(self):
        """Counts since start, by name."""
        return {name: self.by_reason[i] for i, name in enumerate(REASON_NAMES) if self.by_reason[i]}

    @property
    def codes(self):
        """Of infer requests, by gRPC code."""
        return {code: self.by_code[code] for code in range(<int>N_CODES) if self.by_code[code]}
