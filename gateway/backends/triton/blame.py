"""Who failed when a server gave no answer: the caller, the model, the server, the network or the gateway.

Pure, from gRPC's status code and its text. What the caller hears names the one who failed; what a server says of its
insides is for the log, except where it is about the caller's own input.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from gateway.backends.triton.endpoint import Outcome
from gateway.errors import Code


class Blame(enum.Enum):
    CALLER = "caller"
    MODEL = "model"
    SERVER = "server"
    """It is there, and does not serve this now."""
    NETWORK = "network"
    """No answer came."""
    GATEWAY = "gateway"
    """Asked for what it may not, or the server does not know."""


MAX_DETAIL = 500

_BROKEN = (
    "connect",  # failed to connect, connection reset, connection refused, disconnected
    "socket closed",
    "rst_stream",
    "goaway",
    "broken pipe",
    "recvmsg",
    "stream removed",
    "transport",
    "eof",
    "name resolution",
    "dns",
    "handshake",
    "tls",
    "ssl",
    "ping timeout",
    "keepalive",
    "too_many_pings",
    "unavailable: :",
)
"""gRPC's own words, in lower case, for what the connection did; a server's status says what is the matter with it."""

_CUT = ("rst_stream", "stream removed", "socket closed", "goaway", "broken pipe", "recvmsg", "transport")
"""Of them those that come as INTERNAL and the like, under which a model's own words come too."""

_OF_MODEL = "failed to process the request"
"""Triton's words before those of an exception in a model, which may say whatever it likes of connections."""

_RESTRICTED = "this protocol is restricted"
"""Triton's words, under UNAVAILABLE, for who does not bring the header of --grpc-restricted-protocol."""

_OVER = ("request timeout expired",)
"""Triton's words for a deadline that ran out in its queue."""


_DEAD = "is not healthy"
"""Triton's words, under INTERNAL, for a model whose process has died; there it fails on everything from now on."""


@dataclass(eq=False)  # not frozen: an exception is given its traceback
class Failure(Exception):
    """An attempt that gave no answer. `text` is the caller's, `detail` the log's."""

    blame: Blame
    code: Code
    text: str
    detail: str
    outcome: Outcome

    def __str__(self) -> str:
        return f"{self.text} [{self.detail}]" if self.detail and self.detail not in self.text else self.text


def of_status(code: int, detail: str, title: str, address: str, *, is_ours: bool = False) -> Failure:
    """`title` is the version as callers know it; `is_ours`: the deadline that passed was this attempt's share only."""
    detail = " ".join(detail.split())[:MAX_DETAIL]
    low = detail.lower()
    where = f"Triton at {address}"
    if code in (Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE):
        text = f"{title} refused the input: {detail}"
        return Failure(Blame.CALLER, Code.INVALID_ARGUMENT, text, f"{where}: {detail}", Outcome.REFUSED)
    if code == Code.INTERNAL and _DEAD in low:
        text = f"{title}: the model's process at {where} has died"
        return Failure(Blame.SERVER, Code.UNAVAILABLE, text, detail, Outcome.FAILED)
    if code in (Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS, Code.ABORTED) and not _is_cut(low):
        text = f"{title} failed on this request"
        return Failure(Blame.MODEL, Code.INTERNAL, text, f"{where}: {detail}", Outcome.REFUSED)
    if code == Code.DEADLINE_EXCEEDED or any(words in low for words in _OVER):
        if is_ours:
            text = f"{title}: {where} gave no answer in the time of an attempt (triton.timeout)"
            return Failure(Blame.NETWORK, Code.UNAVAILABLE, text, detail, Outcome.LATE)
        text = f"the deadline passed while {title} was running"
        return Failure(Blame.CALLER, Code.DEADLINE_EXCEEDED, text, f"{where}: {detail}", Outcome.CANCELLED)
    if code == Code.RESOURCE_EXHAUSTED and "message" in low:
        text = f"{title}: {where} does not take messages of this size: {detail}"
        return Failure(Blame.CALLER, Code.INVALID_ARGUMENT, text, detail, Outcome.REFUSED)
    if code in (Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED):
        text = f"{title}: {where} does not serve it now: {detail}"
        return Failure(Blame.SERVER, Code.UNAVAILABLE, text, detail, Outcome.FAILED)
    is_restricted = code == Code.UNAVAILABLE and _RESTRICTED in low
    if is_restricted or code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED):
        text = f"{title}: {where} refuses the gateway ({Code(code).name}); see triton.metadata and triton.tls"
        return Failure(Blame.GATEWAY, Code.UNAVAILABLE, text, detail, Outcome.FAILED)
    if code == Code.UNAVAILABLE and not _is_broken(low):
        text = f"{title}: {where} does not serve it now: {detail}"
        return Failure(Blame.SERVER, Code.UNAVAILABLE, text, detail, Outcome.FAILED)
    text = f"{title}: the connection to {where} failed before the answer came"
    return Failure(Blame.NETWORK, Code.UNAVAILABLE, text, detail, Outcome.LOST)


def late(title: str, why: str) -> Failure:
    """The caller's time is over."""
    text = f"the deadline passed while {title} was running"
    return Failure(Blame.CALLER, Code.DEADLINE_EXCEEDED, text, why, Outcome.CANCELLED)


def nobody(title: str, why: str) -> Failure:
    """There is no server to ask."""
    text = f"{title}: none of its Triton servers can be asked: {why}"
    return Failure(Blame.SERVER, Code.UNAVAILABLE, text, "", Outcome.FAILED)


def gone(title: str, why: str) -> Failure:
    """A sequence cannot be gone on with."""
    return Failure(Blame.SERVER, Code.ABORTED, f"{title}: {why}", "", Outcome.CANCELLED)


def unreachable(detail: str) -> str:
    """Why no connection could be made, from gRPC's words: "cannot be reached", and what of triton.tls may help."""
    low = detail.lower()
    why = ""
    if "certificate_verify_failed" in low:
        why = "its certificate is not signed by whom triton.tls.ca names"
    elif "hostname verification" in low or "is not in peer certificate" in low:
        why = "its certificate is made out to another name, see triton.tls.server_name"
    elif "wrong_version_number" in low:
        why = "it does not speak TLS, see triton.tls"
    elif "handshake" in low:
        why = "no TLS handshake, see triton.tls"
    elif "failed to connect" in low and "socket closed" in low:
        why = "it closes connections at once; it may want TLS, or a certificate of the gateway, see triton.tls"
    return f"cannot be reached: {why}" if why else "cannot be reached"


def _is_cut(low: str) -> bool:
    return not low or (_OF_MODEL not in low and any(words in low for words in _CUT))


def _is_broken(low: str) -> bool:
    return not low or any(words in low for words in _BROKEN)
