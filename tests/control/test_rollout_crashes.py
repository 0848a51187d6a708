"""Rollouts carried out on a real store, while whoever carries them out dies at any call to it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.control import rolloutorders
from gateway.rollout.plan import Plan
from gateway.store import Store
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
    [(CANARY, Version(), "promoted"), (CANARY, Version(failing=0.3), "rolled_back"), (SHADOWED, Version(), "promoted")],
    ids=["good", "bad", "shadow first"],
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


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
