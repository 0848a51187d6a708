"""Load over HTTP/2 without Python: a client session of nghttp2 on each connection, poll(2), and arrays of results."""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove

from gateway.native.clock cimport monotonic_us
from gateway.native.cnghttp2 cimport (
    NGHTTP2_DATA_FLAG_EOF, NGHTTP2_ERR_CALLBACK_FAILURE, NGHTTP2_FLAG_NONE, NGHTTP2_NO_ERROR, NGHTTP2_NV_FLAG_NO_COPY_NAME,
    NGHTTP2_NV_FLAG_NO_COPY_VALUE, NGHTTP2_SETTINGS_ENABLE_PUSH, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
    NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, nghttp2_data_provider, nghttp2_data_source, nghttp2_frame, nghttp2_nv, nghttp2_option,
    nghttp2_option_del, nghttp2_option_new, nghttp2_option_set_no_closed_streams, nghttp2_option_set_peer_max_concurrent_streams,
    nghttp2_session, nghttp2_session_callbacks, nghttp2_session_callbacks_del, nghttp2_session_callbacks_new,
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback, nghttp2_session_callbacks_set_on_header_callback,
    nghttp2_session_callbacks_set_on_stream_close_callback, nghttp2_session_client_new2, nghttp2_session_del,
    nghttp2_session_get_remote_settings, nghttp2_session_get_stream_user_data, nghttp2_session_mem_recv, nghttp2_session_mem_send,
    nghttp2_session_set_local_window_size, nghttp2_session_want_read, nghttp2_session_want_write, nghttp2_settings_entry,
    nghttp2_submit_request, nghttp2_submit_settings, ssize_t)

from gateway.native.loadresults cimport (
    LOSS_CLOSED, LOSS_RESET, LOSS_SILENT, LOSS_STATUS, STATUS_NONE, answers_seen, close_results, counts_so_far, forget_results,
    keep_answer, note_answer, note_loss, open_results)

import numpy as np

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    short POLLIN, POLLOUT

cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL
    ssize_t send(int, const void*, size_t, int)
    ssize_t recv(int, void*, size_t, int)

# poll(2) rounds to milliseconds, which is a hundred requests; where there is ppoll, it waits to the microsecond.
cdef extern from *:
    """
    #include <poll.h>
    #include <time.h>
    static int gw_wait(struct pollfd *fds, unsigned long n, long long us) {
    #ifdef __linux__
        struct timespec t = {us / 1000000, (us % 1000000) * 1000};
        return ppoll(fds, n, &t, 0);
    #else
        return poll(fds, n, (int)((us + 999) / 1000));
    #endif
    }
    """
    int gw_wait(pollfd*, unsigned long, long long) nogil

cdef enum:
    WINDOW_BYTES = 1 << 30              # of a stream and of the connection: the server alone sets the pace
    N_HEADERS = 7
    MAX_READS = 8                       # of one socket before the others get their turn

LOSSES = ("the stream was reset", "the connection ended", "no answer came", "the answer has no grpc-status")


# --- one request -------------------------------------------------------------------------------------------------------------------

cdef ssize_t _on_read(nghttp2_session* session, int32_t stream_id, uint8_t* to, size_t room, uint32_t* flags,
                      nghttp2_data_source* source, void* user) noexcept nogil:
    cdef Load* load = <Load*>(<Peer*>user).load
    cdef Slot* slot = <Slot*>source.ptr
    cdef size_t n = min(load.request_lens[slot.which] - slot.sent, room)
    memcpy(to, load.requests[slot.which] + slot.sent, n)
    slot.sent += n
    if slot.sent == load.request_lens[slot.which]:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF
    return <ssize_t>n


