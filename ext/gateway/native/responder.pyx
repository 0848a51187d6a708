"""The other end of a generator that measures itself: answers every gRPC call with the same bytes, and does nothing else.

What a generator reaches against it is what generator, kernel and HTTP/2 can do here; no server that works for its answer can be faster.
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove

from gateway.native.cnghttp2 cimport (
    NGHTTP2_DATA_FLAG_EOF, NGHTTP2_DATA_FLAG_NO_END_STREAM, NGHTTP2_FLAG_END_STREAM, NGHTTP2_FLAG_NONE,
    NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, nghttp2_data_provider, nghttp2_data_source,
    nghttp2_frame, nghttp2_nv, nghttp2_option, nghttp2_option_del, nghttp2_option_new, nghttp2_option_set_no_closed_streams,
    nghttp2_session, nghttp2_session_callbacks, nghttp2_session_callbacks_del, nghttp2_session_callbacks_new,
    nghttp2_session_callbacks_set_on_frame_recv_callback, nghttp2_session_del, nghttp2_session_get_stream_user_data,
    nghttp2_session_mem_recv, nghttp2_session_mem_send, nghttp2_session_server_new2, nghttp2_session_set_local_window_size,
    nghttp2_session_set_stream_user_data, nghttp2_session_want_read, nghttp2_session_want_write, nghttp2_settings_entry,
    nghttp2_submit_response, nghttp2_submit_settings, nghttp2_submit_trailer, ssize_t)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    short POLLIN, POLLOUT
    int poll(pollfd*, unsigned long, int)

cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL
    ssize_t send(int, const void*, size_t, int)
    ssize_t recv(int, void*, size_t, int)

cdef enum:
    WINDOW_BYTES = 1 << 30
    BUFFER_BYTES = 1 << 17
    MAX_STREAMS = 1 << 16


cdef struct Reply:            # what every call gets; borrowed from the Responder
    const uint8_t* data
    size_t length
    nghttp2_nv head[2]
    nghttp2_nv tail[1]


cdef struct Link:             # one connection
    int fd
    nghttp2_session* session
    Reply* reply
    uint8_t* out
    size_t out_len, out_at
    bint is_gone


cdef nghttp2_nv nv(bytes name, bytes value):
    cdef nghttp2_nv pair
    pair.name, pair.namelen = <uint8_t*><char*>name, len(name)
    pair.value, pair.valuelen = <uint8_t*><char*>value, len(value)
    pair.flags = 0
    return pair


cdef class Responder:
    """Responder(sockets, answer): connected, non-blocking sockets, and the framed gRPC message that every call gets. `run` returns when all
    of them are closed."""
    cdef Link* links
    cdef int n_links
    cdef bytes answer
    cdef list sockets
    cdef list names
    cdef Reply reply
    cdef pollfd* fds
    cdef uint8_t* buffer

    def __cinit__(self, list sockets not None, bytes answer not None):
        cdef int i
        self.sockets, self.answer, self.n_links = sockets, answer, len(sockets)
        self.reply.data, self.reply.length = <const uint8_t*><char*>answer, len(answer)
        self.names = [b":status", b"200", b"content-type", b"application/grpc", b"grpc-status", b"0"]
        self.reply.head[0], self.reply.head[1] = nv(self.names[0], self.names[1]), nv(self.names[2], self.names[3])
        self.reply.tail[0] = nv(self.names[4], self.names[5])
        self.links = <Link*>calloc(self.n_links, sizeof(Link))
        self.fds = <pollfd*>calloc(self.n_links, sizeof(pollfd))
        self.buffer = <uint8_t*>malloc(BUFFER_BYTES)
        if self.links == NULL or self.fds == NULL or self.buffer == NULL:
            raise MemoryError("no memory for a responder")
        for i in range(self.n_links):
            self._open(&self.links[i], sockets[i].fileno())

    cdef int _open(self, Link* link, int fd) except -1:
        cdef nghttp2_session_callbacks* callbacks = NULL
        cdef nghttp2_option* option = NULL
        cdef nghttp2_settings_entry settings[2]
        link.fd, link.reply = fd, &self.reply
        link.out = <uint8_t*>malloc(2 * BUFFER_BYTES)
        if link.out == NULL or nghttp2_session_callbacks_new(&callbacks) or nghttp2_option_new(&option):
            nghttp2_session_callbacks_del(callbacks)
            raise MemoryError("no memory for a session")
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, _on_frame)
        nghttp2_option_set_no_closed_streams(option, 1)
        failed = nghttp2_session_server_new2(&link.session, callbacks, link, option)
        nghttp2_session_callbacks_del(callbacks)
        nghttp2_option_del(option)
        if failed:
            raise MemoryError("no memory for a session")
        settings[0].settings_id, settings[0].value = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, MAX_STREAMS
        settings[1].settings_id, settings[1].value = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES
        if (nghttp2_submit_settings(link.session, NGHTTP2_FLAG_NONE, settings, 2)
                or nghttp2_session_set_local_window_size(link.session, NGHTTP2_FLAG_NONE, 0, WINDOW_BYTES)):
            raise MemoryError("no memory for a session")
        return 0

    def __dealloc__(self):
        cdef int i
        for i in range(self.n_links if self.links != NULL else 0):
            nghttp2_session_del(self.links[i].session)
            free(self.links[i].out)
        free(self.links)
        free(self.fds)
        free(self.buffer)

    def run(self):
        """Answer until every connection is closed by the other side."""
        with nogil:
            self._run()

    cdef void _run(self) noexcept nogil:
        cdef int i, n_alive
        cdef Link* link
        while True:
            n_alive = 0
            for i in range(self.n_links):
                link = &self.links[i]
                self.fds[i].fd, self.fds[i].events = -1, POLLIN
                if link.is_gone:
                    continue
                if _flush(link):
                    self.fds[i].events |= POLLOUT
                if not link.is_gone:
                    self.fds[i].fd = link.fd
                    n_alive += 1
            if n_alive == 0:
                return
            if poll(self.fds, self.n_links, -1) <= 0:
                continue
            for i in range(self.n_links):
                if self.fds[i].fd >= 0 and self.fds[i].revents & ~POLLOUT:
                    _read(&self.links[i], self.buffer)


cdef ssize_t _on_read(nghttp2_session* session, int32_t stream_id, uint8_t* to, size_t room, uint32_t* flags,
                      nghttp2_data_source* source, void* user) noexcept nogil:
    cdef const Reply* reply = (<Link*>user).reply
    cdef size_t sent = <size_t>nghttp2_session_get_stream_user_data(session, stream_id)
    cdef size_t n = min(reply.length - sent, room)
    memcpy(to, reply.data + sent, n)
    sent += n
    nghttp2_session_set_stream_user_data(session, stream_id, <void*>sent)
    if sent == reply.length:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
        nghttp2_submit_trailer(session, stream_id, reply.tail, 1)
    return <ssize_t>n


cdef int _on_frame(nghttp2_session* session, const nghttp2_frame* frame, void* user) noexcept nogil:
    cdef nghttp2_data_provider provider
    if frame.hd.flags & NGHTTP2_FLAG_END_STREAM and frame.hd.type <= 1:      # DATA or HEADERS: the request is complete
        provider.source.ptr = NULL
        provider.read_callback = _on_read
        nghttp2_submit_response(session, frame.hd.stream_id, (<Link*>user).reply.head, 2, &provider)
    return 0


cdef int _flush(Link* link) noexcept nogil:
    cdef const uint8_t* data
    cdef ssize_t n
    while True:
        while link.out_len - link.out_at < BUFFER_BYTES // 2:
            if link.out_at:
                memmove(link.out, link.out + link.out_at, link.out_len - link.out_at)
                link.out_len -= link.out_at
                link.out_at = 0
            n = nghttp2_session_mem_send(link.session, &data)
            if n < 0:
                link.is_gone = True
                return 0
            if n == 0:
                break
            memcpy(link.out + link.out_len, data, n)
            link.out_len += n
        if link.out_at == link.out_len:
            return 0
        n = send(link.fd, link.out + link.out_at, link.out_len - link.out_at, MSG_NOSIGNAL)
        if n < 0:
            if errno == EAGAIN:
                return 1
            if errno != EINTR:
                link.is_gone = True
                return 0
            continue
        link.out_at += n


cdef void _read(Link* link, uint8_t* buffer) noexcept nogil:
    cdef ssize_t n = recv(link.fd, buffer, BUFFER_BYTES, 0)
    if n < 0 and (errno == EAGAIN or errno == EINTR):
        return
    if n <= 0 or nghttp2_session_mem_recv(link.session, buffer, n) != n or not (
            nghttp2_session_want_read(link.session) or nghttp2_session_want_write(link.session)):
        link.is_gone = True
