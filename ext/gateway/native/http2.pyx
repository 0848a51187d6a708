"""HTTP/2 by nghttp2, for gRPC: frames in, calls out."""
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from gateway.native cimport counters
from gateway.native.body cimport Budget
from gateway.native.call cimport (
    CALL_OPEN, ENCODING_DEFLATE, ENCODING_GZIP, ENCODING_IDENTITY, ENCODING_UNKNOWN, EVENT_BEGIN, METHOD_INFER,
    METHOD_OTHER, METHOD_STREAM_INFER, Call, advance)
from gateway.native.cnghttp2 cimport *
from gateway.native.noted cimport is_notable, note
from gateway.native.pool cimport pool_calloc, pool_free, pool_malloc, pool_realloc
from gateway.native.door cimport DOOR_HEADER_LIST_BYTES, DOOR_MALFORMED, Door
from gateway.native.refusal cimport INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED

cdef enum:
    HEADER_OVERHEAD_BYTES = 32          # RFC 9113 6.5.2
    FRAME_HEADER_BYTES = 9
    MAX_OUTBOUND_ACKS = 1000            # unsent answers to PING and SETTINGS: their flood
    MAX_SETTINGS_ENTRIES = 32
    MAX_ID_BYTES = 256                  # of an x-request-id that is given back with an error
    MAX_TRACE_BYTES = 128               # a traceparent has 55 today; later versions may be longer

cdef const char* INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"
cdef const char* STREAM_INFER_PATH = "/inference.GRPCInferenceService/ModelStreamInfer"
cdef const char* CONTENT_TYPE = "application/grpc"


cdef class SessionLimits:
    """The bounds of one session; see gateway.config.limits for what each defends."""

    def __init__(self, *, size_t max_message_bytes=64 << 20, size_t max_header_list_bytes=16384, size_t max_continuations=8,
                 size_t reset_burst=2000, size_t resets_per_s=500, uint32_t max_concurrent_streams=1000,
                 uint32_t stream_window_bytes=1 << 20, uint32_t connection_window_bytes=16 << 20, int max_stream_pending=64,
                 forward_pattern=None):
        self.max_message_bytes = max_message_bytes
        self.max_header_list_bytes = max_header_list_bytes
        self.max_continuations = max_continuations
        self.reset_burst = reset_burst
        self.resets_per_s = resets_per_s
        self.max_concurrent_streams = max_concurrent_streams
        self.stream_window_bytes = stream_window_bytes
        self.connection_window_bytes = connection_window_bytes
        self.max_stream_pending = max_stream_pending
        self.forward_pattern = forward_pattern


cdef int reserve(Outgoing* outgoing, size_t n) noexcept:
    cdef size_t wanted
    cdef uint8_t* grown
    if outgoing.length + n <= outgoing.capacity:
        return 0
    wanted = (outgoing.length + n) * 2
    grown = <uint8_t*>realloc(outgoing.data, wanted)
    if grown == NULL:
        return -1
    outgoing.data = grown
    outgoing.capacity = wanted
    return 0


cdef int64_t parse_timeout_us(const uint8_t* value, size_t n) noexcept:
    """grpc-timeout: 1 to 8 digits and a unit; -1 when it is not. Sub-microsecond timeouts round up to 1."""
    cdef int64_t number = 0
    cdef size_t i
    if n < 2 or n > 9:
        return -1
    for i in range(n - 1):
        if not 48 <= value[i] <= 57:
            return -1
        number = number * 10 + value[i] - 48
    unit = value[n - 1]
    if unit == b"n"[0]:
        return (number + 999) // 1000
    if unit == b"u"[0]:
        return number
    if unit == b"m"[0]:
        return number * 1000
    if unit == b"S"[0]:
        return number * 1_000_000
    if unit == b"M"[0]:
        return number * 60_000_000
    if unit == b"H"[0]:
        return number * 3_600_000_000
    return -1


cdef inline bint equals(const uint8_t* value, size_t n, const char* text, size_t text_len) noexcept:
    return n == text_len and memcmp(value, text, n) == 0


cdef inline str shown(const uint8_t* value, size_t n):
    """A header value in an error: short, and never able to break the line."""
    return ascii(value[:min(n, <size_t>100)].decode("latin-1"))