cdef int _begin(Load* load, Peer* peer, const nghttp2_nv* headers, int64_t due_us) noexcept nogil:
    """Submit the next request on this connection; -1: no memory, or the session takes no more."""
    cdef Slot* slot = load.idle
    cdef nghttp2_data_provider provider
    if slot == NULL:
        return -1
    slot.which = load.next_request
    slot.due_us, slot.status, slot.sent, slot.answer_len = due_us, STATUS_NONE, 0, 0
    provider.source.ptr = slot
    provider.read_callback = _on_read
    slot.stream_id = nghttp2_submit_request(peer.session, NULL, headers, N_HEADERS, &provider, slot)
    if slot.stream_id < 0:
        return -1
    load.idle = slot.next
    slot.previous, slot.next = NULL, peer.open
    if peer.open != NULL:
        peer.open.previous = slot
    peer.open = slot
    load.next_request = load.next_request + 1 if load.next_request + 1 < load.n_requests else 0
    peer.n_open += 1
    load.n_open += 1
    return 0


cdef void _end(Load* load, Peer* peer, Slot* slot, int loss) noexcept nogil:
    """The request is over: answered when `loss` is -1."""
    cdef int64_t took_us = monotonic_us() - slot.due_us
    if slot.previous != NULL:
        slot.previous.next = slot.next
    else:
        peer.open = slot.next
    if slot.next != NULL:
        slot.next.previous = slot.previous
    slot.next = load.idle
    load.idle = slot
    peer.n_open -= 1
    load.n_open -= 1
    if loss < 0 and slot.status == STATUS_NONE:
        loss = LOSS_STATUS
    if loss >= 0:
        note_loss(&load.results, loss)
        return
    if slot.status == 0 and load.keeps_answers:
        keep_answer(&load.results, slot.which, slot.answer, slot.answer_len)
    note_answer(&load.results, slot.status, took_us)


# --- nghttp2's callbacks -----------------------------------------------------------------------------------------------------------

cdef int _on_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_len, const uint8_t* value,
                    size_t value_len, uint8_t flags, void* user) noexcept nogil:
    cdef Slot* slot
    if name_len == 11 and memcmp(name, b"grpc-status", 11) == 0 and 1 <= value_len <= 2:
        slot = <Slot*>nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
        if slot != NULL:
            slot.status = value[0] - 48 if value_len == 1 else (value[0] - 48) * 10 + value[1] - 48
            if not 0 <= slot.status < STATUS_NONE:
                slot.status = 2                               # UNKNOWN
    return 0


cdef int _on_data(nghttp2_session* session, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t n, void* user) noexcept nogil:
    cdef Load* load = <Load*>(<Peer*>user).load
    cdef Slot* slot = <Slot*>nghttp2_session_get_stream_user_data(session, stream_id)
    cdef uint8_t* grown
    if slot == NULL or not load.keeps_answers:
        return 0
    if slot.answer_len + n > slot.answer_room:
        grown = <uint8_t*>realloc(slot.answer, 2 * (slot.answer_len + n))
        if grown == NULL:
            return NGHTTP2_ERR_CALLBACK_FAILURE
        slot.answer = grown
        slot.answer_room = 2 * (slot.answer_len + n)
    memcpy(slot.answer + slot.answer_len, data, n)
    slot.answer_len += n
    return 0


cdef int _on_close(nghttp2_session* session, int32_t stream_id, uint32_t code, void* user) noexcept nogil:
    cdef Peer* peer = <Peer*>user
    cdef Slot* slot = <Slot*>nghttp2_session_get_stream_user_data(session, stream_id)
    # A server may reset with NO_ERROR after its status, when it needs no more of the request.
    if slot != NULL:
        _end(<Load*>peer.load, peer, slot, -1 if code == NGHTTP2_NO_ERROR or slot.status != STATUS_NONE else LOSS_RESET)
    return 0


# --- one connection ----------------------------------------------------------------------------------------------------------------

cdef void _lose(Load* load, Peer* peer, int loss) noexcept nogil:
    peer.is_gone = True
    while peer.open != NULL:
        _end(load, peer, peer.open, loss)


