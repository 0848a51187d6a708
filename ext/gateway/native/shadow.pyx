"""Shadow requests: made beside the primary, run when nothing else is to do, dropped and counted under pressure."""
cimport cython
from libc.stdint cimport int64_t

from gateway.native cimport counters
from gateway.native.arm cimport Arm
from gateway.native.body cimport Body, Budget
from gateway.native.clock cimport monotonic_us
from gateway.native.codec cimport Wire
from gateway.native.compare cimport Tolerance
from gateway.native.cursor cimport Span
from gateway.native.lane cimport Lane
from gateway.native.pairs cimport Comparer, PairStats
from gateway.native.refusal cimport DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE
from gateway.native.request cimport Caller, Request, Watcher
from gateway.native.route cimport Asked, ShadowLoad, ShadowSpec

from gateway.native.refusal import Refusal

cdef enum:
    OFFLOAD_BYTES = 32768     # two answers that come to more are compared in a thread: 5 ns a number, 20 us of the loop
    TURN_BYTES = 32768        # of answers compared in one idle turn,
    TURN_PAIRS = 32           # and pairs: somebody may have come meanwhile
    PATIENCE = 16             # failures in a row before requests are skipped
    MAX_SKIP = 1024           # and at most so many before the next try
    MAX_TALLIES = 64          # primary arms told apart in one stage: a route has a handful

DROP_REASONS = ("", "not_serving", "draining", "memory", "too_large", "concurrency", "oldest", "answers", "misfit", "refused", "failing",
                "late_queued", "late_running", "primary_gone", "fault")


@cython.final
cdef class Receiver(Caller):
    """Nobody."""

    cdef int on_answer(self, Request request, Body answer) except -1:
        return 0

    cdef int on_failure(self, Request request, int code, str text) except -1:
        self.text = text
        return 0


@cython.final
cdef class ShadowStats:
    """ShadowStats(arm)."""

    def __init__(self, Arm arm not None):
        self.arm, self.pairs = arm, {}

    @property
    def dropped(self):
        """Requests that were drawn and have no pair, by reason."""
        return {DROP_REASONS[i]: self.dropped[i] for i in range(1, <int>N_DROPS) if self.dropped[i]}

    cdef void note_failure(self) noexcept:
        """A shadow that keeps failing is asked less and less often: its failures cost time on the way, and say nothing new."""
        self.n_failures += 1
        if self.n_failures >= PATIENCE:
            self.n_skip = min(<int64_t>MAX_SKIP, <int64_t>1 << min(self.n_failures - PATIENCE, 20))


