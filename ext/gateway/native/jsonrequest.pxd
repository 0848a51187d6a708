# JsonRequest: the JSON text of an infer request, straight into a ModelInferRequest with raw contents. It takes what it fully understands
# and leaves all else to Python, errors with their words included: False and None mean "not mine", never "wrong".
#
#   scan_request    text ─▶ JsonRequest   spans into the text; where the data of each input begins and ends, unread
#   measure, fill   data ─▶ Body          read once, strictly, where the wire wants it
from libc.stdint cimport uint64_t

from gateway.native.cursor cimport Cursor, Span
from gateway.native.jsondata cimport JsonInput


cdef enum:
    MAX_JSON_INPUTS = 128     # on the stack; above, Python reads the request
    MAX_JSON_OUTPUTS = 64
    MAX_JSON_PARAMETERS = 16


cdef struct JsonParameter:
    Span name
    int choice                # field of InferParameter: 1 bool, 2 int64, 3 string
    uint64_t number
    Span text


cdef struct JsonRequest:
    Span id
    uint64_t priority, timeout_us               # 0: not given
    int n_inputs, n_outputs, n_parameters
    JsonInput inputs[MAX_JSON_INPUTS]
    Span outputs[MAX_JSON_OUTPUTS]
    JsonParameter parameters[MAX_JSON_PARAMETERS]


cdef bint scan_request(Cursor* c, JsonRequest* request) noexcept nogil
