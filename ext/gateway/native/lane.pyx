"""Dynamic batching, eager by default: an idle executor takes what is there; what arrives during a run is the next batch."""
cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint64_t

from gateway.native.arm cimport Arm
from gateway.native.batch cimport (
    IN_PLACE_MIN_BYTES, RELEASE_DEADLINE, RELEASE_DELAY, RELEASE_FULL, RELEASE_IDLE, RELEASE_WAIT, Batch, Release, encode_rows)
from gateway.native.body cimport Body
from gateway.native.clock cimport monotonic_us
from gateway.native.cost cimport observe, predict_us, relax
from gateway.native.linger cimport answered, arrived, hold_until_us
from gateway.native.histogram cimport N_BOUNDS, Histogram, record
from gateway.native.circuit cimport OUTCOME_FAILURE, OUTCOME_NEITHER, OUTCOME_SUCCESS, Circuit
from gateway.native.refusal cimport DEADLINE_EXCEEDED, INTERNAL, INVALID_ARGUMENT, OK, RESOURCE_EXHAUSTED, UNAVAILABLE, blames_version
from gateway.native.request cimport CAUSE_TIMEOUT, REQUEST_DONE, REQUEST_QUEUED, REQUEST_RUNNING, Request
from gateway.native.sampler cimport Sampler

import numpy as np

from gateway.native.refusal import CircuitOpen, Refusal

cdef enum:
    MAX_BATCH_SIZES = 1024              # sizes told apart in the statistics
    ATTEMPTS = 2                        # that share a deadline when a fallback may follow on a timeout
    MAX_BUFFERED_ROWS = 8               # backends have no larger buffers
    TURN_MEMBERS = 16                   # of a batch of shadow work, settled in one idle turn: some 20 us
    DEADLINE_MARGIN_US = 1000           # kept for encoding and the way back when a delayed batch is released for a deadline

RELEASE_NAMES = ("wait", "full", "idle", "delay", "deadline")
RESCUE_NAMES = ("error", "circuit_open", "timeout")       # bits of Cause, in order


cdef Release decide(int64_t now_us, int64_t oldest_us, int64_t rows, int64_t max_rows, int64_t max_delay_us,
                    int64_t deadline_us, double predicted_us, int64_t* wake_us) noexcept nogil:
    """Whether an idle executor gets a batch now: `rows` that may run together are waiting, the oldest since `oldest_us`; `deadline_us` is
    the earliest among them (0: none) and `predicted_us` the run they need. RELEASE_WAIT sets wake_us."""
    cdef int64_t latest_us
    if rows >= max_rows:
        return RELEASE_FULL
    if max_delay_us == 0:
        return RELEASE_IDLE
    wake_us[0] = oldest_us + max_delay_us
    if now_us >= wake_us[0]:
        return RELEASE_DELAY
    if deadline_us:
        latest_us = deadline_us - <int64_t>predicted_us - DEADLINE_MARGIN_US
        if now_us >= latest_us:
            return RELEASE_DEADLINE
        if latest_us < wake_us[0]:
            wake_us[0] = latest_us
    return RELEASE_WAIT


def decide_release(int64_t now_us, int64_t oldest_us, int64_t rows, int64_t max_rows, int64_t max_delay_us, int64_t deadline_us,
                   double predicted_us):
    """decide() for tests: (reason, wake_us or None)."""
    cdef int64_t wake_us = 0
    cdef int reason = decide(now_us, oldest_us, rows, max_rows, max_delay_us, deadline_us, predicted_us, &wake_us)
    return RELEASE_NAMES[reason], wake_us if reason == RELEASE_WAIT else None


@cython.final
cdef class Occupancy:
    """Occupancy(n_cores): who runs batches beside us."""

    def __init__(self, int n_cores=1):
        self.n_cores = n_cores


@cython.final
cdef class LaneAlarm(Timed):
    """max_delay has passed, or a deadline is near."""

    cdef int fire(self, int64_t now_us) except -1:
        if self.lane is not None:
            self.lane.mark_pending()
        return 0


