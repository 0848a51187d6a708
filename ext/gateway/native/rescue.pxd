# Fallback: another version answers what a route's version failed on. At most once per request, for the same caller, within the caller's
# own deadline; the failed attempt keeps counting against its own lane and arm.
#
#   request.fail ──take──▶ a second Request over the same Body, in the fallback's lane ──▶ the caller
#   admission refused by an open circuit ──start──▶ the same
#
# Second attempts are bounded as load balancers do it: a fifth of the requests in flight, but always MIN_AT_ONCE. A refusal by the circuit
# cost the version nothing, so it takes none of that.
from libc.stdint cimport int64_t

from gateway.native.arm cimport Arm
from gateway.native.codec cimport Wire
from gateway.native.lane cimport Lane
from gateway.native.request cimport Request, Rescue, Watcher


cdef enum:
    MIN_AT_ONCE = 3
    ONE_IN = 5                # of the requests in flight


cdef class RescueEnd(Watcher):
    cdef int n_open                     # without those by an open circuit


cdef class Fallback(Rescue):
    cdef readonly Lane lane             # answers instead
    cdef readonly Arm arm               # on which second attempts count; None: on none
    cdef RescueEnd ending
    cdef Wire wire                      # scratch of parse_request

    cdef Request start(self, Request failed, Lane lane, int cause, int64_t now_us)     # None: it stays with the failure


cdef bytes parameters_of_answer(str failed_version)       # that say who should have answered
