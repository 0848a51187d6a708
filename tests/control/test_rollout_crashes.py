"""Rollouts carried out on a real store, while whoever carries them out dies at any call to it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.control import rolloutorders
from gateway.rollout.plan import Plan
from gateway.store import Store, StoreUnavailable
from gateway.store.rolloutrecords import RolloutConflict
from tests.support.carried import Carried, Died, open_store
from tests.support.rollouts import Version, plan

QUICK = {"min_time": "1s", "max_time": "10min", "min_requests": 100}
CANARY = plan(steps=[{"weight": 20, **QUICK}, {"weight": 50, **QUICK}], bake={"time": "1s", "min_requests": 100})
SHADOWED = plan(
    strategy=["shadow", "canary"],
    shadow={"percent": 50, "min_time": "1s", "max_time": "10min", "min_pairs": 100},
    steps=[{"weight": 50, **QUICK}],
    bake={"time": "1s", "min_requests": 100},
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def walk_dying(carried: Carried, until: str) -> int:
    """Every look is begun anew until it gets through: its first call dies before it is made, then after, then the
    second, and so on. How often it died.
    """
    died = 0
    for _ in range(200):
        if carried.record().stage == until:
            return died
        carried.tick(0.5)
        carried.world.serve(1000)
        call = 1
        while True:
            for after in (False, True):
                carried.duty = carried.born()
                carried.mortal.dies_at, carried.mortal.after = call, after
                try:
                    carried.duty.run(carried.mortal)  # type: ignore[arg-type]
                except Died:
                    died += 1
                else:
                    if carried.mortal.calls < call:
                        break
                carried.check()
                carried.report()
            else:
                call += 1
                continue
            break
    raise AssertionError(f"it did not come to {until}; it is {carried.record().stage}: {carried.record().status}")


@pytest.mark.parametrize(
    ("rules", "candidate", "end"),
    [(CANARY, Version(), "promoted"), (CANARY, Version(failing=0.3), "rolled_back")],
    ids=["good", "bad"],
)
def test_it_comes_to_the_same_end_when_its_process_dies_at_every_call_to_the_store(
    store: Store, rules: Plan, candidate: Version, end: str
) -> None:
    carried = Carried(store, rules, candidate)
    carried.start()
    assert walk_dying(carried, end) > 30
    carried.check(again=True)
    assert store.verify_audit().ok
    (good,) = [store.last_good("fraud")]
    assert (good.version if good else None) == ("2" if end == "promoted" else None)
    assert [each.version for each in store.blocked("fraud")] == (["2"] if end == "rolled_back" else [])
    versions = store.routes()["fraud"].document["versions"]
    assert versions == ({"2": 100} if end == "promoted" else {"1": 100})


def test_it_comes_to_its_end_when_the_store_fails_at_every_call_before_or_after_it_did_what_was_asked(
    store: Store,
) -> None:
    carried = Carried(store, SHADOWED)
    carried.start()
    call, failed = 1, 0
    for turn in range(600):
        stage = carried.record().stage
        if stage == "promoted":
            break
        mortal = carried.mortal
        mortal.calls, mortal.dies_at, mortal.after, mortal.fails = 0, call, turn % 2 == 1, True
        with contextlib.suppress(StoreUnavailable):
            carried.turn()
        happened = mortal.calls >= call
        mortal.dies_at = None
        carried.report()
        carried.check()
        failed += happened
        went_on = (
            carried.record().stage != stage
        )  # some of what fails holds nothing up, and each stage has all its calls
        call = call + turn % 2 if happened and not went_on else 1
    assert carried.record().stage == "promoted"
    assert failed > 30
    carried.check(again=True)
    events = [each.event for each in store.rollout_decisions(carried.record().id) if each.event]
    assert events == ["loaded", "start_shadow", "start_steps", "start_baking", "promote"]


def test_nothing_moves_while_the_store_is_away_for_half_a_minute_and_all_that_came_meanwhile_counts(
    store: Store,
) -> None:
    """Longer than each step's least time: what passed without a store gives nobody traffic."""
    carried = Carried(store, CANARY)
    carried.start()
    carried.until(lambda: carried.record().stage == "step" and carried.record().cursor["acknowledged_s"])
    before = carried.record()
    carried.mortal.is_away = True
    for _ in range(60):
        with contextlib.suppress(StoreUnavailable):
            carried.turn(0.5)
    assert carried.record() == before
    carried.mortal.is_away = False
    carried.until(lambda: carried.record().seq > before.seq)
    (on,) = [each for each in store.rollout_decisions(before.id) if each.event == "next_step"]
    (split,) = [each for each in on.snapshot["evidence"]["split"] if each["index"] == before.cursor["epoch"]]
    assert split["n_stable"] + split["n_candidate"] > 30 * carried.world.requests_per_s
    carried.until(lambda: carried.record().stage == "promoted")
    carried.check(again=True)


