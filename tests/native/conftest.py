"""Native objects are counted before and after each test: in a debug build a leak of one fails the test that made it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from gateway.native import counters
from tests.support.exchange import CUTS


@pytest.fixture(autouse=True)
def native_counters() -> Iterator[None]:
    if not counters.is_debug():
        yield
        return
    before = counters.live()
    yield
    if (
        counters.live() != before
    ):  # tracebacks and cycles of the test's own; collecting always would take longer than the tests
        gc.collect()
    assert counters.live() == before, "native objects were left behind"


@pytest.fixture(params=CUTS)
def cut(request: pytest.FixtureRequest) -> str:
    """How the bytes of a script reach the session."""
    return str(request.param)
