"""The data plane's operations, n times over without Python between them. Compiled on demand: see compiled.py.

Each class sets one thing up and repeats it; `repeat(n)` is what the harness times. Nothing here runs a model.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from gateway.native.arm cimport Arm
from gateway.native.batch cimport Batch, encode_rows
from gateway.native.body cimport Body, Budget
from gateway.native.call cimport Call
from gateway.native.codec cimport PARSE_OK, OutputView, Wire, encode_response, free_wire, parse_request
from gateway.native.cursor cimport Span
from gateway.native.http2 cimport Outgoing, Session, SessionLimits
from gateway.native.lane cimport Lane
from gateway.native.monitor cimport Monitor
from gateway.native.request cimport REQUEST_NEW, Caller, Holder, Request, Stamp
from gateway.native.noted cimport Noted, is_notable, note, note_all, release_noted
from gateway.native.route cimport Asked, ShadowLoad, ShadowSpec, Target
from gateway.native.routetable cimport RouteTable
from gateway.native.shadow cimport Mirror
from gateway.native.signature cimport Signature
from gateway.native.timers cimport Timed, Timers


cdef inline Span span_over(bytes text):
    cdef Span span
    span.ptr, span.len = <const uint8_t*><char*>text, len(text)
    return span


cdef class Parse:
    """Parse(message): a serialized ModelInferRequest, read in place."""

    cdef bytes message
    cdef Wire wire

    def __cinit__(self, bytes message not None):
        self.message = message
        memset(&self.wire, 0, sizeof(Wire))

    def __dealloc__(self):
        free_wire(&self.wire)

    def repeat(self, int64_t n):
        cdef Span span = span_over(self.message)
        cdef int64_t i
        for i in range(n):
            if parse_request(span, &self.wire) != PARSE_OK:
                raise ValueError("malformed")


cdef class Encode:
    """Encode(signature, id, data, shape): the answer's first output, written as one gRPC message."""

    cdef Signature signature
    cdef bytes request_id, data
    cdef OutputView view

    def __cinit__(self, Signature signature not None, bytes request_id not None, bytes data not None, shape):
        self.signature, self.request_id, self.data = signature, request_id, data
        memset(&self.view, 0, sizeof(OutputView))
        self.view.spec = &signature.outputs[0]
        self.view.n_dims = len(shape)
        for axis, dim in enumerate(shape):
            self.view.dims[<int>axis] = dim
        self.view.data, self.view.nbytes = <const uint8_t*><char*>data, len(data)

    def repeat(self, int64_t n):
        cdef Span span = span_over(self.request_id), nothing = span_over(b"")
        cdef Body body
        cdef int64_t i
        for i in range(n):
            body = encode_response(self.signature, span, nothing, &self.view, 1, False)

    def once(self):
        return bytes(encode_response(self.signature, span_over(self.request_id), span_over(b""), &self.view, 1, False))


cdef class Choose:
    """Choose(table, names, headers=[], body=b""): looks up each (model, version) in turn, with each of the headers in turn."""

    cdef RouteTable table
    cdef list names, keep
    cdef Noted* noted
    cdef int n_noted
    cdef bytes body

    def __cinit__(self, RouteTable table not None, names, headers=({},), bytes body=b""):
        cdef int i
        self.table, self.body = table, body
        self.names = [text.encode() for pair in names for text in pair]
        self.n_noted = len(headers)
        self.noted = <Noted*>calloc(self.n_noted, sizeof(Noted))
        for i in range(self.n_noted):
            note_all(&self.noted[i], headers[i])

    def __dealloc__(self):
        cdef int i
        for i in range(self.n_noted):
            release_noted(&self.noted[i])
        free(self.noted)

    def repeat(self, int64_t n):
        cdef int64_t i
        cdef Py_ssize_t at = 0, end = len(self.names)
        cdef int which = 0
        cdef Asked asked
        cdef Target target
        memset(&asked, 0, sizeof(asked))
        asked.body = span_over(self.body)
        for i in range(n):
            asked.model, asked.version = span_over(<bytes>self.names[at]), span_over(<bytes>self.names[at + 1])
            asked.headers = &self.noted[which]
            target = self.table.choose(&asked)
            if target is None or target.lane is None:
                raise LookupError(self.names[at])
            at = at + 2 if at + 2 < end else 0
            which = which + 1 if which + 1 < self.n_noted else 0


