# Request: one infer request, from a parsed body to the one answer its caller gets.
#
#   NEW ──admit──▶ QUEUED ──batch──▶ RUNNING ──▶ DONE
#    │               │                  │
#    └──refuse───────┴──cancel/expire───┴──────▶ DONE      a running one that is cancelled stays in its batch; its answer is dropped
#
# `settle` and `fail` are the only ways out and act once: the first detaches the caller, the rest find none.
from libc.stdint cimport int64_t, uint8_t, uint64_t

from gateway.native.arm cimport Arm
from gateway.native.body cimport Body
from gateway.native.codec cimport Wire
from gateway.native.cursor cimport Span
from gateway.native.scales cimport Seen
from gateway.native.signature cimport MAX_DIMS, Signature
from gateway.native.timers cimport Timed


cdef enum RequestState:
    REQUEST_NEW
    REQUEST_QUEUED
    REQUEST_RUNNING
    REQUEST_DONE


cdef enum Cause:              # why a request is rescued; bits
    CAUSE_ERROR = 1           # the version failed on it
    CAUSE_CIRCUIT_OPEN = 2    # the version gets no requests
    CAUSE_TIMEOUT = 4         # its share of the deadline is over


cdef enum:
    INLINE_TENSORS = 2        # inputs held inside the object; most models have one
    INLINE_WANTED = 4


cdef struct TensorRef:        # one input's bytes, in signature order
    const uint8_t* data       # into body, or owned
    size_t nbytes
    int64_t n_elements
    int n_dims
    bint is_owned             # data was decoded from typed contents, and is freed with the request
    int64_t dims[MAX_DIMS]


cdef class Caller(Timed):     # who waits for the answer: a unary call, a message of a stream, a REST exchange
    cdef bytes refused_id               # of what was refused before it was a Request; None: not known
    cdef int on_answer(self, Request request, Body answer) except -1
    cdef int on_failure(self, Request request, int code, str text) except -1
    cdef bytes id_of(self, Request request)                  # what its failure is about; b"" for none
    cdef int on_moved(self, Request request) except -1       # from now on this one is answered in place of the one it knew


cdef class Origin:            # how a request was drawn, where its arm does not say it
    cdef Arm arm                        # not the one that answers
    cdef uint64_t unit                  # salted hash of the sticky key; 0: it has none


cdef class Stamp:             # what a version's answers carry beside their outputs
    # Encoded like Request.answer_parameters, or None. Any thread, with the GIL.
    cdef bytes parameters_of(self, Request request, list outputs, int64_t first, int64_t n_rows)


cdef class Holder:            # who holds the request while it waits: its lane
    cdef public Stamp stamp             # None: its answers carry nothing of their own
    cdef int on_expired(self, Request request, int64_t now_us) except -1
    cdef int on_cancelled(self, Request request, int64_t now_us) except -1      # now_us 0: not known


cdef class Watcher:           # hears how a request ended, after its caller did
    cdef int on_end(self, Request request, Body answer, int code) except -1      # answer: None when it failed; code -1: cancelled


cdef class Rescue:            # may take over from a request that failed, before its caller hears of it
    cdef int causes                     # Cause bits that it acts on
    cdef bint can_take(self, Request request, int cause) except -1
    cdef bint take(self, Request request, int code, str text) except -1          # True: the caller is somebody else's now


cdef class Request(Timed):              # at most 512 bytes: beyond, Python has malloc make it
    cdef Body body                      # keeps the tensors' bytes alive
    cdef Signature signature
    cdef Caller caller                  # None once answered or given up
    cdef Holder holder                  # None until admitted
    cdef Arm arm                        # whose counters it falls on; None: nobody compares
    cdef int64_t mark                   # of its arm's scales; 0: they have none, or it has ended
    cdef Seen seen                      # of its answer, when it is marked
    cdef Origin origin                  # how it was drawn, for the receipt; None: for `arm`, at random, or nobody asks
    cdef Watcher watcher                # None: nobody listens
    cdef Rescue rescue                  # None: a failure goes to the caller
    cdef void* next                     # the lane's queue: borrowed, the lane holds one reference to each queued request
    cdef void* previous
    cdef RequestState state
    cdef unsigned char streamed         # the answer is a ModelStreamInferResponse
    cdef unsigned char is_rest          # came by REST, else by gRPC
    cdef unsigned char priority         # 1 is the most urgent
    cdef int64_t arrived_us, started_us
    cdef int64_t deadline_us            # 0: none
    cdef int64_t final_deadline_us      # the caller's, when deadline_us is only a first attempt's share of it; 0: deadline_us is all
    cdef int64_t circuit_period         # with which the lane's circuit admitted it; 0: it has none
    cdef uint64_t timeout_us            # the `timeout` parameter; 0: not given
    cdef uint64_t priority_given        # the `priority` parameter; 0: not given
    cdef int64_t n_rows                 # 1 when the model has no batch dimension
    cdef int64_t n_rows_taken, n_rows_done      # of a request split over batches
    cdef bytes trace                    # traceparent, None: not given
    cdef list parameters                # headers that the deployment forwards, (name, value); None: none
    cdef bytes answer_parameters        # ModelInferResponse.parameters, encoded; None: none
    cdef list parts                     # outputs of a split request: (first_row, arrays)
    cdef uint64_t shape_key             # hash of the inner dimensions; requests join only on equal keys and equal shapes
    cdef size_t nbytes                  # body and decoded contents: what the queue counts
    cdef Span id                        # into body
    cdef int n_tensors, n_wanted
    cdef TensorRef* tensors             # inside, or owned
    cdef int* wanted                    # indexes of outputs, in the caller's order; inside, or owned
    cdef TensorRef inside[INLINE_TENSORS]
    cdef int inside_wanted[INLINE_WANTED]

    # filling: raises Refusal
    @staticmethod
    cdef Request new(Body body, Signature signature, Caller caller)
    cdef int bind(self, Wire* wire) except -1
    cdef bint can_join(self, Request other) noexcept
    # leaving
    cdef int settle(self, Body answer) except -1
    cdef int fail(self, int code, str text) except -1
    cdef int cancel(self, int64_t now_us=*) except -1        # the caller is gone: nobody is answered

    cdef int _tell_watcher(self, Body answer, int code) except -1
    cdef int _bind_input(self, Wire* wire, int index, int position, Span* raw) except -1
    cdef int _bind_shape(self, void* tensor, int index, int position) except -1
    cdef int _bind_outputs(self, Wire* wire) except -1
    cdef str _input(self, int index)
