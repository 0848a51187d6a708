"""The access log: a line per record, and never a wait."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gateway.observability import access, logs
from gateway.observability.access import AccessLog
from tests.support.conditions import eventually


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def now_us() -> int:
    return time.monotonic_ns() // 1000


def test_a_record_is_one_structured_line_with_times_in_milliseconds() -> None:
    out = io.StringIO()
    logs.setup("json", stream=out, worker=1)
    log = AccessLog()
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    log.record("m", "2", "r-7", 4, now_us(), 1500, 250, 2000, "grpc", parent.encode(), [("x-tenant", "a")])
    log.close()
    line = json.loads(out.getvalue())
    assert line.pop("time")
    assert line.pop("arrived").endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "worker": 1,
        "model": "m",
        "version": "2",
        "id": "r-7",
        "code": "DEADLINE_EXCEEDED",
        "queue_ms": 1.5,
        "run_ms": 0.25,
        "total_ms": 2.0,
        "protocol": "grpc",
        "traceparent": parent,
        "parameters": {"x-tenant": "a"},
    }


def test_what_the_caller_did_not_send_is_left_out_and_an_unknown_code_stays_a_number() -> None:
    lines: list[dict[str, Any]] = []
    log = AccessLog(lambda event, **fields: lines.append(fields))
    log.record("m", "1", "", 77, now_us(), 0, 0, 0, "rest")
    log.close()
    assert lines[0]["code"] == "77"
    assert lines[0]["id"] == ""
    assert not {"parameters", "traceparent"} & lines[0].keys()


def test_the_time_of_arrival_is_wall_time() -> None:
    lines: list[dict[str, Any]] = []
    log = AccessLog(lambda event, **fields: lines.append(fields))
    log.record("m", "1", "", 0, now_us() - 3_600_000_000, 0, 0, 0, "rest")
    log.close()
    from datetime import UTC, datetime

    age_s = (datetime.now(UTC) - datetime.fromisoformat(lines[0]["arrived"])).total_seconds()
    assert 3599 < age_s < 3610


def test_lines_keep_the_order_of_their_records() -> None:
    ids: list[str] = []
    log = AccessLog(lambda event, **fields: ids.append(fields["id"]))
    for number in range(500):
        log.record("m", "1", str(number), 0, now_us(), 0, 0, 0, "grpc")
    log.close()
    assert ids == [str(number) for number in range(500)]


def test_a_reader_that_stopped_costs_lines_which_are_counted_and_never_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_WAITING", 10)
    monkeypatch.setattr(access, "CLOSE_PATIENCE_S", 10.0)
    go_on, written, warnings = threading.Event(), [], []

    def write(event: str, **fields: Any) -> None:
        go_on.wait(20)
        written.append(fields["id"])

    log = AccessLog(write, lambda event, **fields: warnings.append((event, fields)))
    began_s = time.monotonic()
    for number in range(1000):
        log.record("m", "1", str(number), 0, now_us(), 0, 0, 0, "grpc")
    assert time.monotonic() - began_s < 15  # it would wait for 20
    assert not written
    go_on.set()
    eventually(lambda: len(written) >= 10, "what was kept")
    log.close()
    assert len(written) + sum(fields["lines_dropped"] for _, fields in warnings) == 1000
    assert {event for event, _ in warnings} == {"access log too slow"}


def test_closing_does_not_wait_for_a_reader_that_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "CLOSE_PATIENCE_S", 0.05)
    go_on = threading.Event()
    log = AccessLog(lambda event, **fields: go_on.wait(20))
    log.record("m", "1", "", 0, now_us(), 0, 0, 0, "grpc")
    began_s = time.monotonic()
    log.close()
    assert time.monotonic() - began_s < 15
    go_on.set()
