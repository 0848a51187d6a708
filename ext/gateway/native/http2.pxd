# Session: one HTTP/2 connection, sans-I/O: feed bytes, take calls with events from the inbox, pull bytes.
#
# nghttp2's rules, restated: never feed or pull inside a callback (asserted in debug builds); submitting there is fine. After a feed,
# pull once and write everything together. Close when the library wants neither to read nor to write and our output has left.
#
# Bytes in: nghttp2 hands us slices of what was fed; they are copied once, into the call's Body. The connection window is returned at
# once, since memory is bounded by the budget; a streaming call's own window is withheld while it has too many requests waiting.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from gateway.native.body cimport Budget
from gateway.native.call cimport Call, Carrier


cdef enum Feed:
    FEED_OK = 0
    FEED_NOT_HTTP2 = 1        # the preface is something else
    FEED_BROKEN = 2           # a connection error: GOAWAY is queued, or must be assumed


cdef struct Outgoing:         # bytes to write; owned by whoever pulls, reused
    uint8_t* data
    size_t length, capacity


cdef class SessionLimits:
    cdef readonly size_t max_message_bytes, max_header_list_bytes, max_continuations, reset_burst, resets_per_s
    cdef readonly uint32_t max_concurrent_streams, stream_window_bytes, connection_window_bytes
    cdef readonly int max_stream_pending
    cdef readonly object forward_pattern        # of header names; None: no header becomes a parameter


cdef class Session(Carrier):
    cdef SessionLimits limits
    cdef Call first                     # open calls
    cdef void* current                  # borrowed: the call whose frames came last, by its stream; NULL: none
    cdef int32_t current_id
    cdef readonly int n_open
    cdef object error                   # what a callback raised
    cdef bint inside                    # feeding or pulling
    cdef Outgoing* outgoing             # where pull writes
    cdef size_t high_bytes              # and when it stops
    cdef readonly int64_t last_read_us
    cdef readonly bint has_preface      # the peer's SETTINGS came
    cdef readonly bint is_draining      # shutdown notice sent
    cdef bint is_goaway_sent
    cdef object owner                   # the connection, for the loop's side
    cdef readonly uint32_t n_calls

    cdef int feed(self, const uint8_t* data, size_t n, int64_t now_us) except -1         # Feed
    cdef int pull(self, Outgoing* outgoing, size_t high_bytes) except -1                 # appends; 1 when more is left
    cdef bint wants_write(self) noexcept
    cdef bint is_finished(self) noexcept
    cdef int drain(self) except -1
    cdef int refuse(self) except -1
    cdef int close(self) except -1

    cdef void* call_of(self, int32_t stream_id) noexcept                                 # borrowed; NULL: none, or closed
    cdef int _begin(self, int32_t stream_id) except -1
    cdef bint _note_usual(self, Call call, const uint8_t* name, size_t name_len, const uint8_t* value, size_t value_len) noexcept
    cdef int _header(self, Call call, const uint8_t* name, size_t name_len, const uint8_t* value, size_t value_len) except -1
    cdef bint _is_usual(self, Call call) noexcept
    cdef int _headers_complete(self, Call call) except -1
    cdef int _unlink(self, Call call) except -1
    cdef int _final_goaway(self) except -1
    cdef int _reset_unread(self) except -1


cdef int reserve(Outgoing* outgoing, size_t n) noexcept                                  # -1: no memory