cdef int _flush(Load* load, Peer* peer) noexcept nogil:
    """Write what the session has; 1 when the socket takes no more."""
    cdef const uint8_t* data
    cdef ssize_t n, written
    while True:
        while peer.out_len - peer.out_at < OUT_BYTES // 2:    # a chunk is at most a frame, 16 kB and its head
            if peer.out_at:
                memmove(peer.out, peer.out + peer.out_at, peer.out_len - peer.out_at)
                peer.out_len -= peer.out_at
                peer.out_at = 0
            n = nghttp2_session_mem_send(peer.session, &data)
            if n < 0:
                _lose(load, peer, LOSS_CLOSED)
                return 0
            if n == 0:
                break
            memcpy(peer.out + peer.out_len, data, n)
            peer.out_len += n
        if peer.out_at == peer.out_len:
            return 0
        written = send(peer.fd, peer.out + peer.out_at, peer.out_len - peer.out_at, MSG_NOSIGNAL)
        if written < 0:
            if errno == EAGAIN:
                return 1
            if errno == EINTR:
                continue
            _lose(load, peer, LOSS_CLOSED)
            return 0
        load.results.bytes_out += written
        peer.out_at += written


cdef void _read(Load* load, Peer* peer, uint8_t* buffer) noexcept nogil:
    cdef ssize_t n
    cdef int _read_number
    for _read_number in range(MAX_READS):
        n = recv(peer.fd, buffer, IN_BYTES, 0)
        if n < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                _lose(load, peer, LOSS_CLOSED)
            return
        if n == 0:
            _lose(load, peer, LOSS_CLOSED)
            return
        load.results.bytes_in += n
        if nghttp2_session_mem_recv(peer.session, buffer, n) != n:
            _lose(load, peer, LOSS_CLOSED)
            return
        if n < IN_BYTES:
            return


# --- the loop ----------------------------------------------------------------------------------------------------------------------