cdef class Session(Carrier):
    """Session(limits, budget, inbox, dirty, door=None): inbox and dirty are lists that the data plane shares among its sessions, and so is
    the door, where what they turn away is counted."""

    def __cinit__(self, SessionLimits limits not None, Budget budget not None, list inbox not None, list dirty not None, Door door=None):
        cdef nghttp2_option* options = NULL
        cdef nghttp2_settings_entry settings[4]
        counters.count(counters.KIND_SESSION, 1)
        self.limits, self.budget, self.inbox, self.dirty = limits, budget, inbox, dirty
        self.door = door if door is not None else Door()
        self.max_message_bytes, self.max_stream_pending = limits.max_message_bytes, limits.max_stream_pending
        if nghttp2_option_new(&options) != 0:
            raise MemoryError("no memory for an HTTP/2 session")
        nghttp2_option_set_no_auto_window_update(options, 1)
        nghttp2_option_set_no_closed_streams(options, 1)      # we keep no priority tree
        nghttp2_option_set_max_outbound_ack(options, MAX_OUTBOUND_ACKS)
        nghttp2_option_set_max_settings(options, MAX_SETTINGS_ENTRIES)
        nghttp2_option_set_stream_reset_rate_limit(options, limits.reset_burst, limits.resets_per_s)
        nghttp2_option_set_max_continuations(options, limits.max_continuations)
        status = nghttp2_session_server_new3(&self.session, CALLBACKS, <void*>self, options, &POOL)
        nghttp2_option_del(options)
        if status != 0:
            raise MemoryError("no memory for an HTTP/2 session")
        settings[0].settings_id, settings[0].value = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams
        settings[1].settings_id, settings[1].value = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits.stream_window_bytes
        settings[2].settings_id, settings[2].value = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, <uint32_t>limits.max_header_list_bytes
        nghttp2_submit_settings(self.session, NGHTTP2_FLAG_NONE, settings, 3)
        nghttp2_session_set_local_window_size(self.session, NGHTTP2_FLAG_NONE, 0, <int32_t>limits.connection_window_bytes)

    def __dealloc__(self):
        if self.session != NULL:
            nghttp2_session_del(self.session)
        counters.count(counters.KIND_SESSION, -1)

    # --- bytes in --------------------------------------------------------------------------------------------------------------

    cdef int feed(self, const uint8_t* data, size_t n, int64_t now_us) except -1:
        cdef ssize_t status
        assert not self.inside
        if self.session == NULL:
            return FEED_BROKEN
        self.now_us = self.last_read_us = now_us
        self.inside = True
        status = nghttp2_session_mem_recv(self.session, data, n)
        self.inside = False
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if status == NGHTTP2_ERR_BAD_CLIENT_MAGIC:
            return FEED_NOT_HTTP2
        if self.wants_write():
            self.touch()
        return FEED_OK if status >= 0 else FEED_BROKEN

    cdef int _begin(self, int32_t stream_id) except -1:
        cdef Call call = Call.__new__(Call)
        call.carrier = self
        call.stream_id = stream_id
        call.began_us = self.now_us
        call.next = self.first
        if self.first is not None:
            self.first.previous = call
        self.first = call
        self.n_open += 1
        self.n_calls += 1
        Py_INCREF(call)                                       # nghttp2's; dropped in _on_stream_close or close()
        nghttp2_session_set_stream_user_data(self.session, stream_id, <void*>call)
        self.current, self.current_id = <void*>call, stream_id
        return 0

    cdef void* call_of(self, int32_t stream_id) noexcept:
        """A request's frames come one behind the other, so that nghttp2 need not look its stream up for each."""
        if stream_id != self.current_id:
            self.current, self.current_id = nghttp2_session_get_stream_user_data(self.session, stream_id), stream_id
        return self.current

    cdef bint _note_usual(self, Call call, const uint8_t* name, size_t name_len, const uint8_t* value, size_t value_len) noexcept:
        """The headers of most requests, without anything that can raise: entering a `try` costs more than all of it."""
        cdef int64_t timeout_us
        if self.limits.forward_pattern is not None:
            return False
        if name_len == 5 and memcmp(name, b":path", 5) == 0:
            if not equals(value, value_len, INFER_PATH, 42):
                return False
            call.has_path = True
            call.method = METHOD_INFER
        elif name_len == 7 and memcmp(name, b":method", 7) == 0:
            if not equals(value, value_len, b"POST", 4):
                return False
            call.has_method = True
        elif name_len == 12:
            if memcmp(name, b"content-type", 12) == 0 and equals(value, value_len, CONTENT_TYPE, 16):
                call.has_content_type = True
            elif memcmp(name, b"grpc-timeout", 12) == 0 and (timeout_us := parse_timeout_us(value, value_len)) >= 0:
                call.deadline_us = self.now_us + timeout_us
            else:
                return False
        elif name_len == 11 or name_len == 13 or is_notable(name, name_len):
            return False                                      # traceparent, grpc-encoding; what a route may look at
        call.header_bytes += name_len + value_len + HEADER_OVERHEAD_BYTES
        return True

    cdef int _header(self, Call call, const uint8_t* name, size_t name_len, const uint8_t* value, size_t value_len) except -1:
        """Notes what gRPC needs; anything else only counts. Refusals wait until the headers are complete."""
        cdef int64_t timeout_us
        call.header_bytes += name_len + value_len + HEADER_OVERHEAD_BYTES
        if name_len == 5 and memcmp(name, b":path", 5) == 0:
            call.has_path = True
            if equals(value, value_len, INFER_PATH, 42):
                call.method = METHOD_INFER
            elif equals(value, value_len, STREAM_INFER_PATH, 48):
                call.method = METHOD_STREAM_INFER
            else:
                call.method = METHOD_OTHER
                call.path_text = value[:value_len].decode("latin-1")
        elif name_len == 7 and memcmp(name, b":method", 7) == 0:
            call.has_method = equals(value, value_len, b"POST", 4)
            if not call.has_method:
                call.refused_method = value[:value_len]
        elif name_len == 12 and memcmp(name, b"content-type", 12) == 0:
            call.has_content_type = value_len >= 16 and memcmp(value, CONTENT_TYPE, 16) == 0 and (
                value_len == 16 or value[16] == b"+"[0] or value[16] == b";"[0])
            if not call.has_content_type:
                call.refused_content_type = value[:value_len]
        elif name_len == 12 and memcmp(name, b"grpc-timeout", 12) == 0:
            timeout_us = parse_timeout_us(value, value_len)
            if timeout_us < 0:
                call.has_bad_timeout = True
                call.status_text = shown(value, value_len)
            else:
                call.deadline_us = self.now_us + timeout_us
        elif name_len == 13 and memcmp(name, b"grpc-encoding", 13) == 0:
            if equals(value, value_len, b"gzip", 4):
                call.encoding = ENCODING_GZIP
            elif equals(value, value_len, b"deflate", 7):
                call.encoding = ENCODING_DEFLATE
            elif equals(value, value_len, b"identity", 8):
                call.encoding = ENCODING_IDENTITY
            else:
                call.encoding = ENCODING_UNKNOWN
                call.refused_encoding = value[:value_len]
            call.accepts_encoding = call.encoding == ENCODING_GZIP or call.encoding == ENCODING_DEFLATE
        elif name_len == 11 and value_len <= MAX_TRACE_BYTES and memcmp(name, b"traceparent", 11) == 0:
            call.trace = value[:value_len]
        elif name_len == 12 and value_len <= MAX_ID_BYTES and memcmp(name, b"x-request-id", 12) == 0:
            call.failed_id = value[:value_len]
        elif (call.header_bytes <= self.limits.max_header_list_bytes and is_notable(name, name_len)
              and note(&call.noted, name, name_len, value, value_len) < 0):
            raise MemoryError("no memory for headers")
        if self.limits.forward_pattern is not None and call.header_bytes <= self.limits.max_header_list_bytes:
            text = name[:name_len].decode("latin-1")
            if self.limits.forward_pattern.fullmatch(text):
                if call.parameters is None:
                    call.parameters = []
                call.parameters.append((text, value[:value_len].decode("latin-1")))
        return 0

    cdef int _headers_complete(self, Call call) except -1:
        if call.header_bytes > self.limits.max_header_list_bytes:
            return call.refuse(
                DOOR_HEADER_LIST_BYTES, RESOURCE_EXHAUSTED,
                f"header list: got {call.header_bytes} bytes, expected at most {self.limits.max_header_list_bytes} (max_header_list_bytes)")
        if not call.has_method:
            self.door.count(DOOR_MALFORMED, UNIMPLEMENTED, False)
            return call.refuse_http(
                b"405", UNIMPLEMENTED,
                f":method: got {shown(call.refused_method or b'', len(call.refused_method or b''))}, expected POST")
        if not call.has_content_type:
            self.door.count(DOOR_MALFORMED, INVALID_ARGUMENT, False)
            return call.refuse_http(
                b"415", INVALID_ARGUMENT,
                f"content-type: got {shown(call.refused_content_type or b'', len(call.refused_content_type or b''))}, expected "
                "application/grpc")
        if call.encoding == ENCODING_UNKNOWN:
            return call.refuse(
                DOOR_MALFORMED, UNIMPLEMENTED,
                f"grpc-encoding: got {shown(call.refused_encoding, len(call.refused_encoding))}, expected identity, deflate or gzip")
        if call.has_bad_timeout:
            return call.refuse(
                DOOR_MALFORMED, INVALID_ARGUMENT,
                f"grpc-timeout: got {call.status_text}, expected up to 8 digits and a unit of H, M, S, m, u or n")
        if call.method == METHOD_OTHER:
            return call.raise_event(EVENT_BEGIN)
        return 0

    cdef bint _is_usual(self, Call call) noexcept:
        """Complete headers of a unary infer call, and nothing to refuse in them."""
        return (call.method == METHOD_INFER and call.has_method and call.has_content_type and call.encoding != ENCODING_UNKNOWN
                and not call.has_bad_timeout and call.header_bytes <= self.limits.max_header_list_bytes)

    # --- bytes out -------------------------------------------------------------------------------------------------------------

    cdef int pull(self, Outgoing* outgoing, size_t high_bytes) except -1:
        """Append what the session wants to send, until there is nothing more or `high_bytes` are waiting."""
        cdef const uint8_t* chunk
        cdef ssize_t n
        assert not self.inside
        if self.session == NULL:
            return 0
        self.outgoing, self.high_bytes = outgoing, high_bytes
        self.inside = True
        try:
            while outgoing.length < high_bytes:
                n = nghttp2_session_mem_send(self.session, &chunk)
                if n == 0:
                    if outgoing.length >= high_bytes:         # paused by _on_send_data
                        return 1
                    if self.unread is None:
                        return 0
                    self._reset_unread()
                    continue
                if n < 0:
                    raise MemoryError(f"HTTP/2: {nghttp2_strerror(<int>n).decode()}")
                if reserve(outgoing, n) < 0:
                    raise MemoryError("no memory for output")
                memcpy(outgoing.data + outgoing.length, chunk, n)
                outgoing.length += n
            return 1
        finally:
            self.inside = False
            self.outgoing = NULL

    cdef int _reset_unread(self) except -1:
        """All answers but large ones have left, refusals among them."""
        unread, self.unread = self.unread, None
        for stream_id in unread:
            if nghttp2_session_get_stream_user_data(self.session, stream_id) != NULL:       # its caller has not ended it meanwhile
                nghttp2_submit_rst_stream(self.session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_NO_ERROR)
        return 0

    cdef bint wants_write(self) noexcept:
        return self.session != NULL and nghttp2_session_want_write(self.session)

    cdef bint is_finished(self) noexcept:
        """Nothing more will be read or written: close the transport."""
        return self.session == NULL or not (nghttp2_session_want_read(self.session) or nghttp2_session_want_write(self.session))

    # --- life cycle ------------------------------------------------------------------------------------------------------------

    cdef int drain(self) except -1:
        """Announce the end (GOAWAY without refusing anything) and ping; the answer to the ping brings the final GOAWAY."""
        if self.is_draining or self.session == NULL:
            return 0
        self.is_draining = True
        nghttp2_submit_shutdown_notice(self.session)
        nghttp2_submit_ping(self.session, NGHTTP2_FLAG_NONE, NULL)
        self.touch()
        return 0

    cdef int refuse(self) except -1:
        """One connection too many."""
        nghttp2_session_terminate_session(self.session, NGHTTP2_ENHANCE_YOUR_CALM)
        self.touch()
        return 0

    cdef int _final_goaway(self) except -1:
        if self.is_goaway_sent or self.session == NULL:
            return 0
        self.is_goaway_sent = True
        nghttp2_submit_goaway(
            self.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(self.session), NGHTTP2_NO_ERROR, NULL, 0)
        self.touch()
        return 0

    cdef int close(self) except -1:
        """The connection is gone: every open call is given up. nghttp2_session_del tells nobody, so we do."""
        cdef Call call = self.first, following
        assert not self.inside
        self.first, self.current, self.current_id = None, NULL, 0
        while call is not None:
            following = call.next
            call.next = call.previous = None
            call.close()
            Py_DECREF(call)
            call = following
        self.n_open = 0
        if self.session != NULL:
            nghttp2_session_del(self.session)
            self.session = NULL
        self.owner = None
        return 0

    cdef int _unlink(self, Call call) except -1:
        if call.previous is not None:
            call.previous.next = call.next
        else:
            self.first = call.next
        if call.next is not None:
            call.next.previous = call.previous
        call.next = call.previous = None
        self.n_open -= 1
        return 0

    # --- for tests and tools ---------------------------------------------------------------------------------------------------

    def receive(self, const uint8_t[::1] data not None, int64_t now_us=0):
        """Feed bytes; returns "ok", "not http2" or "broken"."""
        return ("ok", "not http2", "broken")[self.feed(&data[0] if data.shape[0] else NULL, data.shape[0], now_us)]

    def to_send(self, size_t high_bytes=<size_t>-1):
        """Bytes that the session wants to send: all, or those of one pull."""
        cdef Outgoing outgoing
        outgoing.data, outgoing.length, outgoing.capacity = NULL, 0, 0
        try:
            self.pull(&outgoing, high_bytes)
            return (<char*>outgoing.data)[:outgoing.length] if outgoing.length else b""
        finally:
            free(outgoing.data)

    def start_drain(self):
        """As on SIGTERM."""
        self.drain()

    def shut(self):
        """As on a lost connection."""
        self.close()

    @property
    def finished(self):
        """Whether the connection can be closed."""
        return self.is_finished()


