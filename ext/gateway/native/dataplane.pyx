"""From a complete message to the lane that answers it."""
from libc.stdint cimport int64_t
from libc.string cimport memset

from gateway.native.batch cimport Batch
from gateway.native.body cimport Body, Budget
from gateway.native.call cimport (
    CALL_ANSWERED, CALL_SERVING, EVENT_BEGIN, EVENT_CLOSED, EVENT_END, METHOD_INFER, METHOD_STREAM_INFER, Call, StreamSlot)
from gateway.native.codec cimport PARSE_OK, free_wire, parse_error_text, parse_request
from gateway.native.cursor cimport Span, is_utf8
from gateway.native.door cimport DOOR_IN_FLIGHT_BYTES, DOOR_UNKNOWN_PATH, Door
from gateway.native.exchange cimport Exchange
from gateway.native.http2 cimport SessionLimits
from gateway.native.lane cimport Lane, Occupancy
from gateway.native.noted cimport Noted, note_all, release_noted
from gateway.native.refusal cimport INTERNAL, INVALID_ARGUMENT, N_CODES, RESOURCE_EXHAUSTED, UNAVAILABLE, UNIMPLEMENTED
from gateway.native.request cimport CAUSE_CIRCUIT_OPEN, Caller, Origin, Request
from gateway.native.rescue cimport Fallback, parameters_of_answer
from gateway.native.route cimport FALLBACK_ERROR, Target
from gateway.native.routetable cimport RouteTable
from gateway.native.sampler cimport Sampler
from gateway.native.shadow cimport Mirror
from gateway.native.timers cimport Timers

from gateway.native.refusal import CircuitOpen, Refusal


cdef inline str text_of(Span span):
    return span.ptr[:min(span.len, <size_t>200)].decode("utf-8", "replace") if span.len else ""


