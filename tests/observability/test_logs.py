"""Log lines: one per event, for a person or a collector, and nothing that a value could break."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from gateway.observability import logs


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(log_format: str, **context: object) -> io.StringIO:
    out = io.StringIO()
    logs.setup(log_format, stream=out, **context)
    return out


def test_a_console_line_has_time_level_event_and_fields_in_order() -> None:
    out = lines("console", worker=1)
    logs.get().warning("worker died", exit="killed by SIGKILL", after_s=1.23456, code=-9)
    time, rest = out.getvalue().split(" ", 1)
    assert len(time) == 8
    assert rest == 'warning  worker died  worker=1 exit="killed by SIGKILL" after_s=1.23 code=-9\n'


def test_a_json_line_is_one_object_with_utc_time() -> None:
    out = lines("json", worker=1)
    logs.get().error("worker died", exit="killed\nby é", version=2)
    event = json.loads(out.getvalue())
    assert event.pop("time").endswith("Z")
    assert event == {"event": "worker died", "level": "error", "worker": 1, "exit": "killed\nby é", "version": 2}


def test_a_value_cannot_write_a_line_of_its_own() -> None:
    out = lines("console")
    logs.get().info("model loaded", model="x\n00:00:00 error  all is lost\x1b[31m")
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_debug_lines_are_left_out_and_exceptions_keep_their_trace(log_format: str) -> None:
    out = lines(log_format)
    logs.get().debug("unseen")
    try:
        raise ValueError("the cause")
    except ValueError:
        logs.get().exception("load failed")
    assert "unseen" not in out.getvalue()
    assert "ValueError: the cause" in out.getvalue()


def test_lines_of_libraries_join_in() -> None:
    out = lines("json")
    logging.getLogger("asyncio").warning("slow callback: %d ms", 300)
    logging.getLogger("asyncio").info("unseen")
    event = json.loads(out.getvalue())
    assert (event["event"], event["logger"], event["level"]) == ("slow callback: 300 ms", "asyncio", "warning")


def test_a_reader_that_went_away_stops_nobody() -> None:
    out = lines("console")
    out.close()
    logs.get().info("still here")
