# Generator: load over HTTP/2. Many gRPC calls on a few connections, in a closed loop or at planned times, with no Python between the
# first request and the last answer. One thread; everything below runs without the GIL.
#
#   idle ──begin──▶ in flight ──stream closed──▶ its latency, status and answer are noted, and the slot is idle again
#
# Latency counts from when a request was due, not from when it was written: a stall makes everything behind it late.
from libc.stdint cimport int32_t, int64_t, uint8_t

from gateway.native.cnghttp2 cimport nghttp2_session
from gateway.native.loadresults cimport Results


cdef enum:
    OUT_BYTES = 1 << 17                 # gathered for one write
    IN_BYTES = 1 << 17


cdef struct Slot:             # one request in flight
    int64_t due_us
    int32_t which             # request
    int32_t status
    int32_t stream_id
    size_t sent               # of the request's bytes
    uint8_t* answer           # owned, reused
    size_t answer_len, answer_room
    Slot* next                # idle, or the peer's in flight
    Slot* previous


cdef struct Peer:             # one connection
    int fd                    # borrowed: Python closes the socket
    nghttp2_session* session  # owned
    void* load
    uint8_t* out              # owned
    size_t out_len, out_at
    int n_open
    bint is_gone
    Slot* open                # in flight


cdef struct Load:
    Peer* peers
    int n_peers
    Slot* slots
    Slot* idle
    const uint8_t** requests            # framed messages, borrowed
    size_t* request_lens
    int n_requests, next_request
    int max_streams                     # on one connection
    bint keeps_answers
    # open loop
    const int64_t* plan                 # due times from the start, ascending; NULL: closed loop
    int64_t n_plan, n_due, n_begun
    int next_peer
    Results results
    int64_t n_open
    bint is_ending                      # no request begins any more
