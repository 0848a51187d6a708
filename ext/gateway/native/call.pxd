# Call: one gRPC call on one HTTP/2 stream: its messages in, its messages and status out.
#
#   OPEN ──END_STREAM──▶ SERVING ──answer/finish──▶ ANSWERED ──stream closed──▶ CLOSED
#     └──────────── finish (refused early) ───────────▲                            ▲
#     └──────────── reset, disconnect, from any state ─────────────────────────────┘
#
# Flow: the session calls `begin`, `receive`, `end_input`, `close` from its callbacks; each leaves events for the data plane in the
# carrier's inbox. `send`, `answer` and `finish` submit to nghttp2, which is legal anywhere, and mark the carrier for a flush.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from gateway.native.body cimport Body, Budget
from gateway.native.cnghttp2 cimport nghttp2_session
from gateway.native.door cimport Door, DoorReason
from gateway.native.noted cimport Noted
from gateway.native.request cimport Caller, Request
from gateway.native.timers cimport Timers


cdef enum CallState:
    CALL_OPEN                 # the caller may still send
    CALL_SERVING              # it has sent everything
    CALL_ANSWERED             # the status is decided; frames may still be on their way out
    CALL_CLOSED               # the stream is gone: nothing can be sent


cdef enum Method:
    METHOD_NONE               # headers not complete, or refused
    METHOD_INFER              # ModelInfer
    METHOD_STREAM_INFER       # ModelStreamInfer
    METHOD_OTHER              # Python answers


cdef enum Event:              # bits, for the data plane
    EVENT_BEGIN = 1           # METHOD_OTHER: headers are complete
    EVENT_MESSAGE = 2
    EVENT_END = 4             # the caller has sent everything
    EVENT_CLOSED = 8          # given up before it was answered


cdef enum Encoding:
    ENCODING_IDENTITY
    ENCODING_DEFLATE
    ENCODING_GZIP
    ENCODING_UNKNOWN


cdef class Carrier:           # what a call needs of the session that carries it
    cdef nghttp2_session* session       # owned by the subclass; NULL once gone
    cdef Budget budget
    cdef readonly Door door
    cdef size_t max_message_bytes
    cdef int max_stream_pending
    cdef int64_t now_us                 # of the feed in progress
    cdef list inbox                     # calls with events, each once
    cdef list dirty                     # shared: carriers with something to send
    cdef list unread                    # streams that were refused while their callers still send; None: none
    cdef bint is_dirty
    cdef void touch(self)
    cdef int stop_reading(self, int32_t stream_id) except -1


cdef class Call(Caller):
    cdef Carrier carrier                # None when CLOSED
    cdef Call next, previous            # the session's open calls; next owned
    cdef int32_t stream_id
    cdef CallState state
    cdef Method method
    cdef int events                     # Event bits not yet seen by the data plane
    cdef readonly int64_t deadline_us   # monotonic; 0: none
    cdef int64_t began_us               # since when we wait for the headers, or for the message being received, to be complete
    cdef int64_t stalled_us             # since when nothing of the answer could be sent, as the sweep saw it; 0: it moves
    cdef Timers timers                  # where the call's own deadline is pending
    # request side
    cdef str path_text                  # METHOD_OTHER only
    cdef size_t header_bytes            # RFC 9113's count
    cdef uint8_t prefix[5]
    cdef int prefix_len
    cdef bint is_compressed             # of the message being received
    cdef Encoding encoding              # the caller's grpc-encoding
    cdef bint accepts_encoding          # it lists `encoding` in grpc-accept-encoding, or used it itself
    cdef bint has_method, has_path, has_content_type, has_bad_timeout
    cdef bytes refused_content_type, refused_method, refused_encoding
    cdef bytes trace                    # traceparent; None: not given
    cdef list parameters                # forwarded headers; None: none
    cdef Noted noted                    # headers that routes may look at; block owned
    cdef Body incoming                  # being received
    cdef Body message                   # unary: the complete one
    cdef object messages                # streaming: deque of the complete ones, oldest first
    cdef size_t unreturned              # window bytes withheld from a streaming caller
    # answer side
    cdef Request request                # unary: in flight
    cdef list slots                     # streaming: StreamSlots in the order of their requests
    cdef object handler                 # METHOD_OTHER: StreamHandler, or the unary function; streaming: the relay to other servers
    cdef public int n_relayed           # requests that the relay holds
    cdef public object drained          # called once when all that was sent has left; None: nobody waits
    cdef Body out                       # being sent
    cdef size_t out_sent
    cdef object out_more                # deque of those behind it
    cdef bint has_headers, is_deferred
    cdef int status                     # gRPC code once ANSWERED
    cdef str status_text
    cdef bytes failed_id                # of the request that the status is about, for a trailer; None: none

    # from the session's callbacks
    cdef int receive(self, const uint8_t* data, size_t n) except -1
    cdef int end_input(self) except -1
    cdef int close(self) except -1
    # answering
    cdef int answer(self, Body body) except -1            # unary: the message, status OK
    cdef int push(self, Body body) except -1              # streaming: one more message
    cdef int end(self, int code, str text) except -1      # status; nothing happens when already answered
    cdef int refuse_http(self, bytes http_status, int code, str text) except -1
    cdef int refuse(self, DoorReason reason, int code, str text) except -1      # end, and count it
    cdef int raise_event(self, int event) except -1
    cdef void return_window(self)
    cdef void reset(self) noexcept                        # give up on the stream: RST_STREAM
    cdef void stop_timer(self) noexcept
    cdef size_t missing_bytes(self) noexcept              # of the message being received
    cdef int n_waiting(self)                              # messages not yet answered or not yet sent

    cdef int _complete(self, Body body) except -1
    cdef Body _decompressed(self, Body body)              # None: refused
    cdef Body _compressed(self, Body body)
    cdef Body _charged(self, Body body)
    cdef int _start(self) except -1
    cdef int _submit_trailers(self) except -1


cdef class StreamSlot(Caller):          # one message of a ModelStreamInfer call
    cdef Call call                      # None once cancelled
    cdef Request request
    cdef Body ready                     # the answer, waiting for its turn
    cdef int _flush(self) except -1


cdef void advance(Call call, size_t n) noexcept           # n bytes of the answer have left the Body
