# Lane: the queue and the batches of one version in one worker. Loop thread only; a batch alone visits another thread.
#
#   admit ──▶ queue (by priority, FIFO) ──pump──▶ batch ──▶ inline, or submit(batch) … complete(batch) ──▶ each member settled once
#
# Who wakes it: admit and the delay timer put the lane on `pending`; the data plane pumps what is pending once a loop turn.
from libc.stdint cimport int64_t, uint64_t

from gateway.native.batch cimport Batch, Release
from gateway.native.circuit cimport Circuit
from gateway.native.cost cimport Cost
from gateway.native.linger cimport Linger
from gateway.native.histogram cimport Histogram
from gateway.native.monitor cimport Monitor
from gateway.native.refusal cimport N_CODES
from gateway.native.request cimport Holder, Request
from gateway.native.sampler cimport Sampler
from gateway.native.signature cimport Signature
from gateway.native.timers cimport Timed, Timers


cdef enum:
    MAX_PRIORITIES = 16
    MAX_SCAN = 1024           # queued requests looked at for one batch of equal shapes: bounds the work of one pump


cdef struct LaneStats:        # cumulative since start; read by statistics and metrics
    uint64_t requests[N_CODES]          # answered, by gRPC code
    uint64_t cancelled                  # given up by their callers
    uint64_t rows, batches, inline_batches
    uint64_t releases[5]                # by Release
    uint64_t queue_us, run_us           # summed over requests, over batches
    uint64_t success_us, failure_us     # from admission to the answer, over requests
    uint64_t compute_us                 # the run of its batch, over requests: Triton's way of counting
    Histogram request[2]                # by protocol: gRPC, REST
    Histogram queue, execution
    uint64_t refused_rows, refused_bytes, refused_late, refused_circuit
    uint64_t rescued[3]                 # answered by a fallback instead: after an error, an open circuit, a timeout
    uint64_t circuit_opened
    uint64_t alone_runs, alone_ns       # of batches with one request: runs, and execution per row summed over them
    double alone_squares                # of that, in ns squared
    uint64_t rescues_refused            # not rescued, because too many were being rescued already


cdef class Occupancy:         # of one worker, over all its lanes
    cdef readonly int n_batches         # that executors hold
    cdef public int n_cores             # this worker's share: shadow work starts while fewer batches run


cdef class LaneAlarm(Timed):
    cdef Lane lane


cdef class Lane(Holder):
    cdef readonly Signature signature
    cdef object run                     # list[ndarray] -> list[ndarray]
    cdef dict buffers                   # rows -> arrays that an inline batch is gathered into; None: new ones each time
    cdef object submit                  # batch -> None: to an executor
    cdef object report                  # exception -> None: to the log
    cdef public object relay            # the streams of a version elsewhere that take its requests; None: they are batched
    cdef public object on_left          # () -> None: somebody has left a batch that is running; None: nobody asks
    cdef Timers timers
    cdef list pending                   # shared
    cdef bint is_pending
    cdef readonly bint is_closed
    # policy
    cdef readonly int64_t max_batch_size        # rows; 0: no batch dimension, every request runs alone
    cdef readonly size_t max_batch_bytes
    cdef readonly size_t alone_bytes            # a larger request joins no other: it runs where it lies, without a copy
    cdef readonly int64_t max_delay_us
    cdef readonly int instances                 # batches running at once
    cdef readonly int64_t max_queue_rows
    cdef readonly size_t max_queue_bytes
    cdef readonly int64_t default_timeout_us, max_timeout_us    # 0: none
    cdef readonly int n_priorities, default_priority
    cdef readonly int64_t inline_below_us
    # state
    cdef void* heads[MAX_PRIORITIES]            # Requests, linked; one reference held to each while queued
    cdef void* tails[MAX_PRIORITIES]
    cdef readonly int64_t queued_rows
    cdef readonly size_t queued_bytes
    cdef readonly int n_queued, n_running
    cdef readonly int n_open                    # requests admitted and not settled
    cdef public Circuit circuit                 # None: a version that fails goes on getting requests
    cdef bint has_deadlines
    cdef Cost cost
    cdef bint lingers                           # eager, but not blindly
    cdef Linger linger
    cdef bint counts_cpu
    cdef LaneAlarm alarm
    cdef int64_t now_us                         # of the turn in progress
    cdef LaneStats stats
    cdef dict batch_sizes                       # rows -> [batches, microseconds]
    cdef int64_t last_us                        # monotonic end of the last run; 0: never
    cdef Sampler sampler                        # None: no access log
    # shadow work: a lane of its own, so that it shares no queue, no counter and no executor with those who wait for answers
    cdef readonly Lane twin                     # of the same version, for shadow work; None: it takes none
    cdef readonly bint is_background            # such a twin: pumped when there is nothing else to do
    cdef Batch unsettled                        # of a twin: back from its executor, its members settled a few an idle turn; None: none
    cdef Occupancy occupancy                    # None: nobody asks
    cdef public Monitor monitor                 # None: nobody looks at values

    cdef int admit(self, Request request, int64_t deadline_us, int64_t now_us) except -1     # Refusal
    cdef int pump(self, int64_t now_us) except -1
    cdef int complete(self, Batch batch, int64_t now_us) except -1

    cdef void mark_pending(self)
    cdef void _count_running(self, int by) noexcept
    cdef Release _decide(self, int64_t now_us, int64_t* wake_us) noexcept
    cdef Batch _form(self, int64_t now_us, Release reason)
    cdef Batch _released(self, Batch batch, Release reason)
    cdef int _perform_inline(self, Batch batch) except -1
    cdef int64_t _joinable_rows(self) noexcept
    cdef Request _head(self)                            # None: nothing queued
    cdef int _push(self, Request request) except -1
    cdef int _unlink(self, Request request) except -1
    cdef bint _goes_on(self, Request request, int64_t now_us) except -1
    cdef int _tell_circuit(self, Request request, int code, bint is_running) except -1
    cdef int _refuse_late(self, Request request, int64_t now_us, double needed_us) except -1
    cdef int _settle(self, Request request, object result) except -1
    cdef int _settle_some(self, int n) except -1
    cdef int _note_run(self, Batch batch) except -1
    cdef int _note_alone(self, Batch batch) except -1
    cdef int _take_result(self, Request request, object result, int64_t n_rows) except -1
    cdef int _join(self, Request request) except -1


cdef Release decide(int64_t now_us, int64_t oldest_us, int64_t rows, int64_t max_rows, int64_t max_delay_us,
                    int64_t deadline_us, double predicted_us, int64_t* wake_us) noexcept nogil
