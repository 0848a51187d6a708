# Codec: ModelInferRequest read in place, ModelInferResponse written once. The field numbers are those of proto/inference.proto.
#
#   parse_request      body ─▶ Wire       spans into the body; nothing is copied, nothing is allocated per request
#   decode_contents    typed contents of one input ─▶ packed little-endian bytes
#   encode_response    outputs ─▶ Body    gRPC prefix included, so that a Body is what goes on the wire
from libc.stdint cimport int64_t, uint8_t, uint64_t

from gateway.native.body cimport Body
from gateway.native.cursor cimport Span
from gateway.native.signature cimport MAX_DIMS, Signature, TensorSpec


cdef enum:
    MAX_TENSORS = 1024        # inputs, raw contents or outputs in one request: an empty one takes 2 bytes on the wire and 150 here
    GRPC_PREFIX_BYTES = 5


cdef enum ParseError:
    PARSE_OK = 0
    PARSE_MALFORMED = -1      # not protobuf, cut short, or a string that is not UTF-8
    PARSE_TOO_MANY = -2       # over MAX_TENSORS
    PARSE_RANK = -3           # a shape with over MAX_DIMS dimensions
    PARSE_MEMORY = -4


cdef struct WireInput:        # one InferInputTensor, in the caller's order
    Span name, datatype
    Span message              # all of it: typed contents are read from here, since protobuf may split them
    int n_dims
    int64_t dims[MAX_DIMS]
    bint has_contents
    bint in_shared_memory


cdef struct Wire:             # one request; reused, arrays owned
    Span model, version, id
    WireInput* inputs
    Span* raws
    Span* outputs
    int n_inputs, n_raws, n_outputs
    int room_inputs, room_raws, room_outputs
    uint64_t priority         # parameter; 0: not given
    uint64_t timeout_us       # parameter; 0: not given
    const char* error_in      # message type or field that parse_request stopped at
    size_t error_at           # byte offset in the body


cdef struct OutputView:       # one output of one request
    const TensorSpec* spec
    int n_dims
    int64_t dims[MAX_DIMS]
    const uint8_t* data
    size_t nbytes


cdef int parse_request(Span body, Wire* wire) noexcept nogil                    # ParseError
cdef size_t raw_offset(Span head) noexcept nogil                               # 0: not known
cdef void free_wire(Wire* wire) noexcept nogil
cdef str parse_error_text(Wire* wire, int error)

# One InferInputTensor, or InferOutputTensor, appended to wire.inputs; an error leaves it out
cdef int parse_input(Span message, Wire* wire) noexcept nogil                   # ParseError
cdef int grow(void** array, int* room, size_t item_size) noexcept nogil         # ParseError

# Writes `nbytes` to `out` (malloc'ed here, the caller frees), or refuses. Returns the elements found.
cdef int64_t decode_contents(WireInput* tensor, int datatype, uint8_t** out, size_t* nbytes, Signature signature) except -1

# parameters: encoded already, with their field's tags (see parameters.pxd); empty for none
cdef Body encode_response(Signature signature, Span id, Span parameters, const OutputView* outputs, int n_outputs, bint streamed)
cdef Body encode_stream_error(bytes text, bytes id)
