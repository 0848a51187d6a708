"""What holds in every rollout, whatever happens in whatever order, and wherever the controller dies."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.evidence.verdict import Outcome
from gateway.rollout.decide import decide
from gateway.rollout.decision import Decision
from gateway.rollout.phase import TABLE, Event, Hold, Stage, is_serving
from gateway.rollout.plan import Plan
from gateway.rollout.replay import replay
from gateway.rollout.snapshot import Advance, Orders, Snapshot
from tests.support.rollouts import Version, World, plan

PLANS = (
    plan(),
    plan(strategy=["shadow", "canary"], shadow={"min_time": "5s", "max_time": "1min"}),
    plan(strategy="blue_green", gates=[]),
    plan(
        holds={"insufficient_evidence": "rollback", "judge_unavailable": "rollback", "judge_unavailable_after": "1min"}
    ),
    plan(holds={"insufficient_evidence": "raise"}, gates=["bake", "promote"]),
)
FORWARD = {Event.NEXT_STEP, Event.START_BAKING, Event.PROMOTE}

happenings = st.one_of(
    st.tuples(st.just("serve"), st.sampled_from([1.0, 5.0, 20.0])),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 30.0, 700.0])),
    st.tuples(st.just("look"), st.sampled_from([1.0, 3.0])),
    st.tuples(st.just("die"), st.sampled_from(["before", "between"])),
    st.tuples(st.just("clock"), st.sampled_from([-3600.0, 3600.0])),
    st.tuples(st.just("stable"), st.booleans()),
    st.tuples(st.just("candidate"), st.booleans()),
    st.tuples(st.just("behave"), st.sampled_from([0.0, 0.03, 0.5])),
    st.tuples(st.just("evidence"), st.sampled_from([0.0, 60.0, None])),
    st.tuples(st.just("paused"), st.booleans()),
    st.tuples(st.just("abort"), st.sampled_from(["", "", "enough"])),
    st.tuples(st.just("advance"), st.booleans()),
    st.tuples(st.just("another"), st.just("attempt 2")),
    st.tuples(st.just("retry"), st.booleans()),
    st.tuples(st.just("slow worker"), st.booleans()),
)


class Watched(World):
    """Checks every decision."""

    slow = False

    def publish(self) -> None:
        super().publish()
        if self.slow:
            self.workers[-1] = replace(self.workers[-1], epoch=self.cursor.epoch - 1)

    def look(self, *, apply: bool = True, publish: bool = True) -> Decision:
        snapshot = self.snapshot()
        decision = super().look(apply=apply, publish=publish)
        assert decide(self.plan, snapshot).as_dict() == decision.as_dict()
        self.check(snapshot, decision)
        return decision

    def check(self, snapshot: Snapshot, decision: Decision) -> None:
        was, now, event = snapshot.cursor, decision.cursor, decision.event
        assert now.stage is (TABLE[was.stage][event] if event else was.stage)
        assert 0 <= now.units <= 10_000
        if now.units < was.units:
            assert now.units == 0
            assert all(worker.stable_ready for worker in snapshot.workers)
        if now.units > was.units:
            assert event in {Event.START_STEPS, *FORWARD}
        if decision.changes_traffic:
            assert now.epoch == was.epoch + 1
            assert now.acknowledged_s is None
        else:
            assert (now.epoch, now.units, now.shadow_units) == (was.epoch, was.units, was.shadow_units)
        ordered = snapshot.orders.advance is not None and snapshot.orders.advance.epoch == was.epoch
        is_earned = event in FORWARD or (event is Event.START_STEPS and was.stage is Stage.SHADOW)
        from_trial = was.stage is Stage.WARMING
        if is_earned and not ordered and not from_trial:
            assert decision.promotion is not None
            assert decision.promotion.outcome is Outcome.OK
            assert was.acknowledged_s is not None
            assert not now.holds
            assert snapshot.evidence_age_s == 0.0
        if event in FORWARD:
            assert not decision.health.name.startswith("BAD")
        if event is Event.DRAINED:
            assert now.units == 0
        if was.stage in (Stage.SHADOW, Stage.STEP, Stage.BAKING):
            assert decision.split is not None  # the judge looks whatever holds there are
        if not is_serving(now.stage) and now.stage not in (Stage.ROLLING_BACK, Stage.NEEDS_OPERATOR):
            assert now.units == 0


def happen(world: Watched, what: str, how: object) -> None:
    if what == "serve":
        world.run(float(str(how)))
    elif what == "wait":
        world.pass_time(float(str(how)))
        world.look()
    elif what == "look":
        for _ in range(int(float(str(how)))):
            world.pass_time(0.25)
            world.look()
    elif what == "die":
        die(world, str(how))
    elif what == "clock":
        world.wall_s += float(str(how))
        world.look()
    elif what == "stable":
        world.workers = [replace(worker, stable_ready=bool(how)) for worker in world.workers]
    elif what == "candidate":
        world.workers[0] = replace(world.workers[0], candidate_ready=bool(how))
    elif what == "behave":
        world.candidate = Version(failing=float(str(how)))
    elif what == "evidence":
        world.others["evidence_age_s"] = how
    elif what == "slow worker":
        world.slow = bool(how)
    else:
        order(world, what, how)


def die(world: Watched, when: str) -> None:
    """The leader dies before it stores what it decided, or after that and before it publishes; another one looks."""
    world.pass_time(1.0)
    if when == "before":
        world.look(apply=False)
    else:
        world.look(publish=False)
        world.publish()  # the one after finds an intent without an effect, and does it
    world.passed_s = None  # the next one has another monotonic clock
    world.look()


def order(world: Watched, what: str, how: object) -> None:
    if what == "advance":
        advance = Advance(world.cursor.epoch, "it is urgent", to_end=bool(how))
        world.orders = replace(world.orders, advance=advance)
        world.look()
    else:
        name = {"paused": "is_paused", "abort": "abort", "another": "superseded_by", "retry": "retry"}[what]
        world.orders = replace(world.orders, **{name: how})


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PLANS), st.lists(happenings, max_size=14), st.integers(0, 100))
def test_whatever_happens_the_rules_hold_and_it_comes_to_an_end(
    rules: Plan, events: list[tuple[str, object]], seed: int
) -> None:
    world = Watched(rules, seed=seed)
    world.run(3)
    for what, how in events:
        happen(world, what, how)
    assert replay(world.plan, world.records) == []
    # all is well again and an operator gives it up: no state is a trap
    world.slow, world.others, world.candidate = False, {}, Version()
    world.workers = [
        replace(worker, stable_ready=True, candidate_ready=True, epoch=world.cursor.epoch, units=world.cursor.units)
        for worker in world.workers
    ]
    world.orders = Orders(abort="enough", retry=world.stage is Stage.NEEDS_OPERATOR)
    world.run(20)
    assert world.is_over
    assert world.cursor.units in (0, 10_000)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.3, 5.0, 60.0, 3600.0, 90_000.0]), max_size=30), st.sampled_from(PLANS))
def test_time_alone_never_gives_a_candidate_more_traffic(pauses: list[float], rules: Plan) -> None:
    world = Watched(rules, requests_per_s=0)
    world.run(3)
    weight = world.cursor.units
    for pause in pauses:
        world.pass_time(pause)
        world.look()
        assert world.cursor.units in (weight, 0)
        assert world.stage is not Stage.PROMOTED


def test_a_hold_does_not_keep_the_judge_from_taking_a_candidate_back() -> None:
    world = World(plan()).run(8)
    world.orders = Orders(is_paused=True)
    world.run(5)
    assert Hold.MANUAL in world.look().holds
    world.candidate = Version(failing=0.2)
    world.run(20)
    assert world.stage is Stage.ROLLED_BACK
