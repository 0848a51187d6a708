"""The lane beside its slow twin: arrivals, cancels, expiries, completions and failures in any order, step by step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lanes import OK, Harness, Model
from tests.support.slowlane import SlowLane, SlowRequest

POLICIES = st.fixed_dictionaries(
    {
        "cap": st.sampled_from([1, 3, 6, 8]),
        "max_delay_us": st.sampled_from([0, 0, 400, 5_000]),
        "instances": st.integers(1, 3),
        "max_queue_rows": st.sampled_from([8, 20, 1_000]),
        "max_queue_bytes": st.sampled_from([400, 1 << 20]),
        "max_batch_bytes": st.sampled_from([150, 1 << 20]),
        "is_variable": st.booleans(),
        "lingers": st.booleans(),
    }
)
SENDS = st.tuples(
    st.just("send"),
    st.sampled_from([1, 1, 1, 2, 3, 0, 9]),  # rows
    st.integers(1, 2),  # width
    st.integers(0, 3),  # priority
    st.sampled_from([0, 0, 0, 300, 2_000, 20_000]),  # timeout
    st.integers(0, 9),  # 0: one of its rows is poison
)
STEPS = st.one_of(
    SENDS,
    SENDS,
    SENDS,
    st.tuples(st.just("turn"), st.sampled_from([0, 1, 100, 400, 1_000, 6_000])),
    st.tuples(st.just("finish"), st.integers(0, 2)),
    st.tuples(st.just("finish"), st.integers(0, 2)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
)


@settings(max_examples=40, deadline=None)
@given(POLICIES, st.lists(STEPS, min_size=10, max_size=60), st.sampled_from([0, 150, 1_500]))
def test_batches_slices_reasons_and_outcomes_are_those_of_the_slow_twin(policy, steps, learnt_us):
    twin = SlowLane(**policy)
    policy = {name: value for name, value in policy.items() if name not in ("cap", "is_variable")}
    model = Model()
    with Harness() as plane:
        lane = plane.lane(
            model,
            inputs=[("x", "FP32", (-1, -1 if twin.is_variable else 1))],
            max_batch_size=twin.cap,
            priority_levels=3,
            default_priority=2,
            **policy,
        )
        if learnt_us:
            lane.learn(2, learnt_us)
            twin.cost.observe(2, learnt_us)
        pairs = []
        out = []  # the twin's batches, in the order of plane.batches

        def turn(after_us=0):
            plane.turn(after_us)
            formed = twin.turn(plane.now_us)
            out.extend(formed)
            assert [batch.n_rows for batch in plane.batches] == [batch.n_rows for batch in out]

        def finish(index):
            batch, slow = plane.batches.pop(index), out.pop(index)
            model.runs.clear()
            batch.execute(lane.runner)
            assert model.runs == twin.run(slow, model.poison)
            plane.plane.settle(batch, plane.now_us)
            twin.complete(slow, model.poison, batch.cost_us, plane.now_us)
            turn()

        for name, *rest in steps:
            if name == "send":
                rows, width, priority, timeout_us, fate = rest
                width = width if twin.is_variable else 1
                values = [float(len(pairs) * 16 + row) for row in range(rows)]
                if fate == 0 and values:
                    model.poison.add(values[-1])
                array = np.repeat(np.array(values, np.float32).reshape(-1, 1), width, 1)
                message = plane.request(array, priority=priority, timeout_us=timeout_us)
                slow = SlowRequest(values, width, priority or 2, timeout_us, message.ByteSize())
                pairs.append((plane.send(message=message), slow))
                twin.inbox.append(slow)
            elif name == "turn":
                turn(*rest)
            elif name == "finish" and plane.batches:
                finish(rest[0] % len(plane.batches))
            elif name == "cancel" and pairs:
                call, slow = pairs[rest[0] % len(pairs)]
                if not call.is_answered and not call.is_cancelled:
                    plane.cancel(call)
                    twin.cancel(slow)
            same_state(lane, twin)
        turn(10_000)
        while plane.batches:
            finish(0)
        turn(10_000)
        while plane.batches:
            finish(0)
        same_state(lane, twin)
        plane.faults.clear()
        for call, slow in pairs:
            assert slow.outcome is not None
            if isinstance(slow.outcome, str):
                assert not call.is_answered
                continue
            assert (call.code, call.n_ends) == (slow.outcome, 1)
            if call.code == OK:
                answer = call.outputs["y"]
                assert answer.shape == (len(slow.values), slow.width)
                assert answer[:, 0].tolist() == [2 * value for value in slow.values]


def same_state(lane, twin):
    counts = lane.statistics()
    assert counts["requests"] == twin.requests
    assert counts["releases"] == twin.releases
    for name in ("cancelled", "rows", "queue_us", "refused_rows", "refused_bytes"):
        assert counts[name] == getattr(twin, name), name
    assert (lane.n_queued, lane.n_running) == (len(twin.queue), len(twin.running))
    assert (lane.queued_rows, lane.queued_bytes) == (twin.queued_rows, twin.queued_bytes)
    assert lane.predicted_us(3) == pytest.approx(twin.cost.predict_us(3), rel=1e-6, abs=1e-6)
