# Seen: what an answer shows of itself, before it is counted: whether it is broken, into which cells one of its rows falls, and a hash that
# tells a version that says the same to everybody. In the thread that ran the batch, with the GIL; a large answer is read without it.
from gateway.native.signature cimport Signature


cdef int look_at(Signature signature, list members, void* slices, int low, int high, list outputs) except -1
cdef list columns_of(Signature signature)                   # names, in the order of Seen.cells
