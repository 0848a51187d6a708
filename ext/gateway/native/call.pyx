"""gRPC over one HTTP/2 stream: message framing, compression, status."""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

import zlib
from collections import deque

from gateway.native cimport counters
from gateway.native.body cimport Body
from gateway.native.cnghttp2 cimport (
    NGHTTP2_CANCEL, NGHTTP2_DATA_FLAG_EOF, NGHTTP2_DATA_FLAG_NO_COPY, NGHTTP2_DATA_FLAG_NO_END_STREAM, NGHTTP2_ERR_DEFERRED,
    NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE, NGHTTP2_FLAG_NONE, NGHTTP2_NV_FLAG_NO_COPY_NAME,
    NGHTTP2_NV_FLAG_NO_COPY_VALUE, nghttp2_data_provider, nghttp2_data_source, nghttp2_nv, nghttp2_session,
    nghttp2_session_consume_stream, nghttp2_session_resume_data, nghttp2_submit_response, nghttp2_submit_rst_stream,
    nghttp2_submit_trailer, ssize_t)
from gateway.native.codec cimport GRPC_PREFIX_BYTES, encode_stream_error, raw_offset
from gateway.native.cursor cimport Span
from gateway.native.door cimport DOOR_IN_FLIGHT_BYTES, DOOR_MALFORMED, DOOR_MESSAGE_BYTES, DoorReason
from gateway.native.noted cimport release_noted
from gateway.native.refusal cimport DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from gateway.native.request cimport Request

cdef enum:
    NO_COPY_MIN_BYTES = 2048  # larger DATA payloads go from the answer into the send buffer at once, without nghttp2's frame buffer
    COMPRESS_MIN_BYTES = 256  # below this gzip only adds bytes
    MAX_ID_BYTES = 256        # of a request's id in a trailer
    MAX_TEXT_BYTES = 2048     # of grpc-message, before percent-encoding triples them: callers take 8 KiB of headers

# zlib's window bits for what gRPC calls gzip and deflate (zlib format, RFC 1950).
WINDOW_BITS = {ENCODING_GZIP: 31, ENCODING_DEFLATE: 15}
ENCODING_NAMES = {ENCODING_GZIP: b"gzip", ENCODING_DEFLATE: b"deflate"}
REQUEST_ID = b"x-request-id"
COMPRESS_LEVEL = 1            # the wire is local or fast; higher levels cost more time than they save


cdef nghttp2_nv header(bytes name, bytes value, bint is_static):
    """With `is_static` both outlive every session, and nghttp2 need not copy them."""
    cdef nghttp2_nv nv
    nv.name, nv.namelen = <uint8_t*><char*>name, len(name)
    nv.value, nv.valuelen = <uint8_t*><char*>value, len(value)
    nv.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE if is_static else 0
    return nv


# Kept for good: the arrays below point into them.
_static = [b":status", b"200", b"content-type", b"application/grpc", b"grpc-status", b"0",
           b"grpc-accept-encoding", b"identity,deflate,gzip"]
cdef nghttp2_nv ANSWER_HEADERS[2]
cdef nghttp2_nv ACCEPT_ENCODING = header(_static[6], _static[7], True)
cdef nghttp2_nv STATUS_OK = header(_static[4], _static[5], True)
ANSWER_HEADERS[0], ANSWER_HEADERS[1] = header(_static[0], _static[1], True), header(_static[2], _static[3], True)


cdef bytes percent_encoded(str text):
    """grpc-message: printable ASCII but '%' as it is, the rest as %XX of its UTF-8."""
    raw = text[:MAX_TEXT_BYTES].encode("utf-8", "replace")
    if len(raw) > MAX_TEXT_BYTES:
        raw = raw[:MAX_TEXT_BYTES].decode("utf-8", "ignore").encode()
    if raw.isascii() and b"%" not in raw and raw.decode("ascii").isprintable():
        return raw
    return b"".join([bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in raw])