cdef class DataPlane:
    """DataPlane(limits, max_in_flight_bytes, unary, streaming, report)."""

    def __cinit__(self, SessionLimits limits not None, size_t max_in_flight_bytes, unary, streaming, report, *args, **kwargs):
        self.limits = limits
        self.budget = Budget(max_in_flight_bytes)
        self.timers = Timers()
        self.table = RouteTable({})
        self.inbox, self.dirty, self.pending = [], [], []
        self.background, self.occupancy = [], Occupancy()
        self.mirror = Mirror(self.budget, report)
        self.sampler, self.door = Sampler(), Door()
        self.unary, self.streaming, self.report = unary, streaming, report
        memset(&self.wire, 0, sizeof(self.wire))
        memset(&self.asked, 0, sizeof(self.asked))

    def __dealloc__(self):
        free_wire(&self.wire)

    @property
    def routes(self):
        """The table in force; assigning swaps it between two requests."""
        return self.table

    @routes.setter
    def routes(self, RouteTable table not None):
        self.table = table

    @property
    def refused(self):
        """Requests refused before a version was found for them, by gRPC code."""
        return {code: self.refusals[code] for code in range(<int>N_CODES) if self.refusals[code]}

    cdef int serve_inbox(self, int64_t now_us) except -1:
        """After a feed: everything that the callbacks left."""
        cdef Call call
        cdef int i = 0
        while i < len(self.inbox):                            # handlers may add
            call = <Call>self.inbox[i]
            i += 1
            try:
                self._serve(call, now_us)
            except Exception as error:
                self.report(error)
                call.end(INTERNAL, "the gateway failed on this call")
        self.inbox.clear()
        return 0

    cdef int pump(self, int64_t now_us) except -1:
        """Let every lane with work form batches. Lanes that want another turn are pending again afterwards."""
        cdef Lane lane
        cdef list lanes
        if not self.pending:
            return 0
        lanes = self.pending[:]
        self.pending.clear()
        for lane in lanes:
            try:
                lane.pump(now_us)
            except Exception as error:                        # the others have left `pending`: nobody else would pump them
                self.report(error)
        return 0

    cdef bint has_background(self) noexcept:
        """Whether shadow work could go on now; not while all executors that this worker may use are busy: one that ends brings a turn."""
        if self.mirror.ended:
            return True
        return bool(self.background) and self.occupancy.n_batches < self.occupancy.n_cores

    cdef int pump_background(self, int64_t now_us) except -1:
        """When there is nothing else to do: one batch of shadow work."""
        cdef Lane lane
        self.mirror.compare_ended(now_us)
        if self.background and self.occupancy.n_batches < self.occupancy.n_cores:
            lane = self.background.pop(0)
            try:
                lane.pump(now_us)
            except Exception as error:
                self.report(error)
        return 0

    cdef int _serve(self, Call call, int64_t now_us) except -1:
        cdef int events = call.events
        call.events = 0
        if call.method == METHOD_INFER:
            if events & EVENT_END and call.message is not None:
                body, call.message = call.message, None
                call.request = self._infer(body, call, False, False, call.deadline_us, call.trace, call.parameters, &call.noted,
                                           now_us)
            return 0
        if call.method == METHOD_STREAM_INFER:
            return self._serve_stream(call, events, now_us)
        return self._serve_other(call, events, now_us)

    cdef Request _infer(self, Body body, Caller caller, bint streamed, bint is_rest, int64_t deadline_us, bytes trace, list parameters,
                        const Noted* headers, int64_t now_us):
        """Admit one infer request; None when it was refused (the caller has been told)."""
        cdef Span span
        cdef Lane lane = None
        cdef Request request = None
        cdef Target target, drawn
        cdef Request second
        cdef int status
        self.n_requests += 1
        try:
            span.ptr, span.len = body.data, body.length
            status = parse_request(span, &self.wire)
            if status != PARSE_OK:
                raise Refusal(INVALID_ARGUMENT, parse_error_text(&self.wire, status))
            self.asked.model, self.asked.version, self.asked.body, self.asked.headers = self.wire.model, self.wire.version, span, headers
            target = self.table.choose(&self.asked)
            if target is None:
                raise self.table.refuse(&self.asked, None)
            drawn = target
            if target.lane is None:
                target = self._instead(target, now_us)
            lane = target.lane
            if streamed and lane.relay is not None:
                self._relay(target, <StreamSlot>caller, body)
                return None
            request = Request.new(body, lane.signature, caller)
            request.arm = target.arm
            if target.arm is not None and target.arm.scales is not None:
                request.mark = target.arm.scales.arrive(target.arm.side, self.asked.has_key, self.asked.key, now_us)
            if lane.stamp is not None and (self.asked.has_key or drawn is not target):
                request.origin = Origin.__new__(Origin)
                request.origin.arm, request.origin.unit = drawn.arm, self.asked.key | 1 if self.asked.has_key else 0
            if drawn is not target:
                request.answer_parameters = parameters_of_answer(drawn.version)
            elif target.route is not None and target.route.rescue is not None and target.route.rescue.lane is not lane:
                request.rescue = target.route.rescue
            request.streamed, request.is_rest, request.trace, request.parameters = streamed, is_rest, trace, parameters
            request.bind(&self.wire)
            lane.admit(request, deadline_us, now_us)
            if target.route is not None and target.route.shadows is not None:
                self.mirror.reflect(request, target.route.shadows, &self.asked, &self.wire, self.is_draining, now_us)
            return request
        except Refusal as refusal:
            self._note_refused(lane, request, refusal.code, is_rest, now_us)
            if isinstance(refusal, CircuitOpen) and request.rescue is not None:
                second = (<Fallback>request.rescue).start(request, lane, CAUSE_CIRCUIT_OPEN, now_us)
                if second is not None:
                    return second
            self._note_id(caller, request)
            caller.on_failure(request, refusal.code, refusal.text)
        except Exception as error:
            self._note_refused(lane, request, INTERNAL, is_rest, now_us)
            self.report(error)
            self._note_id(caller, request)
            caller.on_failure(request, INTERNAL, "the gateway failed on this request")
        if request is not None:
            request.caller = None
        return None

    cdef int _note_id(self, Caller caller, Request request) except -1:
        if request is None and self.wire.id.len and is_utf8(self.wire.id):      # it may be what the message was refused for
            caller.refused_id = <bytes>self.wire.id.ptr[:self.wire.id.len]
        return 0

    cdef Target _instead(self, Target drawn, int64_t now_us):
        """Who answers for a version that does not serve, or a Refusal raised; either way its arm has failed."""
        if drawn.arm is not None:
            drawn.arm.stats.requests[<int>UNAVAILABLE] += 1
            if drawn.arm.scales is not None:
                drawn.arm.weigh(
                    drawn.arm.scales.arrive(drawn.arm.side, self.asked.has_key, self.asked.key, now_us), UNAVAILABLE, False, 0, NULL,
                    now_us)
        if drawn.route is not None and drawn.route.rescues(FALLBACK_ERROR) and drawn.route.fallback.lane is not None:
            return drawn.route.fallback
        raise self.table.refuse(&self.asked, drawn)

    cdef int _note_refused(self, Lane lane, Request request, int code, bint is_rest, int64_t now_us) except -1:
        """A request that was not admitted counts once, at its version where there is one, and at its arm; the wire still holds what it
        asked for."""
        self.n_refused += 1
        if lane is None:
            self.refusals[code] += 1
        else:
            lane.stats.requests[code] += 1
            if lane.monitor is not None:
                lane.monitor.note_refused(request.arm if request is not None else None, code, now_us)
        if request is not None and request.arm is not None:
            request.arm.stats.requests[code] += 1
            if request.mark:
                request.arm.weigh(request.mark, code, False, 0, NULL, now_us)
                request.mark = 0
        if self.sampler.is_due():
            self.sampler.tell_refused(text_of(self.wire.model), text_of(self.wire.version), text_of(self.wire.id), code, is_rest, now_us)
        return 0

    def infer(self, Body body not None, done, int64_t deadline_us=0, int64_t now_us=0, bytes trace=None, list parameters=None,
              dict headers=None):
        """Take in a serialized ModelInferRequest; done(answer, code, text) hears of its end, maybe before this returns. Monotonic
        microseconds; headers {name: value} in bytes, names in lower case. The lane is pending afterwards: the caller sees to a turn."""
        cdef Exchange exchange = Exchange(done)
        cdef Noted noted
        if not self.budget.reserve(body.length):
            self.n_refused += 1
            self.door.count(DOOR_IN_FLIGHT_BYTES, RESOURCE_EXHAUSTED, True)
            exchange.on_failure(
                None, RESOURCE_EXHAUSTED,
                f"the gateway holds {self.budget.used} bytes in flight, a message of {body.length} would pass the limit of "
                f"{self.budget.limit} (max_in_flight_bytes)")
            return exchange
        body.charge(self.budget, body.length)
        memset(&noted, 0, sizeof(noted))
        try:
            if headers is not None and self.table.wants_headers:
                note_all(&noted, headers)
            exchange.request = self._infer(body, exchange, False, True, deadline_us, trace, parameters, &noted, now_us)
        finally:
            release_noted(&noted)
        return exchange

    def turn_away(self, str reason not None, int code, str model not None, str version not None, str id not None, int64_t now_us):
        """Count a REST request for a model that was refused before it became one of ours: a name of door.REASON_NAMES, and the gRPC code
        that says the same as its answer."""
        self.n_refused += 1
        self.door.refuse(reason, code, True)
        if self.sampler.is_due():
            self.sampler.tell_refused(model, version, id, code, True, now_us)

    cdef int _serve_stream(self, Call call, int events, int64_t now_us) except -1:
        cdef StreamSlot slot
        if events & EVENT_CLOSED and call.handler is not None:
            handler, call.handler = call.handler, None
            handler.on_cancel()
        if call.state >= CALL_ANSWERED:
            return 0
        if call.slots is None:
            call.slots = []
            self._start_timer(call)
        while call.messages:
            slot = StreamSlot()
            slot.call = call
            call.slots.append(slot)
            slot.request = self._infer(
                call.messages.popleft(), slot, True, False, call.deadline_us, call.trace, call.parameters, &call.noted, now_us)
            if call.slots is None:
                return 0
        call.return_window()
        if events & EVENT_END and call.handler is not None:
            call.handler.on_half_close()
        if not call.slots and call.n_relayed == 0:
            if call.state == CALL_SERVING:
                if call.handler is None:
                    call.end(0, "")
            elif self.is_draining:
                call.end(UNAVAILABLE, "the gateway is shutting down")
        return 0

    cdef int _relay(self, Target target, StreamSlot slot, Body body) except -1:
        """A request whose answers come from elsewhere, one or many, in the order in which they come."""
        cdef Call call = slot.call
        call.slots.remove(slot)
        slot.call = None
        if call.handler is None:
            call.handler = self.relays(call)
        call.handler.on_request(target.lane, target.arm, bytes(body))
        return 0

    cdef int _start_timer(self, Call call) except -1:
        if call.deadline_us:
            call.timers = self.timers
            self.timers.add(call, call.deadline_us)
        return 0

    cdef int _serve_other(self, Call call, int events, int64_t now_us) except -1:
        if events & EVENT_BEGIN:
            if call.state >= CALL_ANSWERED:                   # refused or given up in the same read: a timer or a handler would stay
                return 0
            if call.path_text in self.unary:
                call.handler = self.unary[call.path_text]
            elif call.path_text in self.streaming:
                self._start_timer(call)
                handler = self.streaming[call.path_text](call)
                if call.state < CALL_ANSWERED:                # it may have finished at once
                    call.handler = handler
            else:
                return call.refuse(
                    DOOR_UNKNOWN_PATH, UNIMPLEMENTED,
                    f"method: got {repr(call.path_text)}, expected one of the methods that reflection lists")
        if call.handler is None:
            return 0
        if call.path_text in self.unary:
            if events & EVENT_END and call.state == CALL_SERVING:
                self._answer_unary(call)
            return 0
        try:
            while call.messages and call.handler is not None:
                call.handler.on_message(bytes(call.messages.popleft()))
            call.return_window()
            if events & EVENT_END and call.handler is not None:
                call.handler.on_half_close()
            if events & EVENT_CLOSED and call.handler is not None:
                handler, call.handler = call.handler, None
                handler.on_cancel()
        except Exception as error:
            code = getattr(error, "code", None)
            if code is None:
                self.report(error)
            call.finish(code or INTERNAL, str(error) if code is not None else "the gateway failed on this call")
        return 0

    def _answer_unary(self, Call call not None):
        handler, call.handler = call.handler, None
        messages = call.messages
        call.messages = None
        if not messages or len(messages) != 1:
            call.end(UNIMPLEMENTED, f"a unary call got {len(messages or ())} request messages, expected one")
            return
        try:
            message = handler(bytes(messages[0]))
        except Exception as error:
            code = getattr(error, "code", None)
            if code is None:
                self.report(error)
            call.end(code or INTERNAL, str(error) if code is not None else "the gateway failed on this call")
            return
        call.send(message)
        call.end(0, "")

    # --- for tests and tools ---------------------------------------------------------------------------------------------------

    def turn(self, int64_t now_us):
        """One loop turn without a loop: serve what sessions left, fire timers, pump lanes until none is pending; then an idle one."""
        self.serve_inbox(now_us)
        self.timers.run_due(now_us)
        while self.pending:
            self.pump(now_us)
        if self.has_background():
            self.pump_background(now_us)

    def settle(self, Batch batch not None, int64_t now_us):
        """What Hub.completed does, at a given time and without I/O: a batch was executed, its members get their answers."""
        (<Lane>batch.lane).complete(batch, now_us)
