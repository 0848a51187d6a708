"""Pairs of tokens, sampled."""
cimport cython
from libc.stdint cimport uint32_t, uint64_t

from gateway.native.body cimport Body
from gateway.native.codec cimport GRPC_PREFIX_BYTES
from gateway.native.cursor cimport WIRE_BYTES, Cursor, Span, cursor_over, read_bytes, read_tag, span_is
from gateway.native.dice cimport roll


@cython.final
cdef class Links:
    """Links(room)."""

    def __init__(self, int room):
        if room < 1:
            raise ValueError(f"room: got {room}, expected at least 1")
        self.room, self.kept = room, []

    cdef int note(self, Body primary, bint is_streamed, Body shadow, str version) except -1:
        cdef uint64_t place
        cdef bytes token
        self.n_seen += 1
        place = len(self.kept) if len(self.kept) < self.room else roll(self.n_seen)
        if place >= <uint64_t>self.room:
            return 0
        token = token_of(primary, is_streamed)
        if token is None:
            self.n_seen -= 1
            return 0
        pair = token, token_of(shadow, False) if shadow is not None else None, version
        if place < <uint64_t>len(self.kept):
            self.kept[place] = pair
        else:
            self.kept.append(pair)
        return 0

    def take(self):
        """What was kept; it starts anew."""
        kept, self.kept, self.n_seen = self.kept, [], 0
        return kept


cdef bytes token_of(Body answer, bint is_streamed):
    """Of a framed ModelInferResponse of ours, whose parameters stand before its outputs; None: it has none."""
    cdef Span span, name
    cdef Cursor c, entry
    cdef uint32_t field
    cdef int wire_type
    span.ptr, span.len = answer.data + GRPC_PREFIX_BYTES, answer.length - GRPC_PREFIX_BYTES
    c = cursor_over(span)
    if is_streamed:
        if read_tag(&c, &field, &wire_type) < 0 or wire_type != WIRE_BYTES or read_bytes(&c, &span) < 0:
            return None
        c = cursor_over(span)
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0 or wire_type != WIRE_BYTES or read_bytes(&c, &span) < 0 or field > 4:
            return None
        if field != 4:
            continue
        entry = cursor_over(span)                             # key, then InferParameter
        if (read_tag(&entry, &field, &wire_type) < 0 or read_bytes(&entry, &name) < 0 or read_tag(&entry, &field, &wire_type) < 0
                or read_bytes(&entry, &span) < 0):
            return None
        if not span_is(name, "gateway_request", 15):
            continue
        entry = cursor_over(span)
        if read_tag(&entry, &field, &wire_type) < 0 or field != 3 or read_bytes(&entry, &span) < 0:
            return None
        return <bytes>span.ptr[:span.len]
    return None
