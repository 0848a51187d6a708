"""Who failed, by what real servers and gRPC have been seen to say."""

from __future__ import annotations

import pytest

from gateway.backends.triton import blame
from gateway.backends.triton.blame import Blame
from gateway.backends.triton.endpoint import Outcome
from gateway.errors import Code

INPUT = (Blame.CALLER, Code.INVALID_ARGUMENT, Outcome.REFUSED)
LATE = (Blame.CALLER, Code.DEADLINE_EXCEEDED, Outcome.CANCELLED)
MODEL = (Blame.MODEL, Code.INTERNAL, Outcome.REFUSED)
SERVER = (Blame.SERVER, Code.UNAVAILABLE, Outcome.FAILED)
NETWORK = (Blame.NETWORK, Code.UNAVAILABLE, Outcome.LOST)
GATEWAY = (Blame.GATEWAY, Code.UNAVAILABLE, Outcome.FAILED)

TITLE = 'model "m" version 1'


@pytest.mark.parametrize(
    ("code", "detail", "expected", "text"),
    [
        (Code.INVALID_ARGUMENT, "not two", INPUT, "refused the input: not two"),
        (
            Code.INTERNAL,
            "Failed to process the request(s) for model 'm_0_0', message: ValueError: boom\n\nAt:\n  /m/1/model.py(18)",
            MODEL,
            "failed on this request",
        ),
        (Code.INTERNAL, "Stub process 'm_0_0' is not healthy.", SERVER, "has died"),
        (
            Code.INTERNAL,
            "Failed to process the request(s) for model 'm_0_0', message: ConnectionError: Socket closed",
            MODEL,
            "failed on this request",
        ),
        (Code.INTERNAL, "cannot connect to the feature store: ssl", MODEL, "failed on this request"),
        (Code.UNAVAILABLE, "Server is stopping, scheduler for model 'm' has stopped", SERVER, "does not serve it now"),
        (
            Code.UNAVAILABLE,
            "This protocol is restricted, expecting header 'triton-grpc-protocol-key'",
            GATEWAY,
            "triton.metadata",
        ),
        (Code.NOT_FOUND, "Request for unknown model: 'm' has no available versions", SERVER, "does not serve it now"),
        (Code.UNAVAILABLE, "Exceeds maximum queue size", SERVER, "maximum queue size"),
        (Code.UNAVAILABLE, "Request timeout expired", LATE, "the deadline passed"),
        (Code.UNAVAILABLE, "failed to connect to all addresses", NETWORK, "the connection to Triton at h:1 failed"),
        (Code.UNAVAILABLE, "Socket closed", NETWORK, "failed before the answer came"),
        (Code.INTERNAL, "Received RST_STREAM with error code 2", NETWORK, "connection"),
        (Code.UNAVAILABLE, "", NETWORK, "connection"),
        (Code.CANCELLED, "CANCELLED", NETWORK, "connection"),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", LATE, "the deadline passed"),
        (Code.UNAUTHENTICATED, "who are you", GATEWAY, "triton.metadata"),
        (Code.UNIMPLEMENTED, "", GATEWAY, "refuses the gateway"),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max (10 vs. 4)", INPUT, "messages of this size"),
        (Code.RESOURCE_EXHAUSTED, "too much", SERVER, "does not serve it now"),
    ],
)  # fmt: skip
def test_each_failure_has_one_who_is_to_blame(
    code: Code, detail: str, expected: tuple[Blame, Code, Outcome], text: str
) -> None:
    failure = blame.of_status(code, detail, TITLE, "h:1")
    assert (failure.blame, failure.code, failure.outcome) == expected
    assert TITLE in failure.text
    assert text in failure.text


def test_what_a_model_says_of_its_insides_is_for_the_log() -> None:
    failure = blame.of_status(Code.INTERNAL, "ValueError at /secret/model.py", TITLE, "h:1")
    assert "/secret" not in failure.text
    assert "/secret" in str(failure)
    assert "h:1" in str(failure)


def test_a_share_of_the_time_that_passed_is_the_networks_and_not_the_callers() -> None:
    failure = blame.of_status(Code.DEADLINE_EXCEEDED, "Deadline Exceeded", TITLE, "h:1", is_ours=True)
    assert (failure.blame, failure.code, failure.outcome) == (Blame.NETWORK, Code.UNAVAILABLE, Outcome.LATE)


def test_a_long_detail_is_cut_and_on_one_line() -> None:
    failure = blame.of_status(Code.INVALID_ARGUMENT, "a\n\n b " * 1000, TITLE, "h:1")
    assert "\n" not in failure.text
    assert len(failure.text) < 1000