@cython.final
@cython.no_gc
cdef class Pair(Watcher):
    """One request and its shadow, until both have ended."""

    def __cinit__(self):
        counters.count(counters.KIND_PAIR, 1)

    def __dealloc__(self):
        counters.count(counters.KIND_PAIR, -1)

    cdef int on_end(self, Request request, Body answer, int code) except -1:
        cdef Watcher following
        cdef bint is_shadow = request is self.shadow
        try:
            if is_shadow:
                self._on_shadow(request, answer, code)
            elif self.shadow is not None:
                self._on_primary(request, answer, code)
        except Exception as error:                            # nobody who waits for an answer may hear of it
            self._drop(DROP_FAULT)
            self.mirror.report(error)
        if not is_shadow and self.following is not None:
            following, self.following = self.following, None
            following.on_end(request, answer, code)
        return 0

    cdef int _on_primary(self, Request request, Body answer, int code) except -1:
        cdef Lane lane = <Lane>request.holder
        cdef Request shadow = self.shadow
        cdef int64_t now_us = lane.now_us
        self.has_primary = True
        if code < 0:
            self.reason = DROP_PRIMARY_GONE
        elif answer is not None and not self._has_room(answer):
            self.reason = DROP_ANSWERS
        if self.reason != DROP_NONE:
            if self.has_shadow:
                return self._drop(self.reason)
            shadow.arm = None                                 # it neither failed nor answered
            return shadow.cancel()
        self.primary_answer, self.primary_code, self.is_streamed = answer, code, request.streamed
        self.primary_us = now_us - request.started_us if request.started_us else 0
        if self.has_shadow:
            self.mirror.ended.append(self)
            return 0
        request.body.uncharge()                               # counted in our budget alone from here on
        lane = <Lane>shadow.holder
        shadow.deadline_us = now_us + max(
            self.mirror.least_time_us, <int64_t>(self.mirror.time_factor * <double>(now_us - request.arrived_us)))
        lane.has_deadlines = True
        lane.timers.add(shadow, shadow.deadline_us)
        return 0

    cdef int _on_shadow(self, Request request, Body answer, int code) except -1:
        cdef Lane lane = <Lane>request.holder
        self.has_shadow = True
        if self.reason != DROP_NONE:
            return self._drop(self.reason)
        if code < 0 or (code == UNAVAILABLE and lane.is_closed):
            return self._drop(DROP_NOT_SERVING)
        if code == DEADLINE_EXCEEDED:
            if request.started_us:
                self.stats.note_failure()
            return self._drop(DROP_LATE_RUNNING if request.started_us else DROP_LATE_QUEUED)
        if answer is not None and not self._has_room(answer):
            return self._drop(DROP_ANSWERS)
        self.shadow_answer, self.shadow_code = answer, code
        self.shadow_us = lane.now_us - request.started_us if request.started_us else 0
        if code:
            self.text, self.mirror.receiver.text = self.mirror.receiver.text, None
            self.stats.note_failure()
        else:
            self.stats.n_failures = 0
        if self.has_primary:
            self.mirror.ended.append(self)
        return 0

    cdef int _conclude(self, int64_t now_us) except -1:
        cdef Mirror mirror = self.mirror
        self._link()
        if self.primary_code or self.shadow_code:
            self.tally.note_failed(self.shadow, self.primary_code, self.shadow_code, self.text, now_us)
        elif self.primary_answer.length + self.shadow_answer.length > OFFLOAD_BYTES and mirror.offload is not None:
            mirror.offload(Job.__new__(Job, self))
            return 0
        else:
            mirror.scratch.run(
                span_over(self.primary_answer), self.is_streamed, span_over(self.shadow_answer), self.tally.tolerance)
            self.tally.note_compared(mirror.scratch, self.shadow, self.primary_us, self.shadow_us, now_us)
        self._finish()
        return 0

    cdef bint _has_room(self, Body answer) noexcept:
        """Takes room for an answer that is kept until it is compared."""
        if self.load.nbytes + answer.length > self.max_bytes:
            return False
        self.load.nbytes += answer.length
        self.nbytes += answer.length
        return True

    cdef int _link(self) except -1:
        if self.mirror.links is not None and self.primary_answer is not None:
            self.mirror.links.note(self.primary_answer, self.is_streamed, self.shadow_answer, self.shadow.signature.version)
        return 0

    cdef int _drop(self, Drop reason) except -1:
        if reason == DROP_LATE_QUEUED or reason == DROP_LATE_RUNNING:
            self._link()                                      # it had its time, and gave nothing
        self.stats.dropped[<int>reason] += 1
        self._finish()
        return 0

    cdef void _finish(self) noexcept:
        if self.shadow is None:
            return
        self.shadow = None
        self.primary_answer = self.shadow_answer = None
        self.stats.n_open -= 1
        self.load.requests -= 1
        self.load.rows -= self.n_rows
        self.load.nbytes -= self.nbytes


cdef inline Span span_over(Body body) noexcept:
    cdef Span span
    span.ptr, span.len = body.data, body.length
    return span


@cython.final
cdef class Job:
    """Made for `Mirror.offload`: run() in any thread, then done() on the loop's."""

    def __cinit__(self, Pair pair not None):
        self.pair, self.comparer = pair, Comparer()
        self.tolerance = pair.tally.tolerance

    def run(self):
        """Compare, without the GIL. What is compared is held by the pair and changes no more."""
        cdef Comparer comparer = self.comparer
        cdef Span primary = span_over(self.pair.primary_answer), shadow = span_over(self.pair.shadow_answer)
        cdef bint is_streamed = self.pair.is_streamed
        cdef Tolerance tolerance = self.tolerance
        with nogil:
            comparer.run(primary, is_streamed, shadow, tolerance)

    def done(self):
        """Count what was found."""
        cdef Pair pair = self.pair
        self.pair = None
        if pair is None or pair.shadow is None:
            return
        try:
            pair.tally.note_compared(self.comparer, pair.shadow, pair.primary_us, pair.shadow_us, monotonic_us())
        finally:
            pair._finish()


