# Generator: load over HTTP/2. Many gRPC calls on a few connections, in a closed loop or at planned times, with no Python between the
# first request and the last answer. One thread; everything below runs without the GIL.
#
#   idle ──begin──▶ in flight ──stream closed──▶ its latency, status and answer are noted, and the slot is idle again
#
# Latency counts from when a request was due, not from when it was written: a stall makes everything behind it late.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from gateway.native.cnghttp2 cimport nghttp2_data_provider, nghttp2_session


cdef enum:
    N_STATUSES = 18                     # gRPC's 0 to 16, and what brought none
    STATUS_NONE = 17
    MAX_ANSWERS = 4096                  # different answers kept for the check
    MAX_KEPT_BYTES = 64 << 20           # of all of them together
    OUT_BYTES = 1 << 17                 # gathered for one write
    IN_BYTES = 1 << 17
    MAX_TRANSPORT = 4                   # ways to lose a request


cdef enum Loss:               # why a request has no status
    LOSS_RESET                # the stream was reset
    LOSS_CLOSED               # the connection ended
    LOSS_SILENT               # no answer when patience was over
    LOSS_STATUS               # the answer ended without a grpc-status


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


cdef struct Answer:           # a different answer to one request
    uint64_t hash
    int32_t which
    int64_t count
    uint8_t* data             # owned; NULL: too much was kept already
    size_t len


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
    # results
    uint32_t* latencies                 # owned; microseconds
    int64_t n_latencies, latency_room
    int64_t statuses[N_STATUSES]
    int64_t losses[MAX_TRANSPORT]
    int64_t n_open, n_done
    int64_t bytes_in, bytes_out
    int64_t late_max_us                 # the generator's own lateness in beginning a planned request
    int64_t n_unkept                    # answers seen that were not kept for the check
    Answer* answers                     # owned, a hash table
    int n_answers
    size_t kept_bytes
    int error
    bint is_ending                      # no request begins any more