cdef bytes id_header(bytes id):
    """A request's id as a header can carry it, escaped like grpc-message."""
    return percent_encoded(id[:MAX_ID_BYTES].decode("utf-8", "replace"))


cdef class Carrier:
    """Abstract: a session."""

    cdef void touch(self):
        """Something is ready to be sent: flush before the loop sleeps."""
        if not self.is_dirty:
            self.is_dirty = True
            self.dirty.append(self)

    cdef int stop_reading(self, int32_t stream_id) except -1:
        """Stop an upload that nobody will read, once the answer has left: nghttp2 drops what a reset stream still wants to send."""
        if self.unread is None:
            self.unread = []
        self.unread.append(stream_id)
        return 0


@cython.final
@cython.no_gc
cdef class Call(Caller):
    """See call.pxd. Python sees `path`, `send` and `finish` of METHOD_OTHER calls, and what a relay needs of streaming ones."""

    def __cinit__(self):
        counters.count(counters.KIND_CALL, 1)

    def __dealloc__(self):
        release_noted(&self.noted)
        counters.count(counters.KIND_CALL, -1)

    # --- request side ----------------------------------------------------------------------------------------------------------

    cdef int receive(self, const uint8_t* data, size_t n) except -1:
        """Bytes of the request stream: any cut is possible."""
        cdef size_t length, take
        cdef Span head
        cdef Carrier carrier = self.carrier
        while n and self.state == CALL_OPEN:
            if self.incoming is None:
                take = min(n, <size_t>(GRPC_PREFIX_BYTES - self.prefix_len))
                memcpy(self.prefix + self.prefix_len, data, take)
                self.prefix_len += <int>take
                data += take
                n -= take
                if self.prefix_len < GRPC_PREFIX_BYTES:
                    return 0
                length = (<size_t>self.prefix[1] << 24) | (<size_t>self.prefix[2] << 16) | (<size_t>self.prefix[3] << 8) | self.prefix[4]
                if self.prefix[0] > 1:
                    return self.refuse(DOOR_MALFORMED, INTERNAL, f"gRPC message flag: got {self.prefix[0]}, expected 0 or 1 (compressed)")
                self.is_compressed = self.prefix[0] == 1
                if self.is_compressed and self.encoding == ENCODING_IDENTITY:
                    return self.refuse(DOOR_MALFORMED, INTERNAL, "gRPC message flag says compressed, but grpc-encoding is missing")
                if self.method == METHOD_INFER and self.message is not None:
                    return self.refuse(DOOR_MALFORMED, UNIMPLEMENTED, "a unary call got a second request message, expected one")
                if length > carrier.max_message_bytes:
                    return self.refuse(
                        DOOR_MESSAGE_BYTES, RESOURCE_EXHAUSTED,
                        f"message size: got {length} bytes, expected at most {carrier.max_message_bytes} (max_message_bytes)")
                if not carrier.budget.reserve(length):
                    return self.refuse(
                        DOOR_IN_FLIGHT_BYTES, RESOURCE_EXHAUSTED,
                        f"the gateway holds {carrier.budget.used} bytes in flight, a message of {length} would pass the limit of "
                        f"{carrier.budget.limit} (max_in_flight_bytes)")
                try:
                    self.incoming = Body.sized(length)
                except MemoryError:
                    carrier.budget.release(length)
                    return self.refuse(DOOR_IN_FLIGHT_BYTES, RESOURCE_EXHAUSTED, f"no memory for a message of {length} bytes")
                self.incoming.charge(carrier.budget, length)
                self.began_us = carrier.now_us
            take = min(n, self.incoming.charged - self.incoming.length)
            if take and self.incoming.is_placeable():
                head.ptr, head.len = data, take
                self.incoming.place(raw_offset(head))
            self.incoming.append(data, take)
            data += take
            n -= take
            if self.incoming.length == self.incoming.charged:
                body, self.incoming = self.incoming, None
                self.prefix_len = 0
                self._complete(body)
        return 0

    cdef int _complete(self, Body body) except -1:
        if self.is_compressed:
            body = self._decompressed(body)
            if body is None:
                return 0
        if self.method == METHOD_INFER:
            self.message = body                               # dispatched when END_STREAM has proved that it is the only one
            return 0
        if self.messages is None:
            self.messages = deque()
        self.messages.append(body)
        return self.raise_event(EVENT_MESSAGE)

    cdef int end_input(self) except -1:
        if self.state != CALL_OPEN:
            return 0
        if self.incoming is not None or self.prefix_len:
            self.incoming = None
            return self.refuse(DOOR_MALFORMED, INTERNAL, "the request stream ended inside a message")
        if self.method == METHOD_INFER and self.message is None:
            return self.refuse(DOOR_MALFORMED, UNIMPLEMENTED, "a unary call got no request message, expected one")
        self.state = CALL_SERVING
        return self.raise_event(EVENT_END)

    cdef int close(self) except -1:
        """The stream is gone: reset by the caller, ended normally, or the connection is lost."""
        cdef StreamSlot slot
        cdef bint was_answered = self.state == CALL_ANSWERED
        cdef int64_t now_us = self.carrier.now_us if self.carrier is not None else 0
        if self.state == CALL_CLOSED:
            return 0
        self.state = CALL_CLOSED
        self.stop_timer()
        if self.out is not None:
            self.out.uncharge()
        self.incoming = self.message = self.out = None
        self.messages = self.out_more = self.drained = None
        if self.request is not None:
            request, self.request = self.request, None
            request.cancel(now_us)
        if self.slots is not None:
            slots, self.slots = self.slots, None
            for slot in slots:
                slot.call = None
                if slot.request is not None:
                    request, slot.request = slot.request, None
                    request.cancel(now_us)
        if self.handler is not None and not was_answered:
            self.raise_event(EVENT_CLOSED)
        self.carrier = None
        return 0

    cdef int raise_event(self, int event) except -1:
        if not self.events:
            self.carrier.inbox.append(self)
        self.events |= event
        return 0

    cdef Body _decompressed(self, Body body):
        cdef size_t limit = self.carrier.max_message_bytes
        cdef Body inflated
        inflater = zlib.decompressobj(WINDOW_BITS[self.encoding])
        try:
            data = inflater.decompress(body, limit + 1)
        except zlib.error as error:
            self.refuse(
                DOOR_MALFORMED, INTERNAL,
                f"a message said to be {ENCODING_NAMES[self.encoding].decode()} cannot be decompressed: {error}")
            return None
        if <size_t>len(data) > limit:
            self.refuse(
                DOOR_MESSAGE_BYTES, RESOURCE_EXHAUSTED,
                f"message size after decompression: got more than {limit} bytes, expected at most that (max_message_bytes)")
            return None
        if not inflater.eof:
            self.refuse(DOOR_MALFORMED, INTERNAL, f"a message said to be {ENCODING_NAMES[self.encoding].decode()} is cut short")
            return None
        if not self.carrier.budget.reserve(len(data)):
            self.refuse(
                DOOR_IN_FLIGHT_BYTES, RESOURCE_EXHAUSTED,
                f"the gateway holds {self.carrier.budget.used} bytes in flight, {len(data)} more would pass the limit of "
                f"{self.carrier.budget.limit} (max_in_flight_bytes)")
            return None
        try:
            inflated = Body.copy_of(data)
        except MemoryError:
            self.carrier.budget.release(len(data))
            self.refuse(DOOR_IN_FLIGHT_BYTES, RESOURCE_EXHAUSTED, f"no memory for a message of {len(data)} bytes")
            return None
        inflated.charge(self.carrier.budget, len(data))
        return inflated

    # --- answer side -----------------------------------------------------------------------------------------------------------

    cdef int answer(self, Body body) except -1:
        if self.state >= CALL_ANSWERED:
            return 0
        self.state = CALL_ANSWERED
        self.out = self._charged(self._compressed(body))
        return self._start()

    cdef int push(self, Body body) except -1:
        if self.state >= CALL_ANSWERED:
            return 0
        body = self._charged(self._compressed(body))
        if self.out is None:
            self.out = body
        elif self.out_more is None:
            self.out_more = deque((body,))
        else:
            self.out_more.append(body)
        return self._start()

    cdef int end(self, int code, str text) except -1:
        cdef nghttp2_nv fields[6]
        cdef int n = 2
        if self.state >= CALL_ANSWERED:
            return 0
        was_open = self.state == CALL_OPEN
        self.state = CALL_ANSWERED
        self.stop_timer()
        if self.handler is not None:                          # not by its own wish: it must let go
            self.raise_event(EVENT_CLOSED)
        self.status = code
        self.status_text = text
        self.incoming = self.message = None
        self.messages = None
        if self.has_headers or self.out is not None:
            return self._start()
        # Nothing was sent: headers and trailers are one block ("trailers-only").
        fields[0], fields[1] = ANSWER_HEADERS[0], ANSWER_HEADERS[1]
        status, message = b"%d" % code, percent_encoded(text)
        fields[2] = header(b"grpc-status", status, False)
        n = 3
        if text:
            fields[n] = header(b"grpc-message", message, False)
            n += 1
        if self.encoding == ENCODING_UNKNOWN:
            fields[n] = ACCEPT_ENCODING
            n += 1
        if self.failed_id is not None:
            fields[n] = header(REQUEST_ID, self.failed_id, False)
            n += 1
        nghttp2_submit_response(self.carrier.session, self.stream_id, fields, n, NULL)
        if was_open:
            self.carrier.stop_reading(self.stream_id)
        self.carrier.touch()
        return 0

    cdef int refuse(self, DoorReason reason, int code, str text) except -1:
        if self.state < CALL_ANSWERED:
            self.carrier.door.count(reason, code, self.method == METHOD_INFER or self.method == METHOD_STREAM_INFER)
        return self.end(code, text)

    cdef int refuse_http(self, bytes http_status, int code, str text) except -1:
        """Not gRPC at all: an HTTP status, with the reason where a gRPC client finds it too."""
        cdef nghttp2_nv fields[3]
        if self.state >= CALL_ANSWERED:
            return 0
        was_open = self.state == CALL_OPEN
        self.state = CALL_ANSWERED
        status, message = b"%d" % code, percent_encoded(text)
        fields[0] = header(b":status", http_status, False)
        fields[1] = header(b"grpc-status", status, False)
        fields[2] = header(b"grpc-message", message, False)
        nghttp2_submit_response(self.carrier.session, self.stream_id, fields, 3, NULL)
        if was_open:
            self.carrier.stop_reading(self.stream_id)
        self.carrier.touch()
        return 0

    cdef Body _compressed(self, Body body):
        """The answer in the encoding that the caller used itself, when that is worth it."""
        cdef Body packed
        if not self.accepts_encoding or body.length < COMPRESS_MIN_BYTES:
            return body
        deflater = zlib.compressobj(COMPRESS_LEVEL, zlib.DEFLATED, WINDOW_BITS[self.encoding])
        data = deflater.compress(memoryview(body)[GRPC_PREFIX_BYTES:]) + deflater.flush()
        packed = Body.sized(GRPC_PREFIX_BYTES + len(data))
        packed.data[0] = 1
        packed.data[1], packed.data[2] = (<size_t>len(data) >> 24) & 0xFF, (<size_t>len(data) >> 16) & 0xFF
        packed.data[3], packed.data[4] = (<size_t>len(data) >> 8) & 0xFF, <size_t>len(data) & 0xFF
        packed.length = GRPC_PREFIX_BYTES
        packed.append(<const uint8_t*><char*>data, len(data))
        return packed

    cdef Body _charged(self, Body body):
        """Answers count against the budget too, but are never refused: they must leave."""
        self.carrier.budget.take(body.length)
        body.charge(self.carrier.budget, body.length)
        return body

    cdef int _start(self) except -1:
        """Have nghttp2 pull: for the first time, or again."""
        cdef nghttp2_data_provider provider
        cdef nghttp2_nv fields[3]
        cdef Carrier carrier = self.carrier
        if not self.has_headers:
            self.has_headers = True
            fields[0], fields[1] = ANSWER_HEADERS[0], ANSWER_HEADERS[1]
            provider.source.ptr = <void*>self
            provider.read_callback = _on_read
            if self.accepts_encoding:
                fields[2] = header(b"grpc-encoding", ENCODING_NAMES[self.encoding], False)
                nghttp2_submit_response(carrier.session, self.stream_id, fields, 3, &provider)
            else:
                nghttp2_submit_response(carrier.session, self.stream_id, ANSWER_HEADERS, 2, &provider)
        elif self.is_deferred:
            self.is_deferred = False
            nghttp2_session_resume_data(carrier.session, self.stream_id)
        carrier.touch()
        return 0

    cdef int _submit_trailers(self) except -1:
        cdef nghttp2_nv fields[3]
        cdef int n = 2
        if self.status == 0 and not self.status_text:
            return nghttp2_submit_trailer(self.carrier.session, self.stream_id, &STATUS_OK, 1)
        status, message = b"%d" % self.status, percent_encoded(self.status_text)
        fields[0] = header(b"grpc-status", status, False)
        fields[1] = header(b"grpc-message", message, False)
        if self.failed_id is not None:
            fields[2] = header(REQUEST_ID, self.failed_id, False)
            n = 3
        return nghttp2_submit_trailer(self.carrier.session, self.stream_id, fields, n)

    cdef void reset(self) noexcept:
        if self.carrier is not None:
            nghttp2_submit_rst_stream(self.carrier.session, NGHTTP2_FLAG_NONE, self.stream_id, NGHTTP2_CANCEL)
            self.carrier.touch()

    cdef void stop_timer(self) noexcept:
        if self.slot >= 0:
            self.timers.cancel(self)

    cdef size_t missing_bytes(self) noexcept:
        return self.incoming.charged - self.incoming.length if self.incoming is not None else 0

    cdef int n_waiting(self):
        return ((len(self.messages) if self.messages is not None else 0) + (len(self.slots) if self.slots is not None else 0)
                + (len(self.out_more) if self.out_more is not None else 0) + self.n_relayed)

    cdef void return_window(self):
        if self.unreturned and self.carrier is not None and self.n_waiting() < self.carrier.max_stream_pending:
            nghttp2_session_consume_stream(self.carrier.session, self.stream_id, self.unreturned)
            self.unreturned = 0
            self.carrier.touch()

    # --- Caller: the unary answer ----------------------------------------------------------------------------------------------

    cdef int on_answer(self, Request request, Body answer) except -1:
        self.request = None
        return self.answer(answer)

    cdef int on_failure(self, Request request, int code, str text) except -1:
        self.request = None
        id = self.id_of(request)
        if id:                                                # else what its headers said
            self.failed_id = id_header(id)
        return self.end(code, text)

    cdef int on_moved(self, Request request) except -1:
        self.request = request
        return 0

    cdef int fire(self, int64_t now_us) except -1:
        """The deadline of a streaming call has passed; a unary one leaves that to its request."""
        return self.end(DEADLINE_EXCEEDED, "deadline exceeded")

    # --- for Python handlers ---------------------------------------------------------------------------------------------------

    @property
    def path(self):
        """"/package.Service/Method"."""
        return self.path_text

    @property
    def is_active(self):
        """Whether a message or a status can still be sent."""
        return self.state < CALL_ANSWERED

    @property
    def n_unsent(self):
        """Messages that wait for the caller to take them."""
        return (self.out is not None) + (len(self.out_more) if self.out_more is not None else 0)

    @property
    def forwarded(self):
        """Headers that the deployment forwards, as [(name, value)], or None."""
        return self.parameters

    @property
    def traceparent(self):
        return self.trace

    def resume(self):
        """Fewer requests wait than before: the caller may send more."""
        self.return_window()

    def release(self):
        """The relay holds nothing any more, and nothing will come."""
        self.handler = None
        if self.state == CALL_SERVING and not self.slots and not self.messages:
            self.end(0, "")

    def send(self, bytes message not None):
        """One answer message."""
        cdef Body body = Body.sized(GRPC_PREFIX_BYTES + len(message))
        cdef size_t n = len(message)
        body.data[0] = 0
        body.data[1], body.data[2], body.data[3], body.data[4] = (n >> 24) & 0xFF, (n >> 16) & 0xFF, (n >> 8) & 0xFF, n & 0xFF
        body.length = GRPC_PREFIX_BYTES
        body.append(<const uint8_t*><char*>message, n)
        self.push(body)

    def finish(self, int code=0, str message=""):
        """The status; the call is over for the handler."""
        self.handler = None
        self.end(code, message)