# --- nghttp2 callbacks: they cannot raise; what goes wrong is stored for feed() -----------------------------------------------------

cdef int _failed(Session session, object error) noexcept:
    session.error = error
    return NGHTTP2_ERR_CALLBACK_FAILURE


cdef int _on_begin_headers(nghttp2_session* raw, const nghttp2_frame* frame, void* user_data) noexcept:
    cdef Session session = <Session>user_data
    if frame.hd.type != NGHTTP2_HEADERS or frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        return 0
    try:
        return session._begin(frame.hd.stream_id)
    except BaseException as error:
        return _failed(session, error)


cdef int _on_header(nghttp2_session* raw, const nghttp2_frame* frame, const uint8_t* name, size_t name_len, const uint8_t* value,
                    size_t value_len, uint8_t flags, void* user_data) noexcept:
    cdef Session session = <Session>user_data
    cdef void* call
    if frame.hd.type != NGHTTP2_HEADERS or frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        return 0                                              # trailers of a request carry nothing we use
    call = session.call_of(frame.hd.stream_id)
    if call == NULL or session._note_usual(<Call>call, name, name_len, value, value_len):
        return 0
    try:
        return session._header(<Call>call, name, name_len, value, value_len)
    except BaseException as error:
        return _failed(session, error)


