"""What goes into the store and comes out of it, and how it refuses. Times are seconds since 1970, by the wall clock:
they are for people and for records; nothing here measures a duration with them but who was seen lately.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.errors import Code, GatewayError, InvalidArgument


class StoreUnavailable(GatewayError):
    """The store cannot be read or written now; the text says why. A change that failed as it was being committed may
    have been made: read before trying again.
    """

    code = Code.UNAVAILABLE


class Conflict(GatewayError):
    """Somebody else changed the route first; `current` is what is in force, None when there is none."""

    code = Code.ABORTED

    def __init__(self, text: str, current: RouteRecord | None) -> None:
        super().__init__(text)
        self.current = current


class DigestMismatch(GatewayError):
    """A version's number is known with other files."""

    code = Code.ALREADY_EXISTS


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One version as it was registered. The last three fields are the store's: what a caller puts there is ignored."""

    model: str
    version: str
    digest: str
    path: str
    signature: dict[str, Any] | None = None
    """None: not known yet, nobody has loaded it."""
    lineage: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    is_retired: bool = False
    registered_at: float = 0.0
    registered_by: str = ""


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """One generation of a model's route. Generations count from 1, each model its own."""

    model: str
    generation: int
    document: dict[str, Any]
    automatic: bool
    """Written by the gateway itself, not by an operator."""
    actor: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What a worker says of itself. `generations`: model -> generation in force. `versions`: model -> version ->
    state. `faults`: model -> why something in its route does not serve.
    """

    incarnation: str
    index: int
    host: str
    pid: int
    started_at: float
    seen_at: float
    revision: int
    generations: dict[str, int]
    versions: dict[str, Any]
    faults: dict[str, Any]
    is_ready: bool


@dataclass(frozen=True, slots=True)
class Report:
    """Counters of one source, cumulative: a later one of the same (incarnation, kind, model, version, key) replaces
    it.
    """

    kind: str
    model: str
    version: str
    key: str
    body: bytes
    at: float
    incarnation: str = ""
    """Whose it is; filled in by the store."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who changed what, why, from what to what. `subject` is a model, or model/version."""

    seq: int
    at: float
    actor: str
    action: str
    subject: str
    reason: str
    before: Any
    after: Any
    hash: str


@dataclass(frozen=True, slots=True)
class AlarmRecord:
    """An alarm in its state; `document` is the whole of it."""

    id: str
    model: str
    version: str
    state: str
    opened_at: float
    updated_at: float
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint. `state`: waiting until it was taken or given up, then delivered or dead."""

    event: str
    endpoint: str
    state: str
    attempts: int
    next_at: float
    created_at: float
    error: str
    """What the last attempt failed with; empty before the first, and when it was taken."""
    body: bytes


MAX_NAME = 512
MAX_REASON = 4000
"""Characters. People write sentences; more is a file pasted by mistake."""


def checked(field_name: str, value: str, limit: int = MAX_NAME, *, may_be_empty: bool = False) -> str:
    """`value`, when every database can hold it. InvalidArgument names the field."""
    if not value and not may_be_empty:
        raise InvalidArgument(f"{field_name}: is empty; expected text")
    if len(value) > limit:
        raise InvalidArgument(f"{field_name}: {len(value)} characters; expected {limit} at most")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InvalidArgument(f"{field_name}: {value!r} holds a character that is no text (NUL or half a pair)")
    return value
