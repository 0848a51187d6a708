"""Load over HTTP/1.1 without Python: one request at a time on each connection, in a closed loop or at planned times.

Knows of an answer what it needs to find its end: the status, Content-Length or chunks, and whether the connection closes.
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memchr, memcpy, memmove

from gateway.native.clock cimport monotonic_us
from gateway.native.loadresults cimport (
    LOSS_CLOSED, LOSS_SILENT, LOSS_STATUS, Results, answers_seen, close_results, counts_so_far, forget_results, keep_answer,
    note_answer, note_loss, open_results)

import numpy as np

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    short POLLIN, POLLOUT

cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL
    Py_ssize_t send(int, const void*, size_t, int)
    Py_ssize_t recv(int, void*, size_t, int)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char*, const char*, size_t)

# As in generator.pyx: poll(2) rounds to milliseconds, which is many requests.
cdef extern from *:
    """
    #include <poll.h>
    #include <time.h>
    static int gw_wait_http(struct pollfd *fds, unsigned long n, long long us) {
    #ifdef __linux__
        struct timespec t = {us / 1000000, (us % 1000000) * 1000};
        return ppoll(fds, n, &t, 0);
    #else
        return poll(fds, n, (int)((us + 999) / 1000));
    #endif
    }
    """
    int gw_wait_http(pollfd*, unsigned long, long long) nogil

cdef enum:
    READ_BYTES = 1 << 16
    MAX_HEAD_BYTES = 1 << 16            # of an answer; more is no answer

LOSSES = ("the stream was reset", "the connection ended", "no answer came", "the answer cannot be read")


cdef struct Link:             # one connection
    int fd                    # borrowed: Python closes the socket
    bint is_gone
    int place                 # among the busy ones
    int64_t due_us
    int32_t which             # request
    size_t sent               # of the request's bytes
    uint8_t* data             # owned, reused: the answer so far
    size_t n, room


cdef struct Load:
    Link* links
    int n_links, n_alive
    int* busy                 # owned: links with a request in flight, in no order
    int n_busy
    int* idle                 # owned: a ring, so that every connection gets its turn and none grows stale
    int idle_at, n_idle
    const uint8_t** requests  # borrowed
    size_t* request_lens
    int n_requests, next_request
    bint keeps_answers, is_ending
    const int64_t* plan       # due times from the start, ascending; NULL: closed loop
    int64_t n_plan, n_due, n_begun
    Results results


# --- reading an answer -------------------------------------------------------------------------------------------------------------

cdef int64_t _number(const uint8_t* data, size_t n, int base) noexcept nogil:
    """Leading digits after blanks; -1: none, or too many."""
    cdef int64_t value = 0
    cdef size_t i = 0, first
    cdef int digit
    while i < n and (data[i] == 32 or data[i] == 9):
        i += 1
    first = i
    while i < n:
        digit = data[i] - 48 if 48 <= data[i] <= 57 else (data[i] | 32) - 87 if base == 16 and 97 <= (data[i] | 32) <= 102 else -1
        if digit < 0:
            break
        value = value * base + digit
        if value > <int64_t>1 << 40:
            return -1
        i += 1
    return value if i > first else -1


cdef int _code(int64_t status) noexcept nogil:
    """The gRPC code that stands for an HTTP status, as Triton and the gateway pair them."""
    if 200 <= status < 300:
        return 0
    if status == 400 or status == 422:
        return 3
    if status == 404:
        return 5
    if status == 408 or status == 504:
        return 4
    if status == 429:
        return 8
    if status == 501:
        return 12
    if status == 503:
        return 14
    return 13 if status >= 500 else 2


cdef int64_t _line(const uint8_t* data, size_t n, size_t at) noexcept nogil:
    """Where the line that begins at `at` ends, before its CR LF; -1: not yet."""
    cdef const uint8_t* found = <const uint8_t*>memchr(data + at, 10, n - at) if at < n else NULL
    if found == NULL:
        return -1
    return found - data - 1 if found > data + at and (found - 1)[0] == 13 else found - data


cdef int _whole(Link* link, int* status, bint* closes, size_t* body_at, size_t* body_len) noexcept nogil:
    """1: the answer is complete, its body in one piece at `body_at`. 0: not yet. -1: it is none."""
    cdef size_t at = 0, to
    cdef int64_t end, length = -1, size
    cdef bint is_chunked = False
    cdef const char* line
    end = _line(link.data, link.n, 0)
    if end < 0:
        return -1 if link.n > MAX_HEAD_BYTES else 0
    if end < 12 or strncasecmp(<const char*>link.data, "HTTP/1.", 7):
        return -1
    size = _number(link.data + 8, 4, 10)
    if size < 100:
        return -1
    status[0] = _code(size)
    while True:
        at = end + (2 if link.data[end] == 13 else 1)
        end = _line(link.data, link.n, at)
        if end < 0:
            return -1 if link.n > MAX_HEAD_BYTES and length < 0 and not is_chunked else 0
        if <size_t>end == at:
            at = end + (2 if link.data[end] == 13 else 1)
            break
        line = <const char*>link.data + at
        if end - at > 15 and not strncasecmp(line, "content-length:", 15):
            length = _number(link.data + at + 15, end - at - 15, 10)
        elif end - at > 24 and not strncasecmp(line, "transfer-encoding:", 18):
            is_chunked = not strncasecmp(<const char*>link.data + end - 7, "chunked", 7)
        elif end - at > 15 and not strncasecmp(line, "connection:", 11):
            closes[0] = not strncasecmp(<const char*>link.data + end - 5, "close", 5)
    body_at[0] = at
    if not is_chunked:
        body_len[0] = <size_t>max(length, <int64_t>0)
        return -1 if length < 0 else 1 if link.n - at >= <size_t>length else 0
    # Twice over the chunks: first whether all are there, and only then are they moved together.
    to = at
    while True:
        end = _line(link.data, link.n, to)
        if end < 0:
            return 0
        size = _number(link.data + to, end - to, 16)
        if size < 0:
            return -1
        to = end + (2 if link.data[end] == 13 else 1)
        if link.n < to + size + 2:
            return 0
        to += size + 2
        if size == 0:
            break
    to = at
    body_len[0] = 0
    while True:
        end = _line(link.data, link.n, to)
        size = _number(link.data + to, end - to, 16)
        to = end + (2 if link.data[end] == 13 else 1)
        if size == 0:
            return 1
        memmove(link.data + at + body_len[0], link.data + to, size)
        body_len[0] += size
        to += size + 2


# --- one request -------------------------------------------------------------------------------------------------------------------

cdef void _end(Load* load, Link* link, int status, int loss, bint is_gone) noexcept nogil:
    """The request is over: answered when `loss` is -1."""
    cdef int index = <int>(link - load.links)
    if loss >= 0:
        note_loss(&load.results, loss)
    else:
        note_answer(&load.results, status, monotonic_us() - link.due_us)
    load.n_busy -= 1
    load.busy[link.place] = load.busy[load.n_busy]
    load.links[load.busy[link.place]].place = link.place
    if is_gone:
        link.is_gone = True
        load.n_alive -= 1
    else:
        load.idle[(load.idle_at + load.n_idle) % load.n_links] = index
        load.n_idle += 1


cdef bint _write(Load* load, Link* link) noexcept nogil:
    """Whether the socket takes no more for now."""
    cdef Py_ssize_t n
    while link.sent < load.request_lens[link.which]:
        n = send(link.fd, load.requests[link.which] + link.sent, load.request_lens[link.which] - link.sent, MSG_NOSIGNAL)
        if n < 0:
            if errno == EINTR:
                continue
            return errno == EAGAIN        # any other fault shows when the answer is read
        link.sent += n
        load.results.bytes_out += n
    return False


cdef void _begin(Load* load, int64_t due_us) noexcept nogil:
    cdef Link* link = &load.links[load.idle[load.idle_at]]
    load.idle_at = (load.idle_at + 1) % load.n_links
    load.n_idle -= 1
    link.place = load.n_busy
    load.busy[load.n_busy] = <int>(link - load.links)
    load.n_busy += 1
    link.which, link.due_us, link.sent, link.n = load.next_request, due_us, 0, 0
    load.next_request = load.next_request + 1 if load.next_request + 1 < load.n_requests else 0
    load.n_begun += 1
    _write(load, link)


cdef void _read(Load* load, Link* link) noexcept nogil:
    cdef Py_ssize_t n
    cdef uint8_t* grown
    cdef int found, status = 2
    cdef bint closes = False
    cdef size_t body_at = 0, body_len = 0
    if link.room - link.n < READ_BYTES:
        grown = <uint8_t*>realloc(link.data, 2 * link.room + READ_BYTES)
        if grown == NULL:
            load.results.error = -1
            return
        link.data = grown
        link.room = 2 * link.room + READ_BYTES
    n = recv(link.fd, link.data + link.n, link.room - link.n, 0)
    if n < 0 and (errno == EINTR or errno == EAGAIN):
        return
    if n <= 0:
        _end(load, link, 0, LOSS_CLOSED, True)
        return
    link.n += n
    load.results.bytes_in += n
    found = _whole(link, &status, &closes, &body_at, &body_len)
    if found < 0:
        _end(load, link, 0, LOSS_STATUS, True)
    elif found:
        if status == 0 and load.keeps_answers:
            keep_answer(&load.results, link.which, link.data + body_at, body_len)
        _end(load, link, status, -1, closes)


# --- the loop ----------------------------------------------------------------------------------------------------------------------

cdef void _feed(Load* load, int64_t start_us, int64_t now_us) noexcept nogil:
    """Begin what is due: on every idle connection in a closed loop, the planned ones in an open one."""
    if load.is_ending:
        return
    if load.plan == NULL:
        while load.n_idle:
            _begin(load, now_us)
        return
    while load.n_due < load.n_plan and load.plan[load.n_due] <= now_us - start_us:
        load.n_due += 1
    while load.n_begun < load.n_due and load.n_idle:
        load.results.late_max_us = max(load.results.late_max_us, now_us - start_us - load.plan[load.n_begun])
        _begin(load, start_us + load.plan[load.n_begun])


cdef void _drive(Load* load, pollfd* fds, int64_t start_us, int64_t until_us) noexcept nogil:
    """Run until then, or until nothing is left to do."""
    cdef int i, n
    cdef int64_t now_us, wait_us
    cdef Link* link
    while True:
        now_us = monotonic_us()
        if now_us >= until_us:
            return
        _feed(load, start_us, now_us)
        n = load.n_busy
        if load.n_alive == 0 or load.results.error or n == 0 and (
                load.is_ending or load.plan != NULL and load.n_begun == load.n_plan):
            return
        for i in range(n):
            link = &load.links[load.busy[i]]
            fds[i].fd, fds[i].events = link.fd, POLLIN
            if link.sent < load.request_lens[link.which]:
                fds[i].events |= POLLOUT
        wait_us = until_us - now_us
        if load.plan != NULL and not load.is_ending and load.n_due < load.n_plan:
            wait_us = min(wait_us, load.plan[load.n_due] - (now_us - start_us))
        if gw_wait_http(fds, n, max(wait_us, <int64_t>0)) <= 0:
            continue
        for i in range(n - 1, -1, -1):            # downwards: one that ends is replaced by one that was seen already
            link = &load.links[load.busy[i]]
            if fds[i].revents & POLLOUT:
                _write(load, link)
            if fds[i].revents & ~POLLOUT:
                _read(load, link)


cdef class HttpGenerator:
    """HttpGenerator(sockets, requests, plan_us=None, keep_answers=True).

    sockets: connected, non-blocking; the caller closes them in the end. requests: whole HTTP/1.1 requests, sent in turn. plan_us: when each
    request is due, microseconds from the first step, ascending int64 array; None: a closed loop. Statuses are told as gRPC codes.
    """
    cdef Load load
    cdef list keep
    cdef pollfd* fds
    cdef int64_t start_us
    cdef object plan

    def __cinit__(self, list sockets not None, list requests not None, plan_us=None, bint keep_answers=True):
        cdef Load* load = &self.load
        cdef int i
        cdef bytes piece
        cdef const int64_t[::1] plan
        if not sockets or not requests:
            raise ValueError("expected sockets and requests")
        self.keep = [list(requests), list(sockets)]
        load.n_links = load.n_alive = load.n_idle = len(sockets)
        load.n_requests, load.keeps_answers = len(requests), keep_answers
        load.links = <Link*>calloc(load.n_links, sizeof(Link))
        load.busy = <int*>calloc(load.n_links, sizeof(int))
        load.idle = <int*>calloc(load.n_links, sizeof(int))
        load.requests = <const uint8_t**>calloc(load.n_requests, sizeof(void*))
        load.request_lens = <size_t*>calloc(load.n_requests, sizeof(size_t))
        self.fds = <pollfd*>calloc(load.n_links, sizeof(pollfd))
        if (open_results(&load.results) or load.links == NULL or load.busy == NULL or load.idle == NULL or load.requests == NULL
                or load.request_lens == NULL or self.fds == NULL):
            raise MemoryError("no memory for a load generator")
        for i in range(load.n_links):
            load.links[i].fd = sockets[i].fileno()
            load.idle[i] = i
        for i in range(load.n_requests):
            piece = requests[i]
            load.requests[i], load.request_lens[i] = <const uint8_t*><char*>piece, len(piece)
        if plan_us is not None:
            self.plan = plan_us = np.ascontiguousarray(plan_us, np.int64)
            if not len(plan_us):
                raise ValueError("plan_us is empty")
            plan = plan_us
            load.n_plan, load.plan = plan.shape[0], &plan[0]

    def __dealloc__(self):
        cdef int i
        for i in range(self.load.n_links if self.load.links != NULL else 0):
            free(self.load.links[i].data)
        close_results(&self.load.results)
        free(self.load.links)
        free(self.load.busy)
        free(self.load.idle)
        free(<void*>self.load.requests)
        free(self.load.request_lens)
        free(self.fds)

    def step(self, double seconds):
        """Drive for so long, or until there is nothing to do: the plan is through, or all connections are gone."""
        cdef int64_t until_us = monotonic_us() + <int64_t>(seconds * 1e6)
        if self.start_us == 0:
            self.start_us = monotonic_us()
        with nogil:
            _drive(&self.load, self.fds, self.start_us, until_us)
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
        while self.load.n_busy:
            _end(&self.load, &self.load.links[self.load.busy[0]], 0, LOSS_SILENT, True)

    @property
    def n_open(self):
        """Requests in flight."""
        return self.load.n_busy

    @property
    def n_done(self):
        return self.load.results.n_done

    @property
    def n_waiting(self):
        """Planned requests that are due and could not begin, because every connection is busy."""
        return self.load.n_due - self.load.n_begun if self.load.plan != NULL else 0

    @property
    def n_alive(self):
        """Connections that still work."""
        return self.load.n_alive

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
        """(index of the request, the body, how often) of each different answer that came with a status of success."""
        return answers_seen(&self.load.results)

    def counts(self):
        """So far: statuses by gRPC code, losses by reason, bytes, answers that were not kept, the generator's own lateness."""
        return counts_so_far(&self.load.results, LOSSES)
