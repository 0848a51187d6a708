# DataPlane: what the sessions of one worker share, sans-I/O. It takes calls with events from the inbox to the lanes (infer, native) or to
# Python handlers (everything else), and pumps lanes that have work.
from libc.stdint cimport int64_t, uint64_t

from gateway.native.body cimport Body, Budget
from gateway.native.call cimport Call, StreamSlot
from gateway.native.codec cimport Wire
from gateway.native.door cimport Door
from gateway.native.http2 cimport SessionLimits
from gateway.native.lane cimport Lane, Occupancy
from gateway.native.noted cimport Noted
from gateway.native.refusal cimport N_CODES
from gateway.native.request cimport Caller, Request
from gateway.native.route cimport Asked, Target
from gateway.native.routetable cimport RouteTable
from gateway.native.sampler cimport Sampler
from gateway.native.shadow cimport Mirror
from gateway.native.timers cimport Timers


cdef class DataPlane:
    cdef readonly SessionLimits limits
    cdef readonly Budget budget
    cdef readonly Timers timers
    cdef RouteTable table
    cdef readonly list inbox            # calls with events
    cdef readonly list dirty            # sessions with output
    cdef readonly list pending          # lanes to pump
    cdef readonly list background       # lanes to pump when there is nothing else to do
    cdef readonly Occupancy occupancy
    cdef readonly Mirror mirror
    cdef object unary                   # path -> function(bytes) -> bytes
    cdef object streaming               # path -> function(Call) -> handler
    cdef public object relays           # function(Call) -> who passes its requests on to lanes with a relay
    cdef object report
    cdef readonly Door door             # what had no model yet
    cdef readonly Sampler sampler       # of the access log; lanes share it
    cdef Wire wire                      # scratch of parse_request
    cdef Asked asked                    # scratch of choose; its key is valid until the next
    cdef readonly bint is_draining
    cdef readonly uint64_t n_requests, n_refused
    cdef uint64_t refusals[N_CODES]     # of n_refused, those that no lane counts, by gRPC code

    cdef int serve_inbox(self, int64_t now_us) except -1
    cdef int pump(self, int64_t now_us) except -1
    cdef bint has_background(self) noexcept
    cdef int pump_background(self, int64_t now_us) except -1

    cdef int _serve(self, Call call, int64_t now_us) except -1
    cdef int _relay(self, Target target, StreamSlot slot, Body body) except -1
    cdef int _serve_stream(self, Call call, int events, int64_t now_us) except -1
    cdef int _note_id(self, Caller caller, Request request) except -1
    cdef int _note_refused(self, Lane lane, Request request, int code, bint is_rest, int64_t now_us) except -1
    cdef Target _instead(self, Target drawn, int64_t now_us)
    cdef int _start_timer(self, Call call) except -1
    cdef int _serve_other(self, Call call, int events, int64_t now_us) except -1
    cdef Request _infer(self, Body body, Caller caller, bint streamed, bint is_rest, int64_t deadline_us, bytes trace, list parameters,
                        const Noted* headers, int64_t now_us)
