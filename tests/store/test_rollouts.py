"""Rollouts in the store: one at a time, each decision with all its effects or none, and no word of who lost the lease."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import NotFound
from gateway.rollout.decide import begin
from gateway.store import Delivery, Store, VersionRecord
from gateway.store.rolloutrecords import (
    Fenced,
    Good,
    NewRollout,
    RolloutConflict,
    RolloutRecord,
    RolloutStep,
    Touch,
)
from gateway.store.rollouts import LEASE
from tests.store.conftest import Open
from tests.support.rollouts import plan

ONE: dict[str, Any] = {"versions": {"1": 100}}
FIVE: dict[str, Any] = {"versions": [{"version": "1", "weight": 95}, {"version": "2", "weight": 5}]}


def begun(store: Store, **wishes: Any) -> RolloutRecord:
    if not store.versions("fraud"):
        for version in ("1", "2"):
            store.register_version(VersionRecord("fraud", version, f"digest-{version}", f"/m/{version}"), "ada")
        store.put_route("fraud", ONE, 0, "ada", "")
    rules = plan()
    cursor, base = begin(rules, 100.0).as_dict(), {"generation": 1, "route": ONE}
    new = NewRollout("fraud", "1", "digest-1", "2", "digest-2", rules.document(), cursor, base, ("2",), **wishes)
    return store.start_rollout(new, "ada", "a better one")


def step(record: RolloutRecord, generation: int | None = None, **changes: Any) -> RolloutStep:
    """To 5 %."""
    cursor = {**record.cursor, "stage": "step", "epoch": record.cursor["epoch"] + 1, "units": 500}
    decision = {"event": "start_steps", "cursor": cursor, "reasons": ["accepted"]}
    route = FIVE if generation is not None else None
    values: dict[str, Any] = {
        "id": record.id, "seq": record.seq, "at": 5.0, "snapshot": {"n": 1}, "snapshot_digest": "d", "headline": "on",
        "decision": decision, "status": {}, "actor": "gateway", "route": route, "route_generation": generation,
    }  # fmt: skip
    return RolloutStep(**{**values, **changes})


def test_an_attempt_begins_with_its_candidate_wanted_and_the_plan_in_the_audit_log(store: Store) -> None:
    record = begun(store)
    assert (record.id, record.stage, record.is_live, record.seq) == ("fraud-1", "loading", True, 0)
    assert ("fraud", "2") in store.wanted()
    assert store.rollout("fraud") == store.rollout("fraud-1") == record
    (entry,) = store.audit_log(model="fraud", action="rollout.start")
    assert (entry.actor, entry.subject, entry.reason) == ("ada", "fraud/2", "a better one")
    assert entry.after["plan"]["candidate"] == "2"
    with pytest.raises(NotFound, match=r"rollout .frodo.: there is none.*newest: fraud-1"):
        store.rollout("frodo")


def test_a_model_has_one_live_rollout_and_the_next_waits_until_that_is_gone(store: Store) -> None:
    begun(store)
    with pytest.raises(RolloutConflict, match="rollout fraud-1 is live"):
        begun(store)
    second = begun(store, supersede=True)
    assert second.waits_for == "fraud-1"
    assert store.rollout("fraud-1").orders == {"superseded_by": "fraud-2"}
    with pytest.raises(RolloutConflict, match="fraud-2 waits already"):
        begun(store, supersede=True)


def test_a_decision_and_all_its_effects_are_one(store: Store) -> None:
    record = begun(store)
    term = store.lease(LEASE, "one", 60.0)
    assert term
    good = Good("fraud", "2", "digest-2", record.id, "1", "digest-1", 9.0, 5.0)
    told = Delivery("e1", "hook", "waiting", 0, 5.0, 5.0, "", b"{}")
    wish = step(
        record, 1, good=good, blocks="it failed", deliveries=(told,), want=frozenset("1"), unwant=frozenset("2")
    )
    after = store.apply_rollout(wish, term)
    assert (after.stage, after.seq, after.term) == ("step", 1, term)
    assert [(stage.generation, stage.epoch, stage.units) for stage in after.stages] == [(2, 1, 500)]
    assert store.routes()["fraud"].document == FIVE
    assert store.last_good("fraud") == good
    assert [(each.digest, each.reason) for each in store.blocked("fraud")] == [("digest-2", "it failed")]
    assert store.wanted() == {("fraud", "1")}
    assert [each.event for each in store.deliveries()] == ["e1"]
    (kept,) = store.rollout_decisions(record.id)
    assert (kept.event, kept.generation, kept.snapshot) == ("start_steps", 2, {"n": 1})
    assert store.verify_audit().ok


def test_one_effect_that_cannot_be_had_leaves_none_of_them(store: Store) -> None:
    record = begun(store)
    term = store.lease(LEASE, "one", 60.0)
    assert term
    before = (store.rollout(record.id), store.routes(), store.wanted(), store.revision(), len(store.audit_log()))
    wish = step(record, 1, want=frozenset("9"), blocks="it failed")
    with pytest.raises(NotFound):
        store.apply_rollout(wish, term)
    after = (store.rollout(record.id), store.routes(), store.wanted(), store.revision(), len(store.audit_log()))
    assert after == before
    assert store.blocked() == []


def test_who_lost_the_lease_writes_nothing_more(open_store: Open) -> None:
    old, new = open_store(), open_store()
    record = begun(old)
    first = old.lease(LEASE, "one", 60.0)
    assert first
    old.release(LEASE, "one")
    second = new.lease(LEASE, "two", 60.0)
    assert second == first + 1
    touch = Touch(record.id, 0, record.cursor, {"headline": "mine"}, {"units": 0}, 1.0)
    for write in (
        lambda: old.apply_rollout(step(record, 1), first),
        lambda: old.touch_rollouts([touch], first),
        lambda: old.next_rollout(record.id, record.cursor, {}, first),
    ):
        with pytest.raises(Fenced, match=f"term {first}: a control process with term {second} leads by now"):
            write()
    assert old.rollout(record.id) == record
    assert old.routes()["fraud"].document == ONE
    assert new.apply_rollout(step(record, 1), second).seq == 1


def test_a_decision_of_what_was_read_too_early_is_refused(store: Store) -> None:
    record = begun(store)
    term = store.lease(LEASE, "one", 60.0)
    assert term
    with pytest.raises(RolloutConflict, match="the route has changed since it was read"):
        store.apply_rollout(step(record, 7), term)
    store.apply_rollout(step(record, 1), term)
    with pytest.raises(RolloutConflict, match="1 decisions are kept, 0 were when it was read"):
        store.apply_rollout(step(record, 2), term)
    store.touch_rollouts([Touch(record.id, 0, {"stage": "old"}, {"headline": "old"})], term)
    assert store.rollout(record.id).stage == "step"
    assert store.rollout(record.id).cursor["stage"] == "step"


def test_a_route_by_hand_is_refused_under_a_rollout_unless_it_supersedes_it(store: Store) -> None:
    begun(store)
    with pytest.raises(RolloutConflict, match="rollout fraud-1 has it in hand"):
        store.put_route("fraud", FIVE, None, "bert", "quick")
    assert store.routes()["fraud"].generation == 1
    store.put_route("fraud", FIVE, None, "bert", "urgent", supersede=True)
    assert store.rollout("fraud-1").orders == {"superseded_by": "the route of generation 2 by bert"}
    (entry,) = store.audit_log(model="fraud", action="rollout.supersede")
    assert (entry.actor, entry.reason) == ("bert", "urgent")


def test_files_that_were_taken_back_start_again_only_with_an_override(store: Store) -> None:
    record = begun(store)
    term = store.lease(LEASE, "one", 60.0)
    assert term
    store.apply_rollout(step(record, 1, blocks="it failed", is_live=False, outcome="rolled_back"), term)
    with pytest.raises(RolloutConflict, match=r"taken back by rollout fraud-1 \(it failed\); override"):
        begun(store)
    assert begun(store, override=True).id == "fraud-2"
    assert [each.actor for each in store.audit_log(model="fraud", action="rollout.override")] == ["ada"]


def test_what_looks_have_seen_is_kept_as_points(store: Store) -> None:
    record = begun(store)
    term = store.lease(LEASE, "one", 60.0)
    assert term
    for at in (1.0, 2.0, 2.0):
        store.touch_rollouts([Touch(record.id, 0, record.cursor, {"at": at}, {"units": at}, at)], term)
    assert store.rollout_samples(record.id) == [(1.0, {"units": 1.0}), (2.0, {"units": 2.0})]
    assert store.rollout(record.id).status == {"at": 2.0}
