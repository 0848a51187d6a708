"""Every bound of the data plane in one place, each with the cost or attack that it bounds.

Defaults suit one worker with a few GiB of memory; all of them can be set in the deployment file under `limits`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]


class Limits(BaseModel):
    """Bounds per worker. Sizes in bytes, times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_message_bytes: Annotated[int, Field(ge=1024, lt=2**31)] = 64 * 2**20
    """One request message, also after decompression (gzip bombs). Triton's HTTP default; gRPC's own ceiling is 2 GiB.
    """

    max_json_bytes: Annotated[int, Field(ge=1024, lt=2**31)] = 16 * 2**20
    """The JSON of one REST request, without binary tensors: parsed on the loop at some 10 ms for each MiB, into up to
    25 times the memory. Larger tensors go as binary data.
    """

    max_in_flight_bytes: Positive = 1 * 2**30
    """Request bodies and unsent answers held at once. Reserved when a message announces its length, so that an
    admitted message can always finish.
    """

    max_connections: Positive = 10_000
    """Open sockets: each costs a file descriptor and up to 32 kB when idle."""

    max_concurrent_streams: Positive = 1_000
    """Calls open on one connection (SETTINGS_MAX_CONCURRENT_STREAMS)."""

    max_header_list_bytes: Annotated[int, Field(ge=4096, le=65536)] = 16 * 1024
    """Names, values and 32 bytes each, as RFC 9113 6.5.2 counts them: bounds memory per half-open call."""

    max_continuations: Positive = 8
    """CONTINUATION frames per header block: the flood of CVE-2024-28182."""

    reset_burst: Positive = 2_000
    """Streams that a client may reset at once: rapid reset, CVE-2023-44487. Callers with tight deadlines reset
    honestly, hence generous.
    """

    resets_per_s: Positive = 500
    """Streams that a client may go on resetting each second."""

    stream_window_bytes: Annotated[int, Field(ge=65535, lt=2**31)] = 1 * 2**20
    """What a peer may send on one call before we return window."""

    connection_window_bytes: Annotated[int, Field(ge=65535, lt=2**31)] = 16 * 2**20
    """The same over all calls of a connection."""

    max_stream_pending: Positive = 64
    """Requests of one ModelStreamInfer call that wait for an answer; above it the call's window is withheld."""

    header_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """From accept to a complete preface, and for a header block or a message to make progress: slow-loris."""

    send_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """An answer of which nothing could be sent for so long is given up: a reader that stopped holds memory."""

    idle_timeout_s: Annotated[float, Field(gt=0)] = 3600.0
    """A connection without calls is closed after this."""
