"""The lowest priority for the calling thread, and a core that it gives back at once.

Niceness alone decides who gets more of a core, not who gets it now: since Linux 6.6 a thread may keep its core from one that wakes up for
the rest of its slice, some 3 ms, however nice it is. Since 6.12 it can be given a short one.
"""
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifdef __linux__
    #include <stdint.h>
    #include <sys/resource.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    struct gw_sched_attr {
        uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period;
    };
    static int gw_set_low(int nice, uint64_t slice_ns) {
        struct gw_sched_attr attr = {sizeof attr, 0, 0, nice, 0, slice_ns, 0, 0};
        pid_t thread = (pid_t)syscall(SYS_gettid);
        if (syscall(SYS_sched_setattr, 0, &attr, 0) == 0) return 0;
        return setpriority(PRIO_PROCESS, (id_t)thread, nice);
    }
    static long long gw_slice_ns(int* nice) {
        struct gw_sched_attr attr = {0, 0, 0, 0, 0, 0, 0, 0};
        if (syscall(SYS_sched_getattr, 0, &attr, (unsigned)sizeof attr, 0) != 0) return -1;
        *nice = attr.nice;
        return (long long)attr.runtime;
    }
    #else   /* it would be the whole process */
    static int gw_set_low(int nice, unsigned long long slice_ns) { (void)nice; (void)slice_ns; return 0; }
    static long long gw_slice_ns(int* nice) { *nice = 0; return 0; }
    #endif
    """
    int gw_set_low(int nice, uint64_t slice_ns) nogil
    long long gw_slice_ns(int* nice) nogil

cdef enum:
    NICENESS = 19
    SLICE_NS = 100_000                  # the least that Linux takes


def yield_to_others():
    """From now on the calling thread gets a core last, and leaves it to whoever wakes up. Whether the system agreed."""
    return gw_set_low(NICENESS, SLICE_NS) == 0


def standing():
    """Of the calling thread: (niceness, slice in nanoseconds; 0 where the system does not tell)."""
    cdef int nice = 0
    cdef long long slice_ns = gw_slice_ns(&nice)
    return nice, max(<long long>0, slice_ns)
