"""Logging: one line per change of state, for a person (console) or a collector (JSON), on standard error.

Nothing is logged per request. Events are short fixed phrases; what varies goes into fields, so that lines can be
counted and filtered: `log.warning("worker died", worker=1, exit="killed by SIGKILL")`. Lines of libraries that use
stdlib logging join in.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31;1m"}
_RESET = "\x1b[0m"

Event = MutableMapping[str, Any]


def setup(log_format: str = "console", *, level: str = "info", stream: TextIO | None = None, **context: Any) -> None:
    """Configure once per process. `context` (worker=2) is added to every line; `stream` is standard error unless
    given.
    """
    out = stream or sys.stderr

    def add_context(_: Any, __: str, event: Event) -> Event:
        return {"event": event.pop("event"), **context, **event}

    if log_format == "json":
        render: list[Any] = [
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
    else:
        render = [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False, key="time"),
            structlog.processors.format_exc_info,
            _Console(colours=out.isatty()),
        ]
    structlog.configure(
        processors=[add_context, structlog.processors.add_log_level, *render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _Lines(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(LEVELS[level], logging.WARNING), handlers=[_Forward()], force=True)


def get() -> Any:
    """The logger: .debug, .info, .warning, .error, .exception (event, **fields). Safe to call before setup."""
    return structlog.get_logger()


class _Lines:
    """Writes a line in one piece. A reader that went away (`2>&1 | head`) must not stop the server, so its error is
    dropped.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def msg(self, line: str) -> None:
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = msg


class _Console:
    """`12:00:01 warning  worker died  worker=1 exit="killed by SIGKILL"`: fields in the order given, nothing padded
    away.
    """

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _: Any, __: str, event: Mapping[str, Any]) -> str:
        fields = dict(event)
        time, level, what = fields.pop("time"), fields.pop("level"), fields.pop("event")
        trace = fields.pop("exception", "")
        word = f"{level:<7}"
        if self._colours and level in _COLOURS:
            word = f"{_COLOURS[level]}{word}{_RESET}"
        line = f"{time} {word}  {_plain(str(what))}"
        if fields:
            line += "  " + " ".join(f"{key}={_value(value)}" for key, value in fields.items())
        return f"{line}\n{trace}" if trace else line


class _Forward(logging.Handler):
    """Lines of stdlib logging (asyncio, libraries) into the same stream and format."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            method = getattr(structlog.get_logger(), record.levelname.lower(), structlog.get_logger().warning)
            trace = {"exc_info": record.exc_info} if record.exc_info else {}
            method(record.getMessage(), logger=record.name, **trace)
        except Exception:
            self.handleError(record)


def _plain(text: str) -> str:
    """One line, no control characters: a model's name must not be able to write log lines of its own."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    text = _plain(str(value))
    return f'"{text}"' if not text or " " in text or "=" in text else text
