"""One in N requests, told to Python."""
from libc.stdint cimport int64_t

from gateway.native.request cimport Request


cdef class Sampler:
    """Sampler(): off. With `every` = N and `record` set, record(model, version, request_id, code, arrived_us, queue_us, run_us, total_us,
    protocol, trace, parameters) is called for every Nth request as it is settled. Times in monotonic microseconds; queue and run are 0
    for what was refused; trace is the caller's traceparent or None; parameters are the forwarded headers, (name, value) pairs."""

    cdef int tell(self, Request request, int code, int64_t now_us) except -1:
        cdef int64_t started_us = request.started_us if request.started_us else now_us
        id = request.id.ptr[:request.id.len].decode("utf-8", "replace") if request.id.len else ""
        self.record(
            request.signature.model, request.signature.version, id, code, request.arrived_us, started_us - request.arrived_us,
            now_us - started_us, now_us - request.arrived_us, "rest" if request.is_rest else "grpc", request.trace,
            request.parameters or [])
        return 0

    cdef int tell_refused(self, str model, str version, str id, int code, bint is_rest, int64_t now_us) except -1:
        self.record(model, version, id, code, now_us, 0, 0, 0, "rest" if is_rest else "grpc", None, [])
        return 0
