# Shadow: a second version gets the same request, unseen by whoever asked. Loop thread only, but for Job.run.
#
#   primary admitted ──reflect──▶ Pair ── shadow Request over the same Body ──▶ the version's twin lane
#        │                         │                                              (pumped when there is nothing else to do)
#        ├─ ended: caller told, then Pair.on_end                                   │
#        └─ cancelled: the shadow goes, too               Pair.on_end ◀── ended ───┘
#                                                          └─ both ended: Mirror.ended, and in an idle turn compared and counted
#
# Nothing here reaches the primary: not an exception, not a byte of its answer, not a share of its budget.
from libc.stdint cimport int64_t, uint64_t

from gateway.native.arm cimport Arm
from gateway.native.body cimport Body, Budget
from gateway.native.codec cimport Wire
from gateway.native.compare cimport Tolerance
from gateway.native.lane cimport Lane
from gateway.native.links cimport Links
from gateway.native.pairs cimport Comparer, PairStats
from gateway.native.request cimport Caller, Request, Watcher
from gateway.native.route cimport Asked, ShadowLoad, ShadowSpec


cdef enum Drop:               # why a request that was drawn has no pair; DROP_REASONS names them
    DROP_NONE
    DROP_NOT_SERVING          # the version is not loaded, or on its way out
    DROP_DRAINING
    DROP_MEMORY               # the worker's bytes in flight are half used up: what is left is for those who wait
    DROP_TOO_LARGE            # alone over the shadow's budget
    DROP_CONCURRENCY          # the budget is full, and none of it is still queued
    DROP_OLDEST               # made way for a newer one
    DROP_ANSWERS              # the budget has no room for its answers
    DROP_MISFIT               # does not fit the shadow's signature
    DROP_REFUSED              # its lane would not have it
    DROP_FAILING              # one in many is tried after many failures in a row
    DROP_LATE_QUEUED          # nothing was idle before its deadline
    DROP_LATE_RUNNING
    DROP_PRIMARY_GONE         # the caller gave up: there is nothing to compare with
    DROP_FAULT                # ours
    N_DROPS


cdef class Receiver(Caller):  # stands where a caller would; keeps the last failure's text for the Pair that hears next
    cdef str text


cdef class ShadowStats:       # of one shadow in one stage, over all route tables
    cdef readonly Arm arm
    cdef readonly dict pairs            # primary Arm, or None: PairStats
    cdef readonly uint64_t n_drawn, n_admitted
    cdef uint64_t dropped[N_DROPS]
    cdef readonly int n_open            # pairs not concluded
    cdef readonly int64_t used_us       # when it was last drawn
    cdef int n_failures                 # in a row
    cdef int64_t n_skip                 # drawn requests that are not tried, before the next that is

    cdef void note_failure(self) noexcept


cdef class Pair(Watcher):
    cdef Mirror mirror
    cdef ShadowStats stats
    cdef PairStats tally
    cdef ShadowLoad load
    cdef Watcher following              # who listened to the primary before us
    cdef Request shadow                 # None: over
    cdef Body primary_answer, shadow_answer
    cdef str text
    cdef int64_t n_rows                 # charged to load
    cdef size_t nbytes, max_bytes       # charged to load, answers too; the load's bound
    cdef int64_t primary_us, shadow_us  # runs
    cdef int primary_code, shadow_code
    cdef bint has_primary, has_shadow, is_streamed
    cdef Drop reason                    # set before the shadow is made to end

    cdef int on_end(self, Request request, Body answer, int code) except -1
    cdef int _on_primary(self, Request request, Body answer, int code) except -1
    cdef int _on_shadow(self, Request request, Body answer, int code) except -1
    cdef bint _has_room(self, Body answer) noexcept
    cdef int _drop(self, Drop reason) except -1
    cdef int _link(self) except -1
    cdef int _conclude(self, int64_t now_us) except -1
    cdef void _finish(self) noexcept


cdef class Job:               # one comparison that is too large for the loop thread
    cdef Pair pair
    cdef Comparer comparer
    cdef Tolerance tolerance


cdef class Mirror:
    cdef readonly dict stats            # Arm of a shadow: ShadowStats
    cdef readonly list ended            # Pairs to compare in an idle turn
    cdef Budget budget                  # the worker's
    cdef object report
    cdef Receiver receiver
    cdef Comparer scratch
    cdef public Links links             # None: nobody holds labels against pairs
    cdef public object offload          # Job -> None: to a thread, which runs it; then done() on the loop. None: all are compared here
    cdef public object on_new           # () -> None: there is a ShadowStats more; None: nobody asks
    cdef public int64_t least_time_us   # a shadow gets this long after the primary's answer,
    cdef public double time_factor      # or so many times what the primary took, whichever is more
    cdef public double absolute, relative       # tolerance of new PairStats

    cdef int reflect(self, Request primary, list shadows, const Asked* asked, Wire* wire, bint is_draining, int64_t now_us) except -1
    cdef int compare_ended(self, int64_t now_us) except -1
    cdef ShadowStats _stats_of(self, Arm arm)
    cdef Drop _admit(self, Request primary, ShadowSpec spec, ShadowStats stats, Wire* wire, int64_t now_us) except? DROP_FAULT
    cdef int _displace(self, Request oldest, Lane lane, int64_t now_us) except -1
    cdef PairStats _tally_of(self, ShadowStats stats, Arm primary)
