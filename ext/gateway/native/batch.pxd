# Batch: rows of several requests that run together. Formed on the loop thread, executed on an executor's thread (or inline), completed
# on the loop thread. While it runs its requests keep their bytes alive, whatever happens to their callers.
#
# The one copy of a tensor: gather() puts each member's rows into the batch's arrays. A large tensor that runs alone is not copied at all:
# its array lies in the message.
#
# A batch that another process runs never leaves the loop thread: begin, then accept or refuse for each range of members, then end.
from libc.stdint cimport int64_t

from gateway.native.body cimport Body
from gateway.native.monitor cimport Monitor
from gateway.native.request cimport Request
from gateway.native.signature cimport Signature


cdef enum Release:            # why a batch was let go
    RELEASE_WAIT = 0          # not yet
    RELEASE_FULL = 1
    RELEASE_IDLE = 2          # an executor was free, and there is no delay to wait for
    RELEASE_DELAY = 3         # the oldest has waited max_delay
    RELEASE_DEADLINE = 4      # waiting longer would miss a deadline
    N_RELEASES = 5


cdef enum:
    IN_PLACE_MIN_BYTES = 65536    # a tensor of a lone request is not copied: below, the copy costs less than what is made to avoid it


cdef struct Slice:            # rows of one member
    int64_t first, n_rows


cdef class Batch:
    cdef readonly Signature signature
    cdef object lane                    # back to its Lane
    cdef Monitor monitor                # None: nobody counts what goes in and comes out
    cdef list members                   # Requests
    cdef Slice* slices                  # owned, one a member
    cdef readonly int n_members
    cdef int capacity
    cdef readonly int64_t n_rows
    cdef size_t nbytes
    cdef Release reason
    cdef list buffers                   # arrays to gather into when all members run together, used again by others; None: new ones
    cdef list results                   # one a member: Body, (code, text), or the arrays of a part
    cdef readonly list errors           # exceptions for the log
    cdef readonly int64_t cost_us       # processor or wall time of the execution
    cdef bint counts_cpu                # cost_us is thread processor time
    cdef bint has_marked                # some member's answer is weighed against another version's
    cdef bint has_failed                # some run of it raised, or gave what does not fit
    cdef int64_t began_us               # of a run elsewhere
    cdef list inputs, outputs           # of a run that leaves all but itself to the loop thread; outputs None: it failed, or has not ended
    cdef int n_concluded                # members whose results were made of those outputs
    cdef int64_t n_rows_concluded, ended_us

    cdef int add(self, Request request, int64_t first, int64_t n_rows) except -1
    cdef int perform(self, object run) except -1            # fills results
    cdef int prepare(self) except -1                        # gathers: perform then only runs, and fills outputs
    cdef int conclude(self, int high) except -1             # from those, the results of the members before `high`

    cdef bint has_part(self) noexcept                       # of a request that is split over batches
    cdef bint _run_only(self, object run) except -1
    cdef int _run(self, object run, int low, int high) except -1
    cdef list _gather(self, int low, int high)
    cdef object _in_place(self, int member, int index, Py_ssize_t* dims)
    cdef object _gather_strings(self, int index, int low, int high, Py_ssize_t* dims)
    cdef int _watch(self, int low, int high, list inputs, list outputs) except -1
    cdef int _look(self, int low, int high, list outputs) except -1
    cdef int _check(self, object outputs, int64_t n_rows, bint may_be_unaligned) except -1
    cdef int64_t _scatter(self, list outputs, int low, int high, int64_t row) except -1       # the row after the last


cdef Body encode_rows(Request request, list outputs, int64_t first, int64_t n_rows)