cdef int _on_frame_recv(nghttp2_session* raw, const nghttp2_frame* frame, void* user_data) noexcept:
    cdef Session session = <Session>user_data
    cdef void* call = NULL
    if frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_DATA:
        call = session.call_of(frame.hd.stream_id)
        if call == NULL or not frame.hd.flags & NGHTTP2_FLAG_END_STREAM and (
                frame.hd.type == NGHTTP2_DATA or session._is_usual(<Call>call)):
            return 0
    try:
        if call != NULL:
            if frame.hd.type == NGHTTP2_HEADERS and frame.headers.cat == NGHTTP2_HCAT_REQUEST:
                if frame.hd.flags & NGHTTP2_FLAG_END_STREAM and (<Call>call).state == CALL_OPEN:
                    session._headers_complete(<Call>call)
                    return (<Call>call).end_input()
                return session._headers_complete(<Call>call)
            if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
                return (<Call>call).end_input()
        elif frame.hd.type == NGHTTP2_PING and frame.hd.flags & NGHTTP2_FLAG_ACK:
            if session.is_draining:
                return session._final_goaway()
        elif frame.hd.type == NGHTTP2_SETTINGS:
            session.has_preface = True
        return 0
    except BaseException as error:
        return _failed(session, error)


cdef int _on_data_chunk(nghttp2_session* raw, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t n, void* user_data) noexcept:
    cdef Session session = <Session>user_data
    cdef void* found = session.call_of(stream_id)
    cdef Call call
    nghttp2_session_consume_connection(raw, n)
    if found == NULL:
        return 0
    call = <Call>found
    try:
        call.receive(data, n)
        if call.method != METHOD_INFER and call.n_waiting() >= session.max_stream_pending:
            call.unreturned += n
        else:
            nghttp2_session_consume_stream(raw, stream_id, n)
        return 0
    except BaseException as error:
        return _failed(session, error)


