# What a load generator notes: statuses, losses, latencies, and each different answer once, with how often it came. Inline functions
# only, shared by the generators of gRPC and of HTTP/1.1; none of them takes the GIL but the last two.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy


cdef enum:
    N_STATUSES = 18                     # gRPC's 0 to 16, and what brought none
    STATUS_NONE = 17
    MAX_ANSWERS = 4096                  # different answers kept for the check
    MAX_KEPT_BYTES = 64 << 20           # of all of them together
    N_LOSSES = 4                        # ways to lose a request


cdef enum Loss:               # why a request has no status
    LOSS_RESET                # the stream was reset
    LOSS_CLOSED               # the connection ended
    LOSS_SILENT               # no answer when patience was over
    LOSS_STATUS               # the answer ended without a status


cdef struct Answer:           # a different answer to one request
    uint64_t hash
    int32_t which
    int64_t count
    uint8_t* data             # owned; NULL: too much was kept already
    size_t len


cdef struct Results:
    uint32_t* latencies                 # owned; microseconds
    int64_t n_latencies, latency_room
    int64_t statuses[N_STATUSES]
    int64_t losses[N_LOSSES]
    int64_t n_done, bytes_in, bytes_out
    int64_t late_max_us                 # the generator's own lateness in beginning a planned request
    int64_t n_unkept                    # answers seen that were not kept for the check
    Answer* answers                     # owned, a hash table
    int n_answers
    size_t kept_bytes
    int error                           # -1: no memory for more


cdef inline int open_results(Results* results) noexcept nogil:
    """-1: no memory. Zeroed before; closed by `close_results` either way."""
    results.latency_room = 1 << 16
    results.latencies = <uint32_t*>malloc(results.latency_room * sizeof(uint32_t))
    results.answers = <Answer*>calloc(2 * MAX_ANSWERS, sizeof(Answer))
    return -1 if results.latencies == NULL or results.answers == NULL else 0


cdef inline void close_results(Results* results) noexcept nogil:
    cdef int i
    for i in range(2 * MAX_ANSWERS if results.answers != NULL else 0):
        free(results.answers[i].data)
    free(results.answers)
    free(results.latencies)


cdef inline void forget_results(Results* results) noexcept nogil:
    """Counts and latencies begin anew; answers stay."""
    cdef int i
    results.n_latencies = results.n_done = results.bytes_in = results.bytes_out = results.late_max_us = 0
    for i in range(N_STATUSES):
        results.statuses[i] = 0
    for i in range(N_LOSSES):
        results.losses[i] = 0


cdef inline void note_loss(Results* results, int loss) noexcept nogil:
    results.n_done += 1
    results.losses[loss] += 1


cdef inline void note_answer(Results* results, int status, int64_t took_us) noexcept nogil:
    cdef uint32_t* grown
    results.n_done += 1
    results.statuses[status] += 1
    if results.n_latencies == results.latency_room:
        grown = <uint32_t*>realloc(results.latencies, 2 * results.latency_room * sizeof(uint32_t))
        if grown == NULL:
            results.error = -1
            return
        results.latencies = grown
        results.latency_room *= 2
    results.latencies[results.n_latencies] = <uint32_t>min(max(took_us, <int64_t>0), <int64_t>0xFFFFFFFFu)
    results.n_latencies += 1


cdef inline uint64_t hash_bytes(const uint8_t* data, size_t n) noexcept nogil:
    """Eight bytes a step. Finds equal answers; nobody attacks it."""
    cdef uint64_t h = 0x9E3779B97F4A7C15u ^ n, block
    cdef size_t i = 0
    while i + 8 <= n:
        memcpy(&block, data + i, 8)
        h = (h ^ block) * 0xFF51AFD7ED558CCDu
        h ^= h >> 32
        i += 8
    while i < n:
        h = (h ^ data[i]) * 0x100000001B3u
        i += 1
    return h ^ (h >> 29)


cdef inline void keep_answer(Results* results, int which, const uint8_t* data, size_t n) noexcept nogil:
    """Count the answer with its equals; a new one is copied, for Python to check in the end."""
    cdef uint64_t h = hash_bytes(data, n) + <uint64_t>which * 0x9E3779B97F4A7C15u
    cdef int at = <int>(h & (2 * MAX_ANSWERS - 1))
    cdef Answer* answer
    while True:
        answer = &results.answers[at]
        if answer.count == 0:
            break
        if answer.hash == h and answer.which == which and answer.len == n and (
                answer.data == NULL or memcmp(answer.data, data, n) == 0):
            answer.count += 1
            return
        at = (at + 1) & (2 * MAX_ANSWERS - 1)
    if results.n_answers == MAX_ANSWERS or results.kept_bytes + n > MAX_KEPT_BYTES:
        results.n_unkept += 1
        return
    answer.data = <uint8_t*>malloc(max(n, <size_t>1))
    if answer.data == NULL:
        results.n_unkept += 1
        return
    memcpy(answer.data, data, n)
    answer.hash, answer.which, answer.len, answer.count = h, which, n, 1
    results.n_answers += 1
    results.kept_bytes += n


cdef inline list answers_seen(Results* results):
    """(index of the request, the answer, how often) of each different one."""
    return [
        (answer.which, (<char*>answer.data)[:answer.len], answer.count)
        for answer in results.answers[:2 * MAX_ANSWERS] if answer.count]


cdef inline dict counts_so_far(Results* results, tuple losses):
    return {
        "statuses": {code: results.statuses[code] for code in range(STATUS_NONE) if results.statuses[code]},
        "losses": {losses[i]: results.losses[i] for i in range(N_LOSSES) if results.losses[i]},
        "bytes_in": results.bytes_in, "bytes_out": results.bytes_out,
        "unkept": results.n_unkept, "late_max_us": results.late_max_us,
    }
