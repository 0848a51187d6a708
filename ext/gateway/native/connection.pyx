"""The one file that knows asyncio: sockets to sessions, and when the data plane gets its turn.

Reads land in one buffer per worker. After a read, lanes with new work are pumped once all sockets that are ready in this loop turn have
been read, so that a batch spans connections; with one connection there is nobody to wait for. Output of a turn leaves in one write per
connection, straight from C when the transport has nothing queued.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from gateway.native cimport counters
from gateway.native.batch cimport Batch
from gateway.native.blocks cimport trim_blocks
from gateway.native.call cimport CALL_OPEN, CALL_SERVING, EVENT_CLOSED, METHOD_INFER, METHOD_NONE, METHOD_STREAM_INFER, Call
from gateway.native.clock cimport monotonic_us
from gateway.native.dataplane cimport DataPlane
from gateway.native.door cimport DOOR_TOO_SLOW
from gateway.native.http2 cimport FEED_NOT_HTTP2, FEED_OK, Outgoing, Session
from gateway.native.lane cimport Lane
from gateway.native.refusal cimport DEADLINE_EXCEEDED, UNAVAILABLE

cdef enum:
    READ_BUFFER_BYTES = 262144          # one per worker: what a socket can bring in one read
    FLUSH_HIGH_BYTES = 1048576          # pulled from a session before the socket is asked again: bounds output memory per worker
    MAX_TURNED_AWAY = 64                # beyond, a connection over the limit gets HTTP/2's refusal at once, whatever it speaks
    MIN_UPLOAD_BYTES_PER_S = 16384      # a message that comes slower than this (after the header timeout) holds memory hostage

cdef extern from *:
    """
    #include <sys/socket.h>
    #include <time.h>
    #include <unistd.h>
    #ifdef __linux__
    #include <sys/timerfd.h>
    static int gw_timer_open(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC); }
    static int gw_timer_set(int fd, long long due_us) {
        struct itimerspec spec = {{0, 0}, {due_us / 1000000, (due_us % 1000000) * 1000}};
        if (due_us && !spec.it_value.tv_sec && !spec.it_value.tv_nsec) spec.it_value.tv_nsec = 1;
        return timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL);
    }
    static void gw_timer_read(int fd) { unsigned long long n; if (read(fd, &n, sizeof n)) {} }
    #else
    static int gw_timer_open(void) { return -1; }
    static int gw_timer_set(int fd, long long due_us) { (void)fd; (void)due_us; return -1; }
    static void gw_timer_read(int fd) { (void)fd; }
    #endif
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    static void gw_close(int fd) { if (fd >= 0) close(fd); }
    """
    int gw_timer_open() nogil
    int gw_timer_set(int fd, long long due_us) nogil
    void gw_timer_read(int fd) nogil
    void gw_close(int fd) nogil
    Py_ssize_t send(int fd, const void* data, size_t n, int flags) nogil
    int MSG_NOSIGNAL, MSG_DONTWAIT

cdef class Hub(DataPlane):
    """Hub(limits, max_in_flight_bytes, unary, streaming, report, loop, max_connections, header_timeout_us, send_timeout_us,
    idle_timeout_us).

    The loop's side of a data plane: one per worker, owned by its loop thread.
    """

    cdef object loop, buffer, call_soon, on_alarm
    cdef uint8_t* received                      # inside buffer
    cdef Outgoing outgoing
    cdef readonly set connections
    cdef int max_connections
    cdef int64_t header_timeout_us, send_timeout_us, idle_timeout_us
    cdef bint has_turn                          # scheduled
    cdef bint has_idle_turn                     # scheduled
    cdef uint64_t n_turns, n_turns_seen         # run; and when the idle turn was scheduled
    cdef public object http1                    # (transport, first bytes) -> asyncio.Protocol, for what is not HTTP/2
    cdef readonly set http1_connections         # those protocols; they remove themselves
    cdef int alarm_fd                           # timerfd; -1: the loop's own timers, whole milliseconds
    cdef object alarm_handle
    cdef public uint64_t bytes_in, bytes_out    # HTTP/1.1 adds its own
    cdef readonly uint64_t n_accepted, n_rejected
    cdef int n_turned_away                      # connections over the limit that have not said yet what they speak

    def __init__(self, limits, max_in_flight_bytes, unary, streaming, report, loop, int max_connections, int64_t header_timeout_us,
                 int64_t send_timeout_us, int64_t idle_timeout_us):
        cdef uint8_t[::1] view
        self.loop, self.call_soon = loop, loop.call_soon
        self.max_connections = max_connections
        self.header_timeout_us, self.send_timeout_us, self.idle_timeout_us = header_timeout_us, send_timeout_us, idle_timeout_us
        block = bytearray(READ_BUFFER_BYTES)
        view = block
        self.received = &view[0]
        self.buffer = memoryview(block)
        self.connections, self.http1_connections = set(), set()
        memset(&self.outgoing, 0, sizeof(self.outgoing))
        self.alarm_fd = gw_timer_open()
        self.on_alarm = self._ring
        if self.alarm_fd >= 0:
            loop.add_reader(self.alarm_fd, self.on_alarm)

    def __dealloc__(self):
        free(self.outgoing.data)
        gw_close(self.alarm_fd)

    def protocol(self):
        """A new Connection: the protocol factory."""
        return Connection(self)

    # --- turns -----------------------------------------------------------------------------------------------------------------

    cdef int schedule(self) except -1:
        if not self.has_turn:
            self.has_turn = True
            self.call_soon(self._turn)
        return 0

    def _turn(self):
        self.has_turn = False
        self.run_turn(monotonic_us())

    cdef int run_turn(self, int64_t now_us) except -1:
        self.n_turns += 1
        self.pump(now_us)
        self.flush_dirty()
        if self.pending:
            self.schedule()
        elif self.has_background():
            self.schedule_idle()
        self.arm()
        return 0

    cdef int schedule_idle(self) except -1:
        """A turn for shadow work, once the sockets have been asked and had nothing."""
        if not self.has_idle_turn:
            self.has_idle_turn = True
            self.n_turns_seen = self.n_turns
            self.call_soon(self._idle_turn)
        return 0

    def _idle_turn(self):
        self.has_idle_turn = False
        if self.is_draining or not self.has_background():
            return
        if not self.has_turn and not self.pending and self.n_turns == self.n_turns_seen:
            self.pump_background(monotonic_us())
            if self.dirty:
                self.flush_dirty()
            self.arm()
        if self.has_background():
            self.schedule_idle()

    cdef int flush_dirty(self) except -1:
        cdef Session session
        cdef list sessions
        while self.dirty:
            sessions = self.dirty[:]
            self.dirty.clear()
            for session in sessions:
                session.is_dirty = False
                if session.owner is None:
                    continue
                try:
                    (<Connection>session.owner).flush()
                except Exception as error:                    # one connection's trouble is not the others'
                    self.report(error)
                    (<Connection>session.owner).transport.abort()
        return 0

    def completed(self, Batch batch not None):
        """A batch came back from its executor."""
        cdef int64_t now_us = monotonic_us()
        (<Lane>batch.lane).complete(batch, now_us)
        self.run_turn(now_us)

    def submit(self, body, done, int64_t deadline_us=0, bytes trace=None, list parameters=None, dict headers=None):
        """infer() now, with a turn to follow."""
        exchange = self.infer(body, done, deadline_us, monotonic_us(), trace, parameters, headers)
        self.schedule()
        return exchange

    def wake(self):
        """Something outside changed calls (a handler sent a message): flush soon."""
        self.schedule()

    # --- the alarm -------------------------------------------------------------------------------------------------------------

    cdef int arm(self) except -1:
        """Ring when the next timer is due. Already set to ring earlier: it then finds nothing due and is set again."""
        cdef int64_t due_us = self.timers.next_due_us()
        if due_us == 0 or (self.timers.armed_us and self.timers.armed_us <= due_us):
            return 0
        self.timers.armed_us = due_us
        if self.alarm_fd >= 0:
            gw_timer_set(self.alarm_fd, due_us)
            return 0
        if self.alarm_handle is not None:
            self.alarm_handle.cancel()
        self.alarm_handle = self.loop.call_later(max(0, due_us - monotonic_us()) / 1e6, self.on_alarm)
        return 0

    def _ring(self):
        cdef int64_t now_us
        if self.alarm_fd >= 0:
            gw_timer_read(self.alarm_fd)
        self.timers.armed_us = 0
        now_us = monotonic_us()
        self.timers.run_due(now_us)
        self.serve_inbox(now_us)
        self.run_turn(now_us)

    # --- life cycle ------------------------------------------------------------------------------------------------------------

    def sweep(self):
        """Once a second: connections and messages that make no progress, memory that nobody needs."""
        cdef Connection connection
        cdef int64_t now_us = monotonic_us()
        trim_blocks()
        for connection in list(self.connections):
            connection.check_progress(now_us)
        self.serve_inbox(now_us)
        self.run_turn(now_us)

    def drain(self):
        """SIGTERM: finish what is open, take nothing new. Streams that wait for nothing are ended."""
        cdef Connection connection
        self.is_draining = True
        for connection in list(self.connections):
            connection.drain()
        self.serve_inbox(monotonic_us())
        self.run_turn(monotonic_us())

    def finish_drain(self):
        """A peer that did not answer the ping gets its final GOAWAY all the same."""
        cdef Connection connection
        for connection in list(self.connections):
            connection.session._final_goaway()
        self.run_turn(monotonic_us())

    def abort(self):
        """Close every connection now."""
        cdef Connection connection
        for connection in list(self.connections):
            connection.transport.abort()

    def close(self):
        """Give back what the loop holds."""
        if self.alarm_fd >= 0:
            self.loop.remove_reader(self.alarm_fd)
        if self.alarm_handle is not None:
            self.alarm_handle.cancel()

    @property
    def n_open_calls(self):
        """Calls open on all connections."""
        cdef Connection connection
        cdef int n = 0
        for connection in self.connections:
            n += connection.session.n_open
        return n


@cython.final
cdef class Connection:
    """asyncio.BufferedProtocol of one socket."""

    cdef Hub hub
    cdef object transport
    cdef Session session
    cdef int fd                                 # for direct writes; -1: through the transport (TLS)
    cdef bint is_paused, is_sniffed
    cdef bint is_turned_away                    # one connection too many; told once its protocol is known
    cdef bytes held                             # a first byte that does not tell yet
    cdef int64_t opened_us
    cdef object __weakref__

    def __cinit__(self, Hub hub not None):
        counters.count(counters.KIND_CONNECTION, 1)
        self.hub = hub
        self.fd = -1

    def __dealloc__(self):
        counters.count(counters.KIND_CONNECTION, -1)

    def connection_made(self, transport):
        cdef Hub hub = self.hub
        hub.n_accepted += 1
        self.transport = transport
        self.opened_us = monotonic_us()
        self.session = Session(hub.limits, hub.budget, hub.inbox, hub.dirty, hub.door)
        self.session.owner = self
        self.session.last_read_us = self.opened_us
        hub.connections.add(self)
        if transport.get_extra_info("ssl_object") is None:
            self.fd = transport.get_extra_info("socket").fileno()
        if len(hub.connections) + len(hub.http1_connections) > hub.max_connections:
            hub.n_rejected += 1
            if hub.n_turned_away < MAX_TURNED_AWAY:
                hub.n_turned_away += 1
                self.is_turned_away = True
                return                                        # its first bytes tell in which protocol it understands that
            self.session.refuse()
        elif hub.is_draining:
            self.session.drain()
            self.session._final_goaway()
        else:
            return                                            # our SETTINGS wait for the first bytes, which tell HTTP/2 from HTTP/1.1
        self.flush()

    def get_buffer(self, sizehint):
        return self.hub.buffer

    def buffer_updated(self, Py_ssize_t n):
        cdef Hub hub = self.hub
        cdef int64_t now_us = monotonic_us()
        cdef int status
        hub.bytes_in += n
        if not self.is_sniffed and not self._sniff(n, now_us):
            return
        status = self.session.feed(hub.received, n, now_us)
        if hub.inbox:
            hub.serve_inbox(now_us)
        if status != FEED_OK:
            self._give_up(status)
        if not hub.pending:
            if hub.dirty:
                hub.flush_dirty()
            hub.arm()
        elif len(hub.connections) == 1:
            hub.run_turn(now_us)
        else:
            hub.schedule()

    cdef bint _sniff(self, Py_ssize_t n, int64_t now_us) except -1:
        """Whether it is HTTP/2 and the bytes received are still to be fed. HTTP/2 begins "PRI", and no method of HTTP/1.1 begins "PR"
        but PROPFIND and its kin, which REST does not have."""
        cdef Hub hub = self.hub
        cdef bytes first = (<char*>hub.received)[:n] if self.held is None else self.held + (<char*>hub.received)[:n]
        if first == b"P":
            self.held = first
            return False
        self.is_sniffed = True
        if self.is_turned_away:
            hub.n_turned_away -= 1
        if first[:2] != b"PR" and hub.http1 is not None:
            self._hand_over(first)
            return False
        if self.held is not None:
            self.session.feed(<const uint8_t*><char*>self.held, len(self.held), now_us)
            self.held = None
        if self.is_turned_away:
            self.session.refuse()
        return True

    cdef int _hand_over(self, bytes first) except -1:
        """From here on it is HTTP/1.1: another protocol takes the transport."""
        cdef Hub hub = self.hub
        hub.connections.discard(self)
        self.fd = -1
        self.session.close()
        transport, self.transport = self.transport, None
        protocol = hub.http1(transport)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self.is_turned_away:
            protocol.refuse_connection(f"the server has {hub.max_connections} connections open, and takes no more (limits.max_connections)")
        else:
            protocol.data_received(first)
        return 0

    def eof_received(self):
        return False

    def pause_writing(self):
        self.is_paused = True

    def resume_writing(self):
        self.is_paused = False
        self.flush()

    def connection_lost(self, error):
        cdef Hub hub = self.hub
        self.fd = -1
        hub.connections.discard(self)
        if self.is_turned_away and not self.is_sniffed:
            hub.n_turned_away -= 1
        self.session.close()
        hub.serve_inbox(monotonic_us())
        hub.schedule()                                        # a lane may have lost its head, a stream its handler

    cdef int flush(self) except -1:
        """Pull what the session has and hand it to the socket, as long as that takes it."""
        cdef Hub hub = self.hub
        cdef int more = 1
        if self.session.session == NULL:
            return 0
        while more and not self.is_paused:
            hub.outgoing.length = 0
            more = self.session.pull(&hub.outgoing, FLUSH_HIGH_BYTES)
            if hub.outgoing.length == 0:
                break
            hub.bytes_out += hub.outgoing.length
            self.write(hub.outgoing.data, hub.outgoing.length)
        if not self.is_paused and self.session.is_finished():
            self.transport.close()
        return 0

    cdef int write(self, const uint8_t* data, size_t n) except -1:
        cdef Py_ssize_t sent = 0
        if self.fd >= 0 and not self.transport.is_closing() and self.transport.get_write_buffer_size() == 0:
            sent = send(self.fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent == <Py_ssize_t>n:
                return 0
            if sent < 0:
                sent = 0                                      # full, or broken: the transport finds out which
        self.transport.write((<const char*>data)[sent:n])
        return 0

    cdef int _give_up(self, int status) except -1:
        if status != FEED_NOT_HTTP2:
            self.flush()
        self.transport.close()
        return 0

    cdef int check_progress(self, int64_t now_us) except -1:
        cdef Session session = self.session
        cdef Call call = session.first, following
        cdef int64_t limit_us = self.hub.header_timeout_us
        if not session.has_preface and now_us - self.opened_us > limit_us:
            self.transport.abort()
            return 0
        if session.n_open == 0:
            if now_us - session.last_read_us > self.hub.idle_timeout_us:
                session.drain()
                session._final_goaway()
            return 0
        while call is not None:
            following = call.next
            if call.state == CALL_OPEN:
                if call.method == METHOD_NONE:
                    if now_us - call.began_us > limit_us:
                        self.transport.abort()
                        return 0
                elif call.incoming is not None and now_us - call.began_us > limit_us + <int64_t>(
                        call.incoming.charged * 1_000_000 // MIN_UPLOAD_BYTES_PER_S):
                    call.refuse(
                        DOOR_TOO_SLOW, DEADLINE_EXCEEDED,
                        f"the request message is too slow: {call.missing_bytes()} of {call.incoming.charged} bytes are still missing")
            elif call.out is None:
                call.stalled_us = 0
            elif call.stalled_us == 0:
                call.stalled_us = now_us
            elif now_us - call.stalled_us > self.hub.send_timeout_us:
                if self.is_paused:
                    self.transport.abort()                    # the socket itself takes nothing
                    return 0
                call.reset()
            call = following
        return 0

    cdef int drain(self) except -1:
        cdef Call call = self.session.first, following
        self.session.drain()
        while call is not None:
            following = call.next
            is_stream = call.method == METHOD_STREAM_INFER or call.method != METHOD_INFER and call.handler is not None
            waits = call.slots or call.messages or call.incoming is not None or call.n_relayed
            if is_stream and call.state <= CALL_SERVING and not waits:
                if call.handler is not None:
                    call.raise_event(EVENT_CLOSED)
                call.end(UNAVAILABLE, "the gateway is shutting down")
            call = following
        return 0
