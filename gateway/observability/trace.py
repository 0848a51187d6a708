"""W3C Trace Context, level 1 with level 2's flags: the header `traceparent`, taken in and written out.

What does not fit is no trace at all, never an error: the sender's tracing must not decide whether a request is served.
https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_NO_VERSION = "ff"
_SAMPLED = 0x01
_KNOWN_FLAGS = 0x03  # sampled, random-trace-id

MAX_CHARACTERS = 512
"""Of a version to come, which may append fields: more is not looked at."""


@dataclass(frozen=True, slots=True)
class TraceParent:
    """`trace_id` and `parent_id` as lower-case hex, 32 and 16 digits, not all zero."""

    trace_id: str
    parent_id: str
    flags: int = 0

    @property
    def is_sampled(self) -> bool:
        """The caller records this request."""
        return bool(self.flags & _SAMPLED)

    def child(self, parent_id: str) -> TraceParent:
        """What a request that we make on behalf of this one carries: the same trace, our own span as its parent."""
        return TraceParent(self.trace_id, parent_id, self.flags)

    def __str__(self) -> str:
        """The header, version 00: what came with a later version is passed on as far as we understand it."""
        return f"00-{self.trace_id}-{self.parent_id}-{self.flags & _KNOWN_FLAGS:02x}"


def parse(header: str | bytes) -> TraceParent | None:
    """None: not a valid traceparent."""
    if isinstance(header, bytes):
        header = header.decode("latin-1")
    if len(header) > MAX_CHARACTERS or not (found := _FORM.fullmatch(header)):
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == _NO_VERSION or (version == "00" and more is not None):
        return None
    if not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    return TraceParent(trace_id, parent_id, int(flags, 16))