@cython.final
@cython.no_gc
cdef class StreamSlot(Caller):
    """Keeps the answers of a stream in the order of its requests; failures are in-band, the stream lives on."""

    cdef int on_answer(self, Request request, Body answer) except -1:
        self.request = None
        self.ready = answer
        return self._flush()

    cdef int on_failure(self, Request request, int code, str text) except -1:
        self.request = None
        self.ready = encode_stream_error(text.encode("utf-8", "replace"), self.id_of(request))
        return self._flush()

    cdef int on_moved(self, Request request) except -1:
        self.request = request
        return 0

    cdef int _flush(self) except -1:
        cdef Call call = self.call
        cdef StreamSlot slot
        cdef int n = 0
        if call is None or call.slots is None:
            return 0
        for slot in call.slots:
            if slot.ready is None:
                break
            call.push(slot.ready)
            slot.call = None
            n += 1
        if n:
            del call.slots[:n]
            call.return_window()
            # A refusal comes while others wait to be admitted; a relay ends the call itself.
            if not call.slots and not call.messages and call.handler is None and call.state == CALL_SERVING:
                call.end(0, "")
        return 0


# --- nghttp2 callbacks: they cannot raise ----------------------------------------------------------------------------------------

cdef ssize_t _on_read(nghttp2_session* session, int32_t stream_id, uint8_t* out, size_t room, uint32_t* flags,
                      nghttp2_data_source* source, void* user_data) noexcept:
    """nghttp2 asks for the next DATA payload of a call, of at most `room` bytes."""
    cdef Call call = <Call>source.ptr
    cdef size_t n = 0
    if call.out is not None:
        n = min(room, call.out.length - call.out_sent)
        if n >= NO_COPY_MIN_BYTES:
            flags[0] |= NGHTTP2_DATA_FLAG_NO_COPY             # session.pull copies, in on_send_data
        else:
            memcpy(out, call.out.data + call.out_sent, n)
            advance(call, n)
    elif call.state < CALL_ANSWERED:
        call.is_deferred = True
        return NGHTTP2_ERR_DEFERRED
    if call.state == CALL_ANSWERED and (call.out is None or (flags[0] & NGHTTP2_DATA_FLAG_NO_COPY and is_last(call, n))):
        flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
        try:
            if call._submit_trailers() != 0:
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
        except BaseException:
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    return <ssize_t>n


cdef inline bint is_last(Call call, size_t n) noexcept:
    return call.out_sent + n == call.out.length and not call.out_more


cdef void advance(Call call, size_t n) noexcept:
    """n bytes of the answer have left the Body."""
    call.out_sent += n
    call.stalled_us = 0
    if call.out_sent == call.out.length:
        call.out.uncharge()                                   # sent; a shadow's pair may hold it longer
        call.out = call.out_more.popleft() if call.out_more else None
        call.out_sent = 0
        if call.unreturned:
            call.return_window()
        if call.out is None and call.drained is not None:
            waiter, call.drained = call.drained, None
            waiter()