@cython.final
cdef class Lane(Holder):
    """Lane(signature, run, submit, report, timers, pending, **policy).

    run(inputs) -> outputs executes a batch; submit(batch) hands it to an executor, which calls batch.execute(lane.runner) on its thread and
    then complete on the loop thread; report(exception) takes failures for the log. Times in microseconds, sizes in rows or bytes.
    """

    def __init__(self, Signature signature not None, run, submit, report, Timers timers not None, list pending not None, *,
                 int64_t max_batch_size, size_t max_batch_bytes=32 << 20, int64_t max_delay_us=0, int instances=1,
                 int64_t max_queue_rows=65536, size_t max_queue_bytes=256 << 20, int64_t default_timeout_us=0, int64_t max_timeout_us=0,
                 int priority_levels=1, int default_priority=1, int64_t inline_below_us=100, bint counts_cpu=False, Sampler sampler=None,
                 Occupancy occupancy=None, Lane twin=None, bint is_background=False, dict buffers=None,
                 bint lingers=True, size_t alone_bytes=0):
        if not 1 <= priority_levels <= MAX_PRIORITIES or not 1 <= default_priority <= priority_levels:
            raise ValueError(
                f"priority_levels: got {priority_levels} with default_priority {default_priority}, expected 1 <= default <= levels <= "
                f"{MAX_PRIORITIES}")
        if instances < 1:
            raise ValueError(f"instances: got {instances}, expected at least 1")
        self.signature, self.run, self.submit, self.report = signature, run, submit, report
        self.timers, self.pending = timers, pending
        self.max_batch_size, self.max_batch_bytes = max_batch_size if signature.batched else 0, max_batch_bytes
        self.alone_bytes = alone_bytes or <size_t>-1
        self.max_delay_us, self.instances = max_delay_us, instances
        self.max_queue_rows, self.max_queue_bytes = max_queue_rows, max_queue_bytes
        self.default_timeout_us, self.max_timeout_us = default_timeout_us, max_timeout_us
        self.n_priorities, self.default_priority = priority_levels, default_priority
        self.inline_below_us, self.counts_cpu = inline_below_us, counts_cpu
        self.sampler, self.batch_sizes = sampler, {}
        self.occupancy, self.twin, self.is_background = occupancy, twin, is_background
        self.buffers, self.lingers = buffers or None, lingers and max_delay_us == 0 and not is_background
        self.alarm = LaneAlarm()
        self.alarm.lane = self

    def __dealloc__(self):
        cdef int level
        cdef void* at
        cdef void* following
        for level in range(MAX_PRIORITIES):
            at = self.heads[level]
            while at != NULL:
                following = (<Request>at).next
                Py_DECREF(<Request>at)
                at = following

    # --- admission -------------------------------------------------------------------------------------------------------------

    cdef int admit(self, Request request, int64_t deadline_us, int64_t now_us) except -1:
        """Queue it, or refuse; `deadline_us` is the call's own (0: none)."""
        cdef int64_t timeout_us = self.default_timeout_us if not deadline_us else 0
        cdef int64_t rows = max(request.n_rows, 1)
        if self.is_closed:
            raise Refusal(UNAVAILABLE, f"{self.signature.describe()} is being unloaded")
        request.priority = self.default_priority
        if request.priority_given and self.n_priorities > 1:
            if request.priority_given > <uint64_t>self.n_priorities:
                raise Refusal(
                    INVALID_ARGUMENT,
                    f"parameter 'priority': got {request.priority_given}, expected 1 to {self.n_priorities} for "
                    f"{self.signature.describe()}")
            request.priority = <int>request.priority_given
        if request.timeout_us:
            timeout_us = <int64_t>request.timeout_us
        if self.max_timeout_us and (timeout_us == 0 or timeout_us > self.max_timeout_us):
            timeout_us = self.max_timeout_us
        if timeout_us and (deadline_us == 0 or now_us + timeout_us < deadline_us):
            deadline_us = now_us + timeout_us
        if deadline_us and deadline_us <= now_us:
            self.stats.refused_late += 1
            raise Refusal(DEADLINE_EXCEEDED, "the deadline had passed when the request arrived")
        if self.queued_rows + rows > self.max_queue_rows:
            self.stats.refused_rows += 1
            raise Refusal(
                RESOURCE_EXHAUSTED,
                f"the queue of {self.signature.describe()} holds {self.queued_rows} rows, {rows} more would pass its limit of "
                f"{self.max_queue_rows} (queue_rows)")
        if self.queued_bytes + request.nbytes > self.max_queue_bytes:
            self.stats.refused_bytes += 1
            raise Refusal(
                RESOURCE_EXHAUSTED,
                f"the queue of {self.signature.describe()} holds {self.queued_bytes} bytes, {request.nbytes} more would pass its limit of "
                f"{self.max_queue_bytes} (queue_bytes)")
        request.arrived_us = now_us
        if deadline_us and request.rescue is not None and request.rescue.causes & CAUSE_TIMEOUT:
            request.final_deadline_us = deadline_us
            deadline_us = now_us + (deadline_us - now_us) // ATTEMPTS
        request.deadline_us = deadline_us
        if self.circuit is not None:                          # last: who is turned away for another reason is no probe
            request.circuit_period = self.circuit.admit(now_us)
            if not request.circuit_period:
                self.stats.refused_circuit += 1
                raise CircuitOpen(UNAVAILABLE, self.circuit.refusal(self.signature.describe(), now_us))
        if deadline_us:
            self.has_deadlines = True
            self.timers.add(request, deadline_us)
        arrived(&self.linger, now_us)
        self._push(request)
        self.n_open += 1
        self.mark_pending()
        return 0

    cdef void mark_pending(self):
        if not self.is_pending:
            self.is_pending = True
            self.pending.append(self)

    cdef int _push(self, Request request) except -1:
        cdef int level = request.priority - 1
        request.state = REQUEST_QUEUED
        request.holder = self
        request.next, request.previous = NULL, self.tails[level]
        if self.tails[level] == NULL:
            self.heads[level] = <void*>request
        else:
            (<Request>self.tails[level]).next = <void*>request
        self.tails[level] = <void*>request
        Py_INCREF(request)
        self.n_queued += 1
        self.queued_rows += max(request.n_rows, 1)
        self.queued_bytes += request.nbytes
        return 0

    cdef int _unlink(self, Request request) except -1:
        cdef int level = request.priority - 1
        if request.previous != NULL:
            (<Request>request.previous).next = request.next
        else:
            self.heads[level] = request.next
        if request.next != NULL:
            (<Request>request.next).previous = request.previous
        else:
            self.tails[level] = request.previous
        request.next = request.previous = NULL
        Py_DECREF(request)
        self.n_queued -= 1
        self.queued_rows -= max(request.n_rows - request.n_rows_taken, 1)
        self.queued_bytes -= request.nbytes
        return 0

    # --- forming batches -------------------------------------------------------------------------------------------------------

    cdef int pump(self, int64_t now_us) except -1:
        """Give idle executors what is there. One inline batch a turn, so that the loop gets to read and write in between."""
        cdef Release reason
        cdef int64_t wake_us = 0
        cdef Batch batch
        self.is_pending = False
        self.now_us = now_us
        if self.unsettled is not None:
            return self._settle_some(TURN_MEMBERS)
        while self.n_queued and self.n_running < self.instances:
            reason = self._decide(now_us, &wake_us)
            if reason == RELEASE_WAIT:
                self.timers.add(self.alarm, wake_us)
                return 0
            batch = self._form(now_us, reason)
            if batch is None:
                continue                                      # all that could have joined were refused
            self._count_running(1)
            if self.cost.weight > 0 and predict_us(&self.cost, <double>batch.n_rows) < self.inline_below_us:
                self._perform_inline(batch)
                if self.n_queued:
                    self.mark_pending()
                return 0
            try:
                if self.is_background and self.on_left is None and batch.nbytes < IN_PLACE_MIN_BYTES and not batch.has_part():
                    batch.prepare()                           # one that runs elsewhere is gathered into its message
                self.submit(batch)
            except BaseException as error:                    # no executor: nobody else will ever answer these
                batch.results = [(INTERNAL, f"{self.signature.describe()} could not be scheduled")] * batch.n_members
                self.complete(batch, now_us)
                self.report(error)
        return 0

    cdef void _count_running(self, int by) noexcept:
        self.n_running += by
        if self.occupancy is not None:
            self.occupancy.n_batches += by

    cdef int _perform_inline(self, Batch batch) except -1:
        self.stats.inline_batches += 1
        batch.counts_cpu = False                              # that clock is a system call; here wall time is close enough
        if (self.buffers is not None and batch.n_rows <= MAX_BUFFERED_ROWS and not batch.has_part()
                and (batch.n_members > 1 or batch.nbytes < IN_PLACE_MIN_BYTES)):
            batch.buffers = self.buffers.get(batch.n_rows)
        batch.perform(self.run)
        return self.complete(batch, monotonic_us())

    cdef Request _head(self):
        cdef int level
        for level in range(self.n_priorities):
            if self.heads[level] != NULL:
                return <Request>self.heads[level]
        return None

    cdef Release _decide(self, int64_t now_us, int64_t* wake_us) noexcept:
        cdef int64_t oldest_us = now_us, deadline_us = 0, rows = self.queued_rows
        cdef int level, scanned = 0
        cdef void* at
        cdef int64_t max_rows = self.max_batch_size if self.max_batch_size else 1
        cdef int64_t delay_us = self.max_delay_us
        if self._head().nbytes > self.alone_bytes:
            return RELEASE_FULL
        if delay_us == 0:
            if not self.lingers or max_rows == 1 or self.signature.is_variable:
                return RELEASE_IDLE
            if rows >= max_rows:
                return RELEASE_IDLE                           # _form sees that it is full
            wake_us[0] = hold_until_us(&self.linger, self.n_queued, self.n_open, self.instances, predict_us(&self.cost, 0), now_us)
            if wake_us[0] == 0:
                return RELEASE_IDLE
            if not self.has_deadlines:
                return RELEASE_WAIT
            delay_us = wake_us[0] - now_us
            oldest_us = now_us
        if self.signature.is_variable:
            rows = self._joinable_rows()
        for level in range(self.n_priorities):
            at = self.heads[level]
            if self.max_delay_us and at != NULL and (<Request>at).arrived_us < oldest_us:
                oldest_us = (<Request>at).arrived_us
            while self.has_deadlines and not self.is_background and at != NULL and scanned < MAX_SCAN:
                if (<Request>at).deadline_us and (deadline_us == 0 or (<Request>at).deadline_us < deadline_us):
                    deadline_us = (<Request>at).deadline_us
                at = (<Request>at).next
                scanned += 1
        return decide(
            now_us, oldest_us, rows, max_rows, delay_us, deadline_us,
            predict_us(&self.cost, <double>min(rows + 1, max_rows)), wake_us)

    cdef int64_t _joinable_rows(self) noexcept:
        cdef Request head = self._head()
        cdef void* at
        cdef int64_t rows = 0
        cdef int level, scanned = 0
        for level in range(self.n_priorities):
            at = self.heads[level]
            while at != NULL and scanned < MAX_SCAN:
                if head.can_join(<Request>at):
                    rows += (<Request>at).n_rows - (<Request>at).n_rows_taken
                at = (<Request>at).next
                scanned += 1
        return rows

    cdef Batch _form(self, int64_t now_us, Release reason):
        """Take from the queue what runs together: the head, and who can join it, in order of priority and arrival."""
        cdef Batch batch = None
        cdef Request head = None, request
        cdef void* following
        cdef int64_t room, take
        cdef int level, scanned = 0
        cdef double needed_us
        for level in range(self.n_priorities):
            following = self.heads[level]
            while following != NULL:
                request = <Request>following
                following = request.next
                scanned += 1
                if scanned > MAX_SCAN and batch is not None and self.signature.is_variable:
                    return self._released(batch, reason)
                if request.deadline_us:
                    needed_us = predict_us(&self.cost, <double>(request.n_rows - request.n_rows_taken)) * self.cost.trust
                    if request.deadline_us <= now_us + <int64_t>needed_us:
                        self._refuse_late(request, now_us, needed_us)
                        continue
                if head is None:
                    head = request
                    batch = Batch(self.signature, self)
                elif not head.can_join(request):
                    continue
                elif batch.nbytes + request.nbytes > self.max_batch_bytes or request.nbytes > self.alone_bytes:
                    return self._released(batch, RELEASE_FULL)
                take = request.n_rows - request.n_rows_taken
                if self.max_batch_size:
                    room = self.max_batch_size - batch.n_rows
                    if take > room:
                        if batch.n_members:                   # in order: nobody overtakes a large request
                            return self._released(batch, RELEASE_FULL)
                        take = room                           # larger than any batch: one slice now, the rest later
                if request.started_us == 0:
                    request.started_us = now_us
                    self.stats.queue_us += now_us - request.arrived_us
                    record(&self.stats.queue, now_us - request.arrived_us)
                batch.add(request, request.n_rows_taken, take)
                if request.n_rows_taken + take == request.n_rows:
                    self._unlink(request)
                    request.state = REQUEST_RUNNING
                else:
                    self.queued_rows -= take
                request.n_rows_taken += take
                if batch.n_rows >= self.max_batch_size or request.nbytes > self.alone_bytes:      # no batch dimension: one is a full batch
                    return self._released(batch, RELEASE_FULL)
        return self._released(batch, reason) if batch is not None else None

    cdef Batch _released(self, Batch batch, Release reason):
        batch.reason = reason
        batch.counts_cpu = self.counts_cpu
        batch.monitor = self.monitor
        self.stats.releases[<int>reason] += 1
        self.stats.batches += 1
        self.stats.rows += batch.n_rows
        return batch

    # --- leaving ---------------------------------------------------------------------------------------------------------------

    cdef int complete(self, Batch batch, int64_t now_us) except -1:
        """Settle every member, whatever happened to the others."""
        cdef Request request
        cdef int i, n_open = self.n_open
        self._count_running(-1)
        self.now_us = self.last_us = now_us
        self._note_run(batch)
        if batch.cost_us and not batch.has_failed:            # halving runs more than once, a refusal of the model less than all of it
            observe(&self.cost, <double>max(batch.n_rows, 1), <double>batch.cost_us)
            if batch.n_members == 1 and batch.n_rows:         # of several, each would cost what the others' company makes it
                self._note_alone(batch)
        if batch.outputs is not None:
            self.unsettled, batch.ended_us = batch, now_us
            return self._settle_some(batch.n_members if self.is_closed else TURN_MEMBERS)
        for i in range(batch.n_members):
            request = <Request>batch.members[i]
            try:
                self._take_result(request, batch.results[i], batch.slices[i].n_rows)
            except Exception as error:                        # one caller's trouble is not the others'
                self.report(error)
        if self.lingers:
            answered(&self.linger, n_open - self.n_open, predict_us(&self.cost, 0), now_us)
        if self.n_queued:
            self.mark_pending()
        if batch.errors is not None:
            for error in batch.errors:
                self.report(error)
        return 0

    cdef int _settle_some(self, int n) except -1:
        """Encode and settle the next n members of a batch that only ran in its thread. Not there: a thread of the lowest priority that
        waits for a core with the GIL in its hands would stop those who wait for answers."""
        cdef Batch batch = self.unsettled
        cdef int i = batch.n_concluded
        cdef int high = min(i + n, batch.n_members)
        self.now_us = batch.ended_us
        try:
            batch.conclude(high)
        except Exception as error:                            # without results they are answered INTERNAL
            self.report(error)
            high = batch.n_members
        while i < high:
            try:
                self._take_result(<Request>batch.members[i], batch.results[i], batch.slices[i].n_rows)
            except Exception as error:
                self.report(error)
            i += 1
        if high == batch.n_members:
            self.unsettled = None
            for error in batch.errors or ():
                self.report(error)
        if self.unsettled is not None or self.n_queued:
            self.mark_pending()
        return 0

    cdef int _note_run(self, Batch batch) except -1:
        self.stats.run_us += batch.cost_us
        self.stats.compute_us += <uint64_t>batch.cost_us * batch.n_members
        record(&self.stats.execution, batch.cost_us)
        size = self.batch_sizes.get(batch.n_rows)
        if size is None:
            if len(self.batch_sizes) == MAX_BATCH_SIZES:
                return 0
            size = self.batch_sizes[batch.n_rows] = [0, 0]
        size[0] += 1
        size[1] += batch.cost_us
        return 0

    cdef int _note_alone(self, Batch batch) except -1:
        cdef Request request = <Request>batch.members[0]
        cdef int64_t row_ns = batch.cost_us * 1000 // batch.n_rows
        self.stats.alone_runs += 1
        self.stats.alone_ns += row_ns
        self.stats.alone_squares += <double>row_ns * <double>row_ns
        if request.mark > 0:
            request.arm.scales.note_cost(request.arm.side, request.mark, row_ns)
        return 0

    cdef int _take_result(self, Request request, object result, int64_t n_rows) except -1:
        if request.state == REQUEST_DONE:
            return 0
        if isinstance(result, tuple) and isinstance((<tuple>result)[1], list):
            if request.parts is None:
                request.parts = []
            request.parts.append(result)
            request.n_rows_done += n_rows
            return self._join(request) if request.n_rows_done == request.n_rows else 0
        if result is None and request.caller is not None:
            result = (INTERNAL, f"{self.signature.describe()} gave no answer")
        return self._settle(request, result)

    cdef int _join(self, Request request) except -1:
        """The slices of a request that was larger than a batch, put together in order."""
        parts = sorted(request.parts, key=_first_row)
        request.parts = None
        try:
            outputs = [np.concatenate([part[1][index] for part in parts]) for index in range(self.signature.n_outputs)]
            result = encode_rows(request, outputs, 0, request.n_rows)
        except Refusal as refusal:
            result = (refusal.code, refusal.text)
        except Exception as error:
            self.report(error)
            result = (INTERNAL, f"{self.signature.describe()}: the answer could not be put together")
        return self._settle(request, result)

    cdef int _settle(self, Request request, object result) except -1:
        cdef int code
        cdef int64_t took_us
        cdef bint is_running = request.state == REQUEST_RUNNING
        if request.state == REQUEST_DONE:
            return 0
        self.n_open -= 1
        if request.slot >= 0:
            self.timers.cancel(request)
        if request.state == REQUEST_QUEUED:                   # a slice failed; the rest will not run
            self._unlink(request)
        request.parts = None
        if result is None:
            request.state = REQUEST_DONE
            if request.circuit_period:
                self._tell_circuit(request, -1, is_running)
            if request.arm is not None:
                request.arm.stats.cancelled += 1
                if request.mark:
                    request.arm.weigh(request.mark, -1, False, self.now_us - request.arrived_us, NULL, self.now_us)
                    request.mark = 0
            request._tell_watcher(None, -1)
            return 0
        code = OK if isinstance(result, Body) else <int>result[0]
        if request.circuit_period:
            self._tell_circuit(request, code, is_running)
        took_us = self.now_us - request.arrived_us
        self.stats.requests[code] += 1
        record(&self.stats.request[request.is_rest], took_us)
        if request.arm is not None:
            request.arm.note(code, took_us, request.is_rest)
            if request.mark:
                request.arm.weigh(request.mark, code, is_running, took_us, &request.seen, self.now_us)
                request.mark = 0
        if self.monitor is not None:
            self.monitor.note_request(request.arm, code, took_us, self.now_us)
        if code == OK:
            self.stats.success_us += took_us
            request.settle(<Body>result)
        else:
            self.stats.failure_us += took_us
            request.fail(code, result[1])
        if self.sampler is not None and self.sampler.is_due():
            self.sampler.tell(request, code, self.now_us)
        return 0

    cdef int _tell_circuit(self, Request request, int code, bint is_running) except -1:
        cdef int64_t period = request.circuit_period
        cdef Circuit circuit = self.circuit
        cdef uint64_t n_opened
        request.circuit_period = 0
        if circuit is None:
            return 0
        n_opened = circuit.n_opened
        try:
            if code == OK:
                circuit.note(period, OUTCOME_SUCCESS, self.now_us)
            elif blames_version(code) or code == DEADLINE_EXCEEDED and is_running:
                circuit.note(period, OUTCOME_FAILURE, self.now_us)
            else:
                circuit.note(period, OUTCOME_NEITHER, self.now_us)
        except Exception as error:                            # who listens to the circuit failed; the caller still gets its answer
            self.report(error)
        self.stats.circuit_opened += circuit.n_opened - n_opened
        return 0

    cdef bint _goes_on(self, Request request, int64_t now_us) except -1:
        """A first attempt's share of the deadline is over, and nobody can take it up: it has all the time that its caller gave."""
        if request.final_deadline_us <= now_us or request.rescue is None or request.rescue.can_take(request, CAUSE_TIMEOUT):
            return False
        request.deadline_us, request.final_deadline_us = request.final_deadline_us, 0
        self.timers.add(request, request.deadline_us)
        return True

    cdef int _refuse_late(self, Request request, int64_t now_us, double needed_us) except -1:
        if self._goes_on(request, now_us):
            return 0
        left_us = request.deadline_us - now_us
        if left_us <= 0:
            waited_ms = (now_us - request.arrived_us) / 1000
            text = f"the deadline passed while the request waited {waited_ms:.1f} ms in the queue of {self.signature.describe()}"
        else:
            relax(&self.cost)
            text = (f"the deadline cannot be met: {left_us / 1000:.1f} ms are left, "
                    f"{self.signature.describe()} needs about {needed_us / 1000:.1f} ms")
        return self._settle(request, (DEADLINE_EXCEEDED, text))

    cdef int on_expired(self, Request request, int64_t now_us) except -1:
        self.now_us = now_us
        if request.state == REQUEST_QUEUED:
            self.mark_pending()                               # who is held for company may go now
            return self._refuse_late(request, now_us, 0)
        if self._goes_on(request, now_us):
            return 0
        if self.on_left is not None:
            self.on_left()
        return self._settle(request, (DEADLINE_EXCEEDED, f"the deadline passed while {self.signature.describe()} was running"))

    cdef int on_cancelled(self, Request request, int64_t now_us) except -1:
        if request.state == REQUEST_DONE:
            return 0
        self.now_us = max(self.now_us, now_us)
        self.stats.cancelled += 1
        if self.on_left is not None and request.state == REQUEST_RUNNING:
            self.on_left()
        if request.state == REQUEST_QUEUED:
            self.mark_pending()
        return self._settle(request, None)

    # --- requests that others answer, in as many messages as they like ---------------------------------------------------------

    def relay_began(self):
        """Beside the queue: the relay keeps it."""
        self.n_open += 1

    def relay_ended(self, Arm arm, int code, int64_t took_us):
        """As `code` says; -1: its caller left."""
        self.n_open -= 1
        if code < 0:
            self.stats.cancelled += 1
            if arm is not None:
                arm.stats.cancelled += 1
            return
        self.stats.requests[code] += 1
        record(&self.stats.request[0], took_us)
        if code == OK:
            self.stats.success_us += took_us
        else:
            self.stats.failure_us += took_us
        if arm is not None:
            arm.note(code, took_us, False)

    # --- control ---------------------------------------------------------------------------------------------------------------

    @property
    def runner(self):
        """What executes a batch."""
        return self.run

    @property
    def is_idle(self):
        """Nothing queued, nothing running, nothing with a relay."""
        return self.n_queued == 0 and self.n_running == 0 and self.n_open == 0

    def close(self):
        """Refuse what comes from now on; what is queued or running still finishes, but queued shadow work goes: nobody waits for it."""
        self.is_closed = True
        if self.twin is not None:
            self.twin.close()
        if self.unsettled is not None:
            self._settle_some(self.unsettled.n_members)
        while self.is_background and self.n_queued:
            self._settle(self._head(), (UNAVAILABLE, f"{self.signature.describe()} is being unloaded"))

    def release(self):
        """After close and idle: let go of the model."""
        self.timers.cancel(self.alarm)
        self.alarm.lane = None
        self.run = self.submit = self.buffers = self.on_left = self.relay = None
        if self.twin is not None:
            self.twin.release()

    @property
    def costs(self):
        """Of batches with one request, since start: (runs, execution per row in ns summed over them, its squares)."""
        return self.stats.alone_runs, self.stats.alone_ns, self.stats.alone_squares

    def learn(self, int64_t rows, double us):
        """A measured run of the warm-up."""
        observe(&self.cost, <double>rows, us)

    def resize(self, int instances):
        """So many batches at once from now on; those beyond it end as they would. The hub is to be woken."""
        if instances < 1:
            raise ValueError(f"instances: got {instances}, expected at least 1")
        self.instances = instances
        if self.n_queued:
            self.mark_pending()

    def predicted_us(self, int64_t rows):
        """What a run of `rows` is expected to take; 0 when nothing has run."""
        return predict_us(&self.cost, <double>rows)

    def statistics(self):
        """Counters since start, as a dictionary."""
        return {
            "requests": {code: self.stats.requests[code] for code in range(<int>N_CODES) if self.stats.requests[code]},
            "cancelled": self.stats.cancelled, "rows": self.stats.rows, "batches": self.stats.batches,
            "inline_batches": self.stats.inline_batches,
            "releases": {RELEASE_NAMES[i]: self.stats.releases[i] for i in range(1, 5)},
            "queue_us": self.stats.queue_us, "run_us": self.stats.run_us, "compute_us": self.stats.compute_us,
            "success_us": self.stats.success_us, "failure_us": self.stats.failure_us,
            "refused_rows": self.stats.refused_rows, "refused_bytes": self.stats.refused_bytes, "refused_late": self.stats.refused_late,
            "refused_circuit": self.stats.refused_circuit,
            "rescued": {name: self.stats.rescued[i] for i, name in enumerate(RESCUE_NAMES) if self.stats.rescued[i]},
            "rescues_refused": self.stats.rescues_refused,
            "circuit_opened": self.stats.circuit_opened, "circuit": self.circuit.statistics() if self.circuit is not None else None,
            "queued": self.n_queued, "running": self.n_running, "last_us": self.last_us,
            "batch_sizes": {rows: tuple(size) for rows, size in self.batch_sizes.items()},
            "histograms": {
                "request_us": {"grpc": as_tuple(&self.stats.request[0]), "rest": as_tuple(&self.stats.request[1])},
                "queue_us": as_tuple(&self.stats.queue), "run_us": as_tuple(&self.stats.execution),
            },
        }


cdef tuple as_tuple(const Histogram* h):
    """(counts by bucket, sum in microseconds)."""
    return tuple([h.counts[i] for i in range(<int>N_BOUNDS + 1)]), h.sum_us


def _first_row(part):
    return part[0]
