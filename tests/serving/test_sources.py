"""What sources have counted reaches the store, also when it was away in between."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from gateway.serving import sources
from gateway.serving.sources import Sources
from gateway.store import Report, StoreUnavailable


@dataclass
class Shelf:
    """A store's put_reports, that can be out of reach."""

    is_away: bool = False
    held: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def put_reports(self, incarnation: str, reports: list[Report]) -> None:
        if self.is_away:
            raise StoreUnavailable("away")
        self.held.update({(report.kind, report.key): report.body for report in reports})


def told(kind: str, **bodies: str) -> list[Report]:
    return [Report(kind, "m", "1", key, body.encode(), time.time()) for key, body in bodies.items()]


def send(source: Sources, shelf: Shelf) -> str:
    return source.send(shelf, "i", lambda read: read())  # type: ignore[arg-type]


def test_what_the_store_did_not_take_is_told_again_when_nothing_new_is_there() -> None:
    turns = iter([told("pair", a="1", b="1"), told("pair", a="2"), []])
    source, shelf = Sources(), Shelf(is_away=True)
    source.add("pair", 0.0, lambda: next(turns))
    assert [send(source, shelf), send(source, shelf)] == ["away", "away"]
    shelf.is_away = False
    assert send(source, shelf) == ""
    assert shelf.held == {("pair", "a"): b"2", ("pair", "b"): b"1"}


def test_what_was_told_is_not_told_again() -> None:
    turns = iter([told("pair", a="1"), []])
    source, shelf = Sources(), Shelf()
    source.add("pair", 0.0, lambda: next(turns))
    send(source, shelf)
    shelf.held.clear()
    send(source, shelf)
    assert shelf.held == {}


def test_the_oldest_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_UNTOLD", 2)
    turns = iter([told("tile", a="1", b="1"), told("tile", a="2", c="1"), []])
    source, shelf = Sources(), Shelf(is_away=True)
    source.add("tile", 0.0, lambda: next(turns))
    send(source, shelf)
    send(source, shelf)
    shelf.is_away = False
    send(source, shelf)
    assert shelf.held == {("tile", "a"): b"2", ("tile", "c"): b"1"}