cdef int _room(Load* load, Peer* peer) noexcept nogil:
    """How many more requests it may have in flight."""
    cdef int64_t allowed = nghttp2_session_get_remote_settings(peer.session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
    return 0 if peer.is_gone else <int>max(<int64_t>0, min(<int64_t>load.max_streams, allowed) - peer.n_open)


cdef void _feed(Load* load, const nghttp2_nv* headers, int64_t start_us, int64_t now_us) noexcept nogil:
    """Begin what is due: all that fits in a closed loop, the planned ones in an open one."""
    cdef int i, _tried
    cdef Peer* peer
    if load.is_ending:
        return
    if load.plan == NULL:
        for i in range(load.n_peers):
            while _room(load, &load.peers[i]):
                if _begin(load, &load.peers[i], headers, now_us) < 0:
                    break
                load.n_begun += 1
        return
    while load.n_due < load.n_plan and load.plan[load.n_due] <= now_us - start_us:
        load.n_due += 1
    while load.n_begun < load.n_due:
        for _tried in range(load.n_peers):
            peer = &load.peers[load.next_peer]
            load.next_peer = load.next_peer + 1 if load.next_peer + 1 < load.n_peers else 0
            if _room(load, peer):
                break
        else:
            return                                            # all are full: it waits, and its latency grows
        if _begin(load, peer, headers, start_us + load.plan[load.n_begun]) < 0:
            return
        load.results.late_max_us = max(load.results.late_max_us, now_us - start_us - load.plan[load.n_begun])
        load.n_begun += 1


cdef void _drive(Load* load, const nghttp2_nv* headers, pollfd* fds, uint8_t* buffer, int64_t start_us, int64_t until_us) noexcept nogil:
    """Run until then, or until nothing is left to do."""
    cdef int i, n_alive, ready
    cdef int64_t now_us, wait_us
    while True:
        now_us = monotonic_us()
        if now_us >= until_us:
            return
        _feed(load, headers, start_us, now_us)
        n_alive = 0
        for i in range(load.n_peers):
            fds[i].fd = -1
            if load.peers[i].is_gone:
                continue
            fds[i].events = POLLIN
            if _flush(load, &load.peers[i]):
                fds[i].events |= POLLOUT
            elif not (nghttp2_session_want_read(load.peers[i].session) or nghttp2_session_want_write(load.peers[i].session)):
                _lose(load, &load.peers[i], LOSS_CLOSED)      # GOAWAY from either side, and nothing left to say
            if not load.peers[i].is_gone:
                fds[i].fd = load.peers[i].fd
                n_alive += 1
        if n_alive == 0 or load.results.error or load.n_open == 0 and (
                load.is_ending or load.plan != NULL and load.n_begun == load.n_plan):
            return
        wait_us = until_us - now_us
        if load.plan != NULL and not load.is_ending and load.n_due < load.n_plan:
            wait_us = min(wait_us, load.plan[load.n_due] - (now_us - start_us))
        ready = gw_wait(fds, load.n_peers, max(wait_us, <int64_t>0))
        if ready <= 0:
            continue
        for i in range(load.n_peers):
            if fds[i].fd >= 0 and fds[i].revents & ~POLLOUT:
                _read(load, &load.peers[i], buffer)


cdef class Generator:
    """Generator(sockets, requests, headers, streams, plan_us=None, keep_answers=True).

    sockets: connected, non-blocking; the caller closes them after `close`. requests: framed gRPC messages, sent in turn. headers: (name,
    value) byte pairs, seven of them: method, scheme, authority, path, content-type, te, user-agent. plan_us: when each request is due,
    microseconds from the first step, ascending int64 array; None: a closed loop.
    """
    cdef Load load
    cdef nghttp2_nv headers[N_HEADERS]
    cdef list keep
    cdef pollfd* fds
    cdef uint8_t* buffer
    cdef int64_t start_us
    cdef object plan

    def __cinit__(self, list sockets not None, list requests not None, list headers not None, int streams, plan_us=None,
                  bint keep_answers=True):
        cdef Load* load = &self.load
        cdef int i
        cdef bytes piece, value
        cdef const int64_t[::1] plan
        if not sockets or not requests or len(headers) != N_HEADERS or streams < 1:
            raise ValueError(f"expected sockets, requests, {N_HEADERS} headers and streams >= 1")
        self.keep = [list(requests), list(headers), list(sockets)]
        load.n_peers, load.n_requests, load.max_streams, load.keeps_answers = len(sockets), len(requests), streams, keep_answers
        load.peers = <Peer*>calloc(load.n_peers, sizeof(Peer))
        load.slots = <Slot*>calloc(<size_t>load.n_peers * streams, sizeof(Slot))
        load.requests = <const uint8_t**>calloc(load.n_requests, sizeof(void*))
        load.request_lens = <size_t*>calloc(load.n_requests, sizeof(size_t))
        self.fds = <pollfd*>calloc(load.n_peers, sizeof(pollfd))
        self.buffer = <uint8_t*>malloc(IN_BYTES)
        if (open_results(&load.results) or load.peers == NULL or load.slots == NULL or load.requests == NULL or load.request_lens == NULL
                or self.fds == NULL or self.buffer == NULL):
            raise MemoryError("no memory for a load generator")
        for i in range(load.n_peers * streams):
            load.slots[i].next = load.idle
            load.idle = &load.slots[i]
        for i in range(load.n_requests):
            piece = requests[i]
            load.requests[i], load.request_lens[i] = <const uint8_t*><char*>piece, len(piece)
        for i in range(N_HEADERS):
            piece, value = headers[i]
            self.headers[i].name, self.headers[i].namelen = <uint8_t*><char*>piece, len(piece)
            self.headers[i].value, self.headers[i].valuelen = <uint8_t*><char*>value, len(value)
            self.headers[i].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE
        if plan_us is not None:
            self.plan = plan_us = np.ascontiguousarray(plan_us, np.int64)
            plan = plan_us
            load.n_plan = plan.shape[0]
            load.plan = &plan[0] if load.n_plan else NULL
            if load.plan == NULL:
                raise ValueError("plan_us is empty")
        for i in range(load.n_peers):
            self._open(&load.peers[i], sockets[i].fileno())

    cdef int _open(self, Peer* peer, int fd) except -1:
        cdef nghttp2_session_callbacks* callbacks = NULL
        cdef nghttp2_option* option = NULL
        cdef nghttp2_settings_entry settings[2]
        cdef int failed
        peer.fd, peer.load = fd, &self.load
        peer.out = <uint8_t*>malloc(2 * OUT_BYTES)
        if peer.out == NULL or nghttp2_session_callbacks_new(&callbacks) or nghttp2_option_new(&option):
            nghttp2_session_callbacks_del(callbacks)
            raise MemoryError("no memory for a session")
        nghttp2_session_callbacks_set_on_header_callback(callbacks, _on_header)
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, _on_data)
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, _on_close)
        nghttp2_option_set_no_closed_streams(option, 1)
        nghttp2_option_set_peer_max_concurrent_streams(option, 100)
        failed = nghttp2_session_client_new2(&peer.session, callbacks, peer, option)
        nghttp2_session_callbacks_del(callbacks)
        nghttp2_option_del(option)
        if failed:
            raise MemoryError("no memory for a session")
        settings[0].settings_id, settings[0].value = NGHTTP2_SETTINGS_ENABLE_PUSH, 0
        settings[1].settings_id, settings[1].value = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES
        if (nghttp2_submit_settings(peer.session, NGHTTP2_FLAG_NONE, settings, 2)
                or nghttp2_session_set_local_window_size(peer.session, NGHTTP2_FLAG_NONE, 0, WINDOW_BYTES)):
            raise MemoryError("no memory for a session")
        return 0

    def __dealloc__(self):
        cdef int i
        for i in range(self.load.n_peers if self.load.peers != NULL else 0):
            nghttp2_session_del(self.load.peers[i].session)
            free(self.load.peers[i].out)
        for i in range(self.load.n_peers * self.load.max_streams if self.load.slots != NULL else 0):
            free(self.load.slots[i].answer)
        close_results(&self.load.results)
        free(self.load.peers)
        free(self.load.slots)
        free(<void*>self.load.requests)
        free(self.load.request_lens)
        free(self.fds)
        free(self.buffer)

    def step(self, double seconds):
        """Drive for so long, or until there is nothing to do: the plan is through, or all connections are gone."""
        cdef int64_t until_us = monotonic_us() + <int64_t>(seconds * 1e6)
        if self.start_us == 0:
            self.start_us = monotonic_us()
        with nogil:
            _drive(&self.load, self.headers, self.fds, self.buffer, self.start_us, until_us)
        if self.load.results.error:
            raise MemoryError("no memory for more results")

    def restart(self):
        """Forget what was counted: the warm-up is over. What is in flight will count."""
        forget_results(&self.load.results)

    def end(self):
        """Begin no more; `step` waits for what is in flight."""
        self.load.is_ending = True

    def give_up(self):
        """What is still in flight is lost."""
        cdef int i
        for i in range(self.load.n_peers):
            _lose(&self.load, &self.load.peers[i], LOSS_SILENT)

    @property
    def n_open(self):
        """Requests in flight."""
        return self.load.n_open

    @property
    def n_done(self):
        return self.load.results.n_done

    @property
    def n_waiting(self):
        """Planned requests that are due and could not begin, because every connection is full."""
        return self.load.n_due - self.load.n_begun if self.load.plan != NULL else 0

    @property
    def n_alive(self):
        """Connections that still work."""
        return sum([not self.load.peers[i].is_gone for i in range(self.load.n_peers)])

    @property
    def latencies_us(self):
        """Of every request that brought a status, in the order of their ends: a copy, uint32."""
        cdef uint32_t[::1] to
        result = np.empty(self.load.results.n_latencies, np.uint32)
        if self.load.results.n_latencies:
            to = result
            memcpy(&to[0], self.load.results.latencies, self.load.results.n_latencies * sizeof(uint32_t))
        return result

    @property
    def answers(self):
        """(index of the request, the framed answer, how often) of each different answer that came with OK."""
        return answers_seen(&self.load.results)

    def counts(self):
        """So far: statuses by gRPC code, losses by reason, bytes, answers that were not kept, the generator's own lateness."""
        return counts_so_far(&self.load.results, LOSSES)
