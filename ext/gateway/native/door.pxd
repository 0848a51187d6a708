# Door: what was turned away before anybody looked for its model, by reason and by gRPC code. One per worker, shared by its sessions and
# by REST; loop thread only.
from libc.stdint cimport uint64_t

from gateway.native.refusal cimport N_CODES


cdef enum DoorReason:
    DOOR_MALFORMED            # not what the protocol demands: framing, compression, headers that cannot be read
    DOOR_HEADER_LIST_BYTES    # max_header_list_bytes
    DOOR_MESSAGE_BYTES        # max_message_bytes, max_json_bytes
    DOOR_IN_FLIGHT_BYTES      # max_in_flight_bytes, or memory itself
    DOOR_TOO_SLOW             # a head or a message that did not come
    DOOR_UNKNOWN_PATH         # no such method or path
    DOOR_UNKNOWN_MODEL
    DOOR_NOT_READY            # the model does not serve
    N_DOOR_REASONS


cdef class Door:
    cdef uint64_t by_reason[<int>N_DOOR_REASONS]
    cdef uint64_t by_code[<int>N_CODES]         # of those that were infer requests

    cdef void count(self, DoorReason reason, int code, bint is_infer) noexcept