@cython.final
cdef class Mirror:
    """Mirror(budget, report): one per worker."""

    def __cinit__(self, Budget budget not None, report):
        self.budget, self.report = budget, report
        self.stats, self.ended = {}, []
        self.receiver, self.scratch = Receiver(), Comparer()
        self.least_time_us, self.time_factor = 1_000_000, 2.0
        self.absolute, self.relative = 1e-6, 1e-3

    cdef int reflect(self, Request primary, list shadows, const Asked* asked, Wire* wire, bint is_draining, int64_t now_us) except -1:
        """After the primary was admitted, while the wire holds its message. Whatever goes wrong stays here."""
        cdef ShadowSpec spec
        cdef ShadowStats stats
        cdef Drop reason
        for item in shadows:
            spec = <ShadowSpec>item
            if spec.share == 0 or not spec.draws(asked):
                continue
            stats = self._stats_of(spec.arm)
            stats.n_drawn += 1
            stats.used_us = now_us
            try:
                reason = DROP_DRAINING if is_draining else self._admit(primary, spec, stats, wire, now_us)
            except Exception as error:
                reason = DROP_FAULT
                self.report(error)
            if reason != DROP_NONE:
                stats.dropped[<int>reason] += 1
        return 0

    cdef ShadowStats _stats_of(self, Arm arm):
        stats = self.stats.get(arm)
        if stats is None:
            stats = self.stats[arm] = ShadowStats(arm)
            if self.on_new is not None:
                self.on_new()
        return <ShadowStats>stats

    cdef PairStats _tally_of(self, ShadowStats stats, Arm primary):
        tally = stats.pairs.get(primary)
        if tally is None:
            if len(stats.pairs) >= MAX_TALLIES:
                primary = None
                tally = stats.pairs.get(None)
            if tally is None:
                tally = stats.pairs[primary] = PairStats(primary, stats.arm, self.absolute, self.relative)
        return <PairStats>tally

    cdef Drop _admit(self, Request primary, ShadowSpec spec, ShadowStats stats, Wire* wire, int64_t now_us) except? DROP_FAULT:
        cdef Lane lane = spec.lane.twin if spec.lane is not None else None
        cdef ShadowLoad load = spec.load
        cdef Request shadow
        cdef Pair pair
        if lane is None or lane.is_closed:
            return DROP_NOT_SERVING
        if stats.n_skip:
            stats.n_skip -= 1
            return DROP_FAILING
        if self.budget.used > self.budget.limit // 2:
            return DROP_MEMORY
        if primary.n_rows > spec.max_rows or primary.nbytes > spec.max_bytes or spec.max_concurrency < 1:
            return DROP_TOO_LARGE
        while (load.requests >= spec.max_concurrency or load.rows + primary.n_rows > spec.max_rows
               or load.nbytes + primary.nbytes > spec.max_bytes):
            if lane.heads[0] == NULL:
                return DROP_CONCURRENCY
            self._displace(<Request>lane.heads[0], lane, now_us)
        shadow = Request.new(primary.body, lane.signature, self.receiver)
        try:
            shadow.bind(wire)
        except Refusal:
            stats.note_failure()
            return DROP_MISFIT
        shadow.timeout_us = shadow.priority_given = 0         # the caller's wishes are about its own answer
        shadow.is_rest, shadow.arm = primary.is_rest, spec.arm
        pair = Pair.__new__(Pair)
        pair.mirror, pair.stats, pair.load, pair.tally = self, stats, load, self._tally_of(stats, primary.arm)
        pair.n_rows, pair.nbytes, pair.max_bytes = primary.n_rows, primary.nbytes, spec.max_bytes
        try:
            lane.admit(shadow, 0, now_us)
        except Refusal:
            return DROP_REFUSED
        pair.shadow, shadow.watcher = shadow, pair
        pair.following, primary.watcher = primary.watcher, pair
        load.requests += 1
        load.rows += pair.n_rows
        load.nbytes += pair.nbytes
        stats.n_open += 1
        stats.n_admitted += 1
        return DROP_NONE

    cdef int _displace(self, Request oldest, Lane lane, int64_t now_us) except -1:
        (<Pair>oldest.watcher).reason = DROP_OLDEST
        oldest.arm = None                                     # it neither failed nor answered
        lane.now_us = now_us
        return lane._settle(oldest, (RESOURCE_EXHAUSTED, "a newer request took its place"))

    cdef int compare_ended(self, int64_t now_us) except -1:
        """In an idle turn, so that no answer waits for it: the oldest pairs, as many as take some 20 us."""
        cdef Pair pair
        cdef Py_ssize_t n = 0, end = min(len(self.ended), <Py_ssize_t>TURN_PAIRS)
        cdef size_t n_bytes = 0
        while n < end and n_bytes < TURN_BYTES:
            pair = <Pair>self.ended[n]
            n += 1
            if pair.shadow is None:
                continue
            if pair.primary_answer is not None and pair.shadow_answer is not None:
                n_bytes += pair.primary_answer.length + pair.shadow_answer.length
            try:
                pair._conclude(now_us)
            except Exception as error:
                pair._drop(DROP_FAULT)
                self.report(error)
        del self.ended[:n]
        return 0

    def forget(self, Arm arm not None):
        """A shadow of an earlier stage with nothing open: its counters are kept elsewhere."""
        stats = self.stats.get(arm)
        if stats is not None and not stats.n_open:
            del self.stats[arm]