cdef class Note:
    """Note(headers): notes each header as a session does, and gives the block back: the cost for one call."""

    cdef list headers

    def __cinit__(self, headers):
        self.headers = [piece for pair in headers for piece in pair]

    def repeat(self, int64_t n):
        cdef int64_t i
        cdef Py_ssize_t at, end = len(self.headers)
        cdef Noted noted
        cdef bytes name, value
        memset(&noted, 0, sizeof(noted))
        for i in range(n):
            for at in range(0, end, 2):
                name, value = <bytes>self.headers[at], <bytes>self.headers[at + 1]
                if is_notable(name, len(name)):
                    note(&noted, name, len(name), value, len(value))
            release_noted(&noted)


cdef Request bound(Signature signature, Body body, Wire* wire, Caller caller):
    cdef Request request = Request.new(body, signature, caller)
    request.bind(wire)
    return request


cdef class Bind:
    """Bind(signature, message): a request object made, bound to the signature and freed."""

    cdef Signature signature
    cdef Body body
    cdef Wire wire

    def __cinit__(self, Signature signature not None, bytes message not None, *_):
        cdef Span span
        memset(&self.wire, 0, sizeof(Wire))
        self.signature = signature
        self.body = Body.copy_of(message)
        span.ptr, span.len = self.body.data, self.body.length
        if parse_request(span, &self.wire) != PARSE_OK:
            raise ValueError("malformed")

    def __dealloc__(self):
        free_wire(&self.wire)

    def repeat(self, int64_t n):
        cdef int64_t i
        cdef Request request
        for i in range(n):
            request = bound(self.signature, self.body, &self.wire, None)


@cython.final
cdef class Sink(Caller):
    """Takes the answer and does nothing with it."""

    cdef int64_t n_answers

    cdef int on_answer(self, Request request, Body answer) except -1:
        self.n_answers += 1
        return 0


cdef class Gather(Bind):
    """Gather(signature, message, n_members): the inputs of as many equal requests, copied into the arrays of a batch."""

    cdef Batch batch

    def __cinit__(self, Signature signature not None, bytes message not None, int n_members, *_):
        cdef Request request
        self.batch = Batch(signature, None)
        for _ in range(n_members):
            request = bound(signature, Body.copy_of(message), &self.wire, None)
            own(request)
            self.batch.add(request, 0, request.n_rows)

    def repeat(self, int64_t n):
        cdef int64_t i
        for i in range(n):
            self.batch._gather(0, self.batch.n_members)


cdef int own(Request request) except -1:
    """Point the tensors into the request's own copy: they were bound to another's bytes."""
    cdef Wire wire
    cdef Span span
    memset(&wire, 0, sizeof(Wire))
    span.ptr, span.len = request.body.data, request.body.length
    try:
        if parse_request(span, &wire) != PARSE_OK:
            raise ValueError("malformed")
        for index in range(request.n_tensors):
            request.tensors[<int>index].data = NULL
        request.bind(&wire)
    finally:
        free_wire(&wire)
    return 0


cdef class Queue(Bind):
    """Queue(signature, message, n_members, has_deadlines): requests admitted, formed into one batch, settled; none is run."""

    cdef Lane lane
    cdef Timers timers
    cdef list pending, submitted, requests
    cdef Sink sink
    cdef int64_t deadline_us
    cdef Body answer

    def __cinit__(self, signature, message, int n_members, bint has_deadlines):
        self.timers, self.pending, self.submitted = Timers(), [], []
        self.sink = Sink()
        self.answer = Body.copy_of(b"answer")
        self.deadline_us = 1 << 60 if has_deadlines else 0
        self.lane = Lane(
            signature, None, self.submitted.append, None, self.timers, self.pending, max_batch_size=n_members, inline_below_us=0)
        self.requests = [bound(signature, self.body, &self.wire, None) for _ in range(n_members)]

    def repeat(self, int64_t n):
        cdef Request request
        cdef Batch batch
        cdef int64_t i
        cdef int k
        for i in range(n):
            for request in self.requests:
                request.state = REQUEST_NEW
                request.n_rows_taken = request.started_us = 0
                request.caller = self.sink
                self.lane.admit(request, self.deadline_us, 1000)
            self.lane.pump(1000)
            self.pending.clear()
            batch = <Batch>self.submitted.pop()
            for k in range(batch.n_members):
                batch.results[k] = self.answer
            self.lane.complete(batch, 1000)
        if self.sink.n_answers % len(self.requests):
            raise AssertionError("somebody got no answer")