def test_without_a_crash_each_decision_is_taken_once_and_told_once(store: Store) -> None:
    carried = Carried(store, CANARY)
    carried.start()
    carried.until(lambda: carried.record().stage == "promoted")
    carried.check()
    events = [each.event for each in store.rollout_decisions(carried.record().id) if each.event]
    assert events == ["loaded", "start_steps", "next_step", "start_baking", "promote"]
    assert [each.endpoint for each in store.deliveries()] == ["hook"]
    weights = [stage.units for stage in carried.record().stages]
    assert weights == [2000, 5000, 9500, 10000]


happenings = st.one_of(
    st.tuples(st.just("serve"), st.integers(1, 4)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 30.0, 700.0])),
    st.tuples(st.just("die"), st.integers(1, 12)),
    st.tuples(st.just("die after"), st.integers(1, 12)),
    st.tuples(st.just("fail"), st.integers(1, 12)),
    st.tuples(st.just("clock"), st.sampled_from([-3600, 3600])),
    st.tuples(st.just("stable"), st.booleans()),
    st.tuples(st.just("candidate"), st.booleans()),
    st.tuples(st.just("behave"), st.sampled_from([0.0, 0.03, 0.5])),
    st.tuples(st.just("evidence"), st.booleans()),
    st.tuples(st.just("follow"), st.booleans()),
    st.tuples(st.just("order"), st.sampled_from(["pause", "resume", "abort", "promote", "to end", "retry"])),
    st.tuples(st.just("leader"), st.just(0)),
    st.tuples(st.just("route"), st.booleans()),
    st.tuples(st.just("another"), st.just(0)),
)


def happen(carried: Carried, what: str, how: float) -> None:
    store = carried.store
    if what == "serve":
        for _ in range(int(how)):
            carried.turn()
    elif what == "wait":
        carried.turn(how, requests=False)
    elif what in ("die", "die after", "fail"):
        carried.mortal.calls, carried.mortal.dies_at = 0, int(how)
        carried.mortal.after, carried.mortal.fails = what == "die after", what == "fail"
        try:
            carried.turn()
        except Died:
            carried.duty = carried.born()
        except Exception:
            assert what == "fail"
        carried.mortal.dies_at = None
        carried.report()
    elif what == "clock":
        carried.world.wall_s += how
    elif what == "stable":
        carried.stable_ready = bool(how)
        carried.report()
    elif what == "candidate":
        carried.candidate_ready = bool(how)
        carried.report()
    elif what == "behave":
        carried.world.candidate = Version(failing=how)
    elif what == "evidence":
        carried.evidence_fault = "a hole" if how else ""
    elif what == "follow":
        carried.follows = bool(how)
        carried.report()
    elif what == "leader":
        carried.lead("two")
        carried.duty = carried.born()
    elif what == "route":
        with contextlib.suppress(RolloutConflict):
            store.put_route("fraud", {"versions": {"1": 100}}, None, "ada", "by hand", supersede=bool(how))
        carried.report()
    elif what == "another":
        with contextlib.suppress(RolloutConflict):
            carried.start(supersede=True, override=True)
    else:
        order(carried, str(how))


def order(carried: Carried, name: str) -> None:
    changes = {
        "pause": rolloutorders.pause,
        "resume": rolloutorders.resume,
        "abort": lambda record: rolloutorders.abort(record, "enough"),
        "promote": lambda record: rolloutorders.promote(record, "it is urgent", to_end=False),
        "to end": lambda record: rolloutorders.promote(record, "it is urgent", to_end=True),
        "retry": rolloutorders.retry,
    }
    with contextlib.suppress(rolloutorders.Untimely):
        carried.store.order_rollout(carried.record().id, changes[name], "ada", f"rollout.{name}", "")


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(happenings, min_size=4, max_size=14), seed=st.integers(0, 100))
def test_whatever_happens_what_is_stored_holds_together_and_it_comes_to_an_end(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, float]], seed: int
) -> None:
    with open_store(tmp_path_factory.mktemp("store")) as store:
        carried = Carried(store, SHADOWED if seed % 2 else CANARY, seed=seed)
        carried.start()
        for _ in range(4):
            carried.turn()
        for what, how in events:
            happen(carried, what, how)
            carried.check()
        carried.follows = carried.stable_ready = carried.candidate_ready = True
        carried.evidence_fault, carried.world.candidate = "", Version()
        carried.mortal.dies_at = None
        carried.report()
        for _ in range(40):
            order(carried, "abort")
            order(carried, "retry")
            carried.turn()
            if all(not each.is_live for each in store.rollouts("fraud")):
                break
        carried.check(again=True)
        assert [each.stage for each in store.rollouts("fraud", live=True)] == []
        assert store.verify_audit().ok
