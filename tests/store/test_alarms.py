"""Alarms and deliveries, on each kind of database."""

from __future__ import annotations

from dataclasses import replace

from gateway.store import AlarmRecord, Delivery, Store

ALARM = AlarmRecord("a1", "fraud", "1", "open", 10.0, 10.0, {"id": "a1", "findings": []})


def put(store: Store, alarm: AlarmRecord, expected: str | None, *deliveries: Delivery) -> bool:
    return store.put_alarm(alarm, expected, f"drift.{alarm.state}", "gateway", "why", deliveries)


def delivery(event: str, endpoint: str = "pager", next_at: float = 10.0) -> Delivery:
    return Delivery(event, endpoint, "waiting", 0, next_at, 10.0, "", b"{}")


def test_an_alarm_its_audit_entry_and_its_deliveries_are_written_together(store: Store) -> None:
    assert put(store, ALARM, None, delivery("e1"), delivery("e1", "retrain"))
    assert store.alarm("a1") == ALARM
    (entry,) = store.audit_log()
    assert (entry.action, entry.subject, entry.before, entry.after) == ("drift.open", "fraud/1", None, ALARM.document)
    assert {each.endpoint for each in store.due_deliveries(10.0)} == {"pager", "retrain"}
    assert store.verify_audit().ok


def test_who_was_slower_changes_nothing(store: Store) -> None:
    assert put(store, ALARM, None)
    closed = replace(ALARM, state="closed", updated_at=20.0)
    assert put(store, closed, "open")
    assert not put(store, replace(ALARM, state="acknowledged"), "open", delivery("e2"))
    assert not put(store, ALARM, None, delivery("e3"))
    assert store.alarm("a1") == closed
    assert store.deliveries() == []
    assert len(store.audit_log()) == 2


def test_alarms_are_found_by_version_state_and_time_newest_first(store: Store) -> None:
    for at, (version, state) in enumerate((("1", "open"), ("1", "closed"), ("2", "open"))):
        put(store, AlarmRecord(f"a{at}", "fraud", version, state, float(at), 100.0 + at, {}), None)
    assert [each.id for each in store.alarms()] == ["a2", "a1", "a0"]
    assert [each.id for each in store.alarms("fraud", "1")] == ["a1", "a0"]
    assert [each.id for each in store.alarms(states=("open",))] == ["a2", "a0"]
    assert [each.id for each in store.alarms(updated_since=101.0)] == ["a2", "a1"]
    assert store.alarms("other") == []
    assert store.alarm("a9") is None


def test_only_what_waits_and_whose_time_has_come_is_due(store: Store) -> None:
    put(
        store, ALARM, None, delivery("late", next_at=50.0), delivery("soon", next_at=5.0), delivery("dead", next_at=1.0)
    )
    store.note_delivery(replace(delivery("dead"), state="dead", attempts=9, error="answered 500"))
    assert [each.event for each in store.due_deliveries(20.0)] == ["soon"]
    assert [each.event for each in store.due_deliveries(60.0)] == ["soon", "late"]
    (dead,) = store.deliveries("dead")
    assert (dead.attempts, dead.error) == (9, "answered 500")


def test_old_deliveries_are_forgotten_but_none_that_waits(store: Store) -> None:
    put(store, ALARM, None, delivery("waits"), delivery("done"))
    store.note_delivery(replace(delivery("done"), state="delivered"))
    assert store.prune_deliveries(before=10.0) == 0
    assert store.prune_deliveries(before=11.0) == 1
    assert [each.event for each in store.deliveries()] == ["waits"]