cdef class Shadowed(Bind):
    """Shadowed(signature, message, answer, n_members, has_shadow): requests admitted, batched and settled as in Queue; with a shadow,
    each has a pair whose answers are compared. No model runs."""

    cdef Lane lane, twin
    cdef Timers timers
    cdef list pending, background, submitted, shadows
    cdef Sink sink
    cdef Body answer
    cdef Mirror mirror
    cdef Asked asked
    cdef Arm arm
    cdef int n_members
    cdef object keep

    def __cinit__(self, signature, message, bytes answer not None, int n_members, bint has_shadow):
        memset(&self.asked, 0, sizeof(Asked))
        self.timers, self.pending, self.background, self.submitted = Timers(), [], [], []
        self.sink, self.answer, self.n_members = Sink(), Body.copy_of(answer), n_members
        wishes = {"max_batch_size": n_members, "inline_below_us": 0}
        self.lane = Lane(signature, None, self.submitted.append, None, self.timers, self.pending, **wishes)
        self.twin = Lane(signature, None, self.submitted.append, None, self.timers, self.background, is_background=True, **wishes)
        version = Lane(signature, None, None, None, self.timers, [], max_batch_size=1, twin=self.twin)
        self.arm = Arm("m", "1", "stable", 1)
        arguments = (b"", ShadowLoad(), 1 << 20, 1 << 40, 1 << 20)
        self.shadows = [ShadowSpec("2", version, Arm("m", "2", "shadow", 1), 10000, *arguments)] if has_shadow else []
        self.mirror = Mirror(Budget(1 << 40), None)

    def repeat(self, int64_t n):
        cdef Request request
        cdef Batch batch
        cdef int64_t i
        cdef int k
        for i in range(n):
            for k in range(self.n_members):
                request = bound(self.signature, self.body, &self.wire, self.sink)
                request.arm = self.arm
                self.lane.admit(request, 0, 1000)
                if self.shadows:
                    self.mirror.reflect(request, self.shadows, &self.asked, &self.wire, False, 1000)
            self._serve(self.lane)
            self.pending.clear()
            if self.shadows:
                self._serve(self.twin)
                self.background.clear()
                while self.mirror.ended:
                    self.mirror.compare_ended(1000)

    cdef int _serve(self, Lane lane) except -1:
        cdef Batch batch
        cdef int k
        lane.pump(1000)
        batch = <Batch>self.submitted.pop()
        for k in range(batch.n_members):
            batch.results[k] = self.answer
        return lane.complete(batch, 1000)


cdef class Stamped(Bind):
    """Stamped(signature, message, outputs, arm, stamp): answers encoded from a batch's outputs; with a stamp, what it adds too."""

    cdef Request request
    cdef list outputs
    cdef int64_t n_rows

    def __cinit__(self, Signature signature not None, bytes message not None, list outputs, Arm arm, Stamp stamp):
        self.request = bound(signature, self.body, &self.wire, None)
        self.request.arm, self.outputs = arm, outputs
        self.request.holder = Holder()
        self.request.holder.stamp = stamp
        self.n_rows = self.request.n_rows

    def repeat(self, int64_t n):
        cdef int64_t i
        cdef Body body
        for i in range(n):
            body = encode_rows(self.request, self.outputs, 0, self.n_rows)


cdef class AddCancel:
    """AddCancel(n_pending): the oldest of so many timers cancelled, and one started that is due last."""

    cdef Timers timers
    cdef list pending
    cdef int64_t now_us

    def __cinit__(self, int n_pending):
        self.timers = Timers()
        self.pending = [Timed() for _ in range(n_pending)]
        for timed in self.pending:
            self.now_us += 1
            self.timers.add(<Timed>timed, self.now_us)

    def repeat(self, int64_t n):
        cdef int64_t i
        cdef Py_ssize_t at = 0, end = len(self.pending)
        cdef Timed timed
        for i in range(n):
            timed = <Timed>self.pending[at]
            at = at + 1 if at + 1 < end else 0
            self.now_us += 1
            self.timers.cancel(timed)
            self.timers.add(timed, self.now_us)


