"""A second version answers what the first failed on."""
cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from gateway.native.arm cimport Arm
from gateway.native.body cimport Body
from gateway.native.codec cimport PARSE_OK, free_wire, parse_request
from gateway.native.cursor cimport Span
from gateway.native.lane cimport Lane
from gateway.native.parameters cimport encode_parameters
from gateway.native.refusal cimport DEADLINE_EXCEEDED, blames_version
from gateway.native.request cimport CAUSE_CIRCUIT_OPEN, CAUSE_ERROR, CAUSE_TIMEOUT, Caller, Origin, Request

from gateway.native.refusal import Refusal

FROM_PARAMETER = "gateway_fallback_from"


cdef bytes parameters_of_answer(str failed_version):
    return encode_parameters({FROM_PARAMETER: failed_version})


@cython.final
cdef class RescueEnd(Watcher):
    """Counts second attempts that are not over."""

    cdef int on_end(self, Request request, Body answer, int code) except -1:
        self.n_open -= 1
        return 0


@cython.final
cdef class Fallback(Rescue):
    """Fallback(lane, causes, arm=None): `causes` are bits of Cause."""

    def __cinit__(self, Lane lane not None, int causes, Arm arm=None):
        memset(&self.wire, 0, sizeof(self.wire))
        self.lane, self.causes, self.arm = lane, causes, arm
        self.ending = RescueEnd()

    def __dealloc__(self):
        free_wire(&self.wire)

    @property
    def n_open(self):
        """Second attempts in flight, without those by an open circuit."""
        return self.ending.n_open

    cdef bint can_take(self, Request request, int cause) except -1:
        cdef Lane lane = <Lane>request.holder
        if not self.causes & cause or lane is self.lane or self.lane.is_closed:
            return False
        return self.ending.n_open < MIN_AT_ONCE or self.ending.n_open < (lane.n_open + self.ending.n_open) // ONE_IN

    cdef bint take(self, Request request, int code, str text) except -1:
        cdef Lane lane = <Lane>request.holder
        cdef int cause = CAUSE_TIMEOUT if code == DEADLINE_EXCEEDED else CAUSE_ERROR if blames_version(code) else 0
        if not self.causes & cause or lane is self.lane:
            return False
        if not self.can_take(request, cause):
            lane.stats.rescues_refused += 1
            return False
        return self.start(request, lane, cause, lane.now_us) is not None

    cdef Request start(self, Request failed, Lane lane, int cause, int64_t now_us):
        cdef int64_t deadline_us = failed.final_deadline_us if failed.final_deadline_us else failed.deadline_us
        cdef Caller caller = failed.caller
        cdef Request second
        cdef Span span
        if not self.causes & cause or lane is self.lane or caller is None or (deadline_us and deadline_us <= now_us):
            return None
        try:
            span.ptr, span.len = failed.body.data, failed.body.length
            if parse_request(span, &self.wire) != PARSE_OK:
                return None
            second = Request.new(failed.body, self.lane.signature, caller)
            second.streamed, second.is_rest, second.trace = failed.streamed, failed.is_rest, failed.trace
            second.parameters, second.arm = failed.parameters, self.arm
            if self.lane.stamp is not None:
                second.origin = failed.origin if failed.origin is not None else Origin.__new__(Origin)
                second.origin.arm = failed.arm
            second.bind(&self.wire)
            second.timeout_us = 0                             # it began with the first attempt, whose deadline has it
            second.priority_given = min(second.priority_given, <uint64_t>self.lane.n_priorities)
            second.answer_parameters = parameters_of_answer(lane.signature.version)
            self.lane.admit(second, deadline_us, now_us)
        except Refusal:                                       # it does not fit that version, or there is no room: the first error stands
            return None
        except Exception as error:
            lane.report(error)
            return None
        if cause != CAUSE_CIRCUIT_OPEN:
            self.ending.n_open += 1
            second.watcher = self.ending
        lane.stats.rescued[0 if cause == CAUSE_ERROR else 1 if cause == CAUSE_CIRCUIT_OPEN else 2] += 1
        failed.caller = None
        caller.on_moved(second)
        return second