cdef int _on_stream_close(nghttp2_session* raw, int32_t stream_id, uint32_t error_code, void* user_data) noexcept:
    cdef Session session = <Session>user_data
    cdef void* found = session.call_of(stream_id)
    cdef Call call
    if found == NULL:
        return 0
    nghttp2_session_set_stream_user_data(raw, stream_id, NULL)
    session.current = NULL
    call = <Call>found
    try:
        session._unlink(call)
        call.close()
        return 0
    except BaseException as error:
        return _failed(session, error)
    finally:
        Py_DECREF(call)


cdef int _on_send_data(nghttp2_session* raw, nghttp2_frame* frame, const uint8_t* head, size_t n, nghttp2_data_source* source,
                       void* user_data) noexcept:
    """A DATA frame whose payload _on_read left in the Body: the one copy of a large answer."""
    cdef Session session = <Session>user_data
    cdef Call call = <Call>source.ptr
    cdef Outgoing* outgoing = session.outgoing
    if outgoing == NULL or call.out is None or reserve(outgoing, FRAME_HEADER_BYTES + n) < 0:
        return NGHTTP2_ERR_CALLBACK_FAILURE
    memcpy(outgoing.data + outgoing.length, head, FRAME_HEADER_BYTES)
    memcpy(outgoing.data + outgoing.length + FRAME_HEADER_BYTES, call.out.data + call.out_sent, n)
    outgoing.length += FRAME_HEADER_BYTES + n
    advance(call, n)
    return NGHTTP2_ERR_PAUSE if outgoing.length >= session.high_bytes else 0     # else mem_send goes on with the whole answer


cdef nghttp2_mem POOL                                         # nghttp2 copies it
POOL.mem_user_data = NULL
POOL.malloc, POOL.free, POOL.calloc, POOL.realloc = pool_malloc, pool_free, pool_calloc, pool_realloc
cdef nghttp2_session_callbacks* CALLBACKS = NULL              # one set for all sessions, for the life of the process
if nghttp2_session_callbacks_new(&CALLBACKS) != 0:
    raise MemoryError("no memory for HTTP/2 callbacks")
nghttp2_session_callbacks_set_on_begin_headers_callback(CALLBACKS, _on_begin_headers)
nghttp2_session_callbacks_set_on_header_callback(CALLBACKS, _on_header)
nghttp2_session_callbacks_set_on_frame_recv_callback(CALLBACKS, _on_frame_recv)
nghttp2_session_callbacks_set_on_data_chunk_recv_callback(CALLBACKS, _on_data_chunk)
nghttp2_session_callbacks_set_on_stream_close_callback(CALLBACKS, _on_stream_close)
nghttp2_session_callbacks_set_send_data_callback(CALLBACKS, _on_send_data)