cdef class Exchange:
    """Exchange(preface, first_block, next_block, message, answer, n_at_once): calls fed together, answered, and pulled."""

    cdef bytes head, preface
    cdef bytearray frames
    cdef Body answer
    cdef int n_at_once
    cdef size_t call_len, answer_len
    cdef SessionLimits limits
    cdef size_t data_at

    def __cinit__(self, bytes preface not None, bytes first_block not None, bytes next_block not None, bytes message not None,
                  bytes answer not None, int n_at_once):
        self.preface = preface + frame(1, 4, 1, first_block) + frame(0, 1, 1, message)
        call = frame(1, 4, 0, next_block) + frame(0, 1, 0, message)
        self.call_len, self.data_at = len(call), 9 + len(next_block)
        self.frames = bytearray(call * n_at_once)
        self.n_at_once = n_at_once
        self.answer, self.answer_len = Body.copy_of(answer), len(answer)
        self.limits = SessionLimits()

    def repeat(self, int64_t n):
        """n reads of n_at_once calls each; a new connection every time, whose handshake is lost in many."""
        cdef Outgoing outgoing
        cdef Session session
        cdef Call call
        cdef list inbox = [], dirty = []
        cdef uint8_t* at = <uint8_t*><char*>self.frames
        cdef int64_t i
        cdef int k
        cdef uint32_t stream = 3
        cdef size_t uncredited = 0
        cdef bytes preface = self.preface
        memset(&outgoing, 0, sizeof(Outgoing))
        session = Session(self.limits, Budget(1 << 40), inbox, dirty)
        session.feed(<const uint8_t*><char*>preface, len(preface), 1)
        try:
            for i in range(n + 1):
                for item in inbox:
                    call = <Call>item
                    call.events = 0
                    call.message = None
                    call.answer(self.answer)
                inbox.clear()
                dirty.clear()
                session.is_dirty = False
                outgoing.length = 0
                session.pull(&outgoing, <size_t>-1)
                if i == n:
                    break
                for k in range(self.n_at_once):
                    put_stream(at + k * self.call_len + 5, stream)
                    put_stream(at + k * self.call_len + self.data_at + 5, stream)
                    stream += 2
                if session.feed(at, self.call_len * self.n_at_once, 1) != 0:
                    raise AssertionError("the session broke")
                uncredited += self.answer_len * self.n_at_once
                if uncredited > 1 << 20:
                    credit = frame(8, 0, 0, uncredited.to_bytes(4))
                    session.feed(<const uint8_t*><char*><bytes>credit, len(credit), 1)
                    uncredited = 0
            if session.n_open or session.n_calls != <uint32_t>(n * self.n_at_once + 1):
                raise AssertionError(f"{session.n_open} of {session.n_calls} calls are still open")
        finally:
            free(outgoing.data)
            session.close()


cdef inline void put_stream(uint8_t* p, uint32_t stream) noexcept:
    p[0], p[1], p[2], p[3] = stream >> 24, (stream >> 16) & 0xFF, (stream >> 8) & 0xFF, stream & 0xFF


cdef bytes frame(int kind, int flags, int stream, bytes payload):
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


cdef class Observe(Gather):
    """Observe(signature, message, n_members, monitor, inputs, outputs): a batch's rows on the tile of the monitor."""

    cdef Monitor monitor
    cdef list inputs, outputs
    cdef int64_t now_us

    def __init__(self, signature, message, n_members, Monitor monitor not None, list inputs not None, list outputs not None):
        self.monitor, self.inputs, self.outputs = monitor, inputs, outputs
        monitor.cut(1e9, 1)

    def repeat(self, int64_t n):
        cdef Batch batch = self.batch
        cdef int64_t i
        for i in range(n):
            self.monitor.observe(batch.members, batch.slices, 0, batch.n_members, self.inputs, self.outputs, 1)


cdef class Settled:
    """Settled(monitor): a request's code and time noted."""

    cdef Monitor monitor

    def __cinit__(self, Monitor monitor not None):
        self.monitor = monitor
        monitor.cut(1e9, 1)

    def repeat(self, int64_t n):
        cdef int64_t i
        for i in range(n):
            self.monitor.note_request(None, 0, 100 + (i & 1023), 1)
