"""The revision that workers watch: what makes it grow, and how soon a waiting worker knows."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import pytest

from gateway.store import Store, VersionRecord
from tests.store.conftest import Open

VERSION = VersionRecord("fraud", "1", "sha256:aa", "/models/fraud/1")


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.register_version(VersionRecord("fraud", "2", "sha256:bb", "/"), "anna"),
        lambda store: store.want("fraud", "1", "anna"),
        lambda store: store.retire_version("fraud", "1", "anna"),
        lambda store: store.put_route("fraud", {"versions": {"1": 100}}, None, "anna", ""),
    ],
    ids=["register", "want", "retire", "route"],
)
def test_every_change_that_workers_must_see_raises_the_revision_by_one(
    store: Store, change: Callable[[Store], None]
) -> None:
    store.register_version(VERSION, "anna")
    before = store.revision()
    change(store)
    assert store.revision() == before + 1


def test_an_entry_in_the_audit_log_alone_is_none(store: Store) -> None:
    store.audit("anna", "alarm.closed", "fraud", "", None, None)
    assert store.revision() == 0


def test_a_change_that_was_missed_is_told_at_once(store: Store) -> None:
    store.register_version(VERSION, "anna")
    began_s = time.monotonic()
    assert store.wait_for_change(0, 10.0) == 1
    assert time.monotonic() - began_s < 5.0


def test_without_a_change_the_wait_ends_with_the_timeout(store: Store) -> None:
    began_s = time.monotonic()
    assert store.wait_for_change(0, 0.1) == 0
    assert time.monotonic() - began_s >= 0.1


def test_a_revision_that_went_back_is_a_change(store: Store) -> None:
    began_s = time.monotonic()
    assert store.wait_for_change(40, 10.0) == 0  # a backup was restored
    assert time.monotonic() - began_s < 5.0


def test_a_waiting_worker_knows_of_a_change_within_milliseconds(open_store: Open) -> None:
    """Half of nine; where the machine had no time for them, half of nine others."""
    waiting, changing = open_store(), open_store()
    changing.put_route("fraud", {}, None, "anna", "")
    for _ in range(5):
        delays_s = delays_of_nine(waiting, changing)
        if statistics.median(delays_s) < 0.05:
            break
    assert statistics.median(delays_s) < 0.05, delays_s


def delays_of_nine(waiting: Store, changing: Store) -> list[float]:
    delays_s = []
    for _ in range(9):
        seen, woken_s = waiting.revision(), []
        thread = threading.Thread(
            target=lambda seen=seen, out=woken_s: out.append((waiting.wait_for_change(seen, 10.0), time.monotonic()))
        )
        thread.start()
        time.sleep(0.03)  # in the middle of its wait; a change before it would be told, too
        changing.put_route("fraud", {}, None, "anna", "")
        made_s = time.monotonic()
        thread.join()
        assert woken_s[0][0] == seen + 1
        delays_s.append(woken_s[0][1] - made_s)
    return delays_s


def test_many_wait_at_once_and_what_is_no_change_wakes_nobody(open_store: Open) -> None:
    waiting, changing = open_store(), open_store()
    told: list[int] = []
    threads = [threading.Thread(target=lambda: told.append(waiting.wait_for_change(0, 10.0))) for _ in range(6)]
    for thread in threads:
        thread.start()
    changing.audit("anna", "alarm.closed", "fraud", "")
    assert waiting.wait_for_change(0, 0.1) == 0
    assert told == []
    changing.put_route("fraud", {}, None, "anna", "")
    for thread in threads:
        thread.join()
    assert told == [1] * 6


def test_changes_one_after_the_other_are_all_seen_by_one_who_waits_again_and_again(open_store: Open) -> None:
    waiting, changing = open_store(), open_store()

    def change() -> None:
        for _ in range(50):
            changing.put_route("fraud", {}, None, "anna", "")

    thread = threading.Thread(target=change)
    thread.start()
    seen = 0
    while seen < 50:
        revision = waiting.wait_for_change(seen, 10.0)
        assert revision > seen, "a change was missed"
        seen = revision
    thread.join()
