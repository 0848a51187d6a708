# Exchange: an infer request that Python sends in, and its answer that Python gets back. REST uses it; nothing per gRPC request does.
from gateway.native.body cimport Body
from gateway.native.request cimport Caller, Request


cdef class Exchange(Caller):
    cdef Request request                # None once settled
    cdef object done                    # (Body | None, code, text) -> None; None once called or cancelled
