"""Under pressure shadow work is what goes: by budget, oldest first, counted by reason; it runs in idle turns only."""

import numpy as np
import pytest

from gateway.native.shadow import DROP_REASONS
from tests.support.lanes import OK, Model
from tests.support.shadows import ShadowHarness


def held(plane):
    """The shadow's only executor is busy, so that what comes next stays queued."""
    plane.send(0.0)
    plane.turn()
    plane.primary()


def test_a_full_budget_drops_the_oldest_that_still_wait():
    with ShadowHarness(Model(), Model(), max_concurrency=3) as plane:
        held(plane)
        calls = [plane.send(float(value), request_id=f"r{value}") for value in range(1, 6)]
        plane.turn()
        plane.primary()
        assert [call.code for call in calls] == [OK] * 5
        assert plane.stats.dropped == {"oldest": 3}
        assert plane.load.requests == 3
        plane.finish_all()
        assert plane.counts["both_answered"] == 3
        assert plane.lanes["m/2 shadow"].runner.runs == [[0], [4, 5]]


def test_what_runs_already_makes_no_room_and_the_new_one_is_dropped():
    with ShadowHarness(max_concurrency=1) as plane:
        held(plane)
        plane.send(1.0)
        plane.turn()
        assert plane.stats.dropped == {"concurrency": 1}
        plane.finish_all()


@pytest.mark.parametrize("budget", [{"max_rows": 5}, {"max_bytes": 120}])
def test_rows_and_bytes_are_budgets_too(budget):
    with ShadowHarness(**budget) as plane:
        held(plane)
        for _ in range(6):
            plane.send([1.0, 2.0])
        plane.turn()
        assert plane.load.rows <= budget.get("max_rows", 100)
        assert plane.load.nbytes <= budget.get("max_bytes", 1_000)
        assert plane.stats.dropped["oldest"] >= 3
        plane.finish_all()


def test_a_request_over_the_whole_budget_has_no_shadow():
    with ShadowHarness(max_rows=3) as plane:
        plane.send([1.0] * 4)
        plane.turn()
        assert plane.stats.dropped == {"too_large": 1}
        plane.finish_all()


@pytest.mark.parametrize("first", ["primary", "shadow"])
def test_answers_that_the_budget_has_no_room_for_are_not_kept(first):
    outputs = [("y", "FP32", (-1, 1_000))]
    with ShadowHarness(lambda given: [np.zeros((1, 1_000), np.float32)], outputs=outputs, max_bytes=3_000) as plane:
        call = plane.send(1.0)
        plane.turn()
        getattr(plane, first)()
        assert plane.stats.dropped == {"answers": 1}
        assert plane.load.nbytes == 0
        plane.finish_all()
        assert call.code == OK
        assert plane.shadow_arm.statistics()["requests"] in ({}, {OK: 1})


def test_when_the_workers_memory_is_half_used_up_there_is_no_shadow():
    with ShadowHarness(max_in_flight_bytes=1_000) as plane:
        first = plane.send([1.0] * 128)  # some 540 bytes
        plane.turn()
        plane.send(1.0)
        plane.turn()
        assert plane.stats.dropped["memory"] >= 1
        plane.finish_all()
        assert first.code == OK
        assert plane.plane.budget.used == 0


def test_a_queue_of_the_shadows_that_is_full_is_no_ones_trouble():
    with ShadowHarness(shadow_policy={"max_queue_rows": 2}) as plane:
        held(plane)
        calls = [plane.send(1.0) for _ in range(5)]
        plane.turn()
        plane.primary()
        assert {call.code for call in calls} == {OK}
        assert plane.stats.dropped == {"refused": 3}
        plane.finish_all()


def test_a_version_that_is_being_unloaded_is_no_shadow_and_what_was_queued_goes():
    with ShadowHarness() as plane:
        held(plane)
        plane.send(1.0)
        plane.turn()
        plane.primary()
        plane.version_2.close()
        assert plane.twin.n_queued == 0
        assert plane.stats.dropped == {"not_serving": 1}
        plane.send(2.0)
        plane.turn()
        assert plane.stats.dropped == {"not_serving": 2}
        plane.finish_all()


def test_shadow_work_waits_for_an_executor_that_nobody_else_uses():
    with ShadowHarness(instances=1) as plane:
        plane.plane.occupancy.n_cores = 1
        plane.send(1.0)
        plane.turn()
        assert [batch.signature.version for batch in plane.batches] == ["1"]
        plane.turn()
        assert len(plane.batches) == 1, "the core is taken"
        plane.primary()
        assert [batch.signature.version for batch in plane.batches] == ["2"]
        call = plane.send(2.0)
        plane.turn()
        assert [batch.signature.version for batch in plane.batches] == ["2", "1"], "a primary waits for no shadow"
        plane.primary()
        assert call.rows == [4]
        plane.finish_all()


def test_one_batch_of_shadow_work_at_a_time():
    with ShadowHarness() as plane:
        for value in range(20):
            plane.send(float(value))
        plane.turn()
        plane.turn()
        assert sum(batch.signature.version == "2" for batch in plane.batches) == 1
        plane.finish_all()
        assert [len(run) for run in plane.lanes["m/2 shadow"].runner.runs] == [8, 8, 4]


def test_a_large_batch_of_shadow_work_is_settled_a_few_an_idle_turn():
    with ShadowHarness(shadow_policy={"max_batch_size": 40}) as plane:
        for value in range(40):
            plane.send(float(value))
        plane.turn()
        while any(batch.signature.version == "1" for batch in plane.batches):
            plane.primary()
        batch = plane.batches.pop()
        batch.execute(plane.lanes["m/2 shadow"].runner)
        plane.plane.settle(batch, plane.now_us)
        del batch
        left = [plane.twin.statistics()["requests"].get(OK, 0)]
        while left[-1] < 40:
            plane.turn()
            left.append(plane.twin.statistics()["requests"].get(OK, 0))
        assert left == [16, 32, 40]
        plane.finish_all()
        for _ in range(3):
            plane.turn()
        assert plane.counts["both_answered"] == 40


def test_shadow_requests_are_gathered_and_a_deadline_in_the_queue_releases_nobody_early():
    with ShadowHarness(shadow_policy={"max_delay_us": 2_000}) as plane:
        plane.send(1.0)
        plane.turn()
        plane.primary()
        plane.send(2.0)
        plane.turn(1_000)
        plane.primary()
        assert plane.batches == []
        plane.turn(1_000)
        assert [batch.n_rows for batch in plane.batches] == [2]
        plane.finish_all()


def test_answers_are_compared_after_the_primarys_are_on_their_way():
    """A pair that the primary ends waits for an idle turn."""
    with ShadowHarness() as plane:
        plane.send(1.0)
        plane.turn()
        plane.shadow()
        batch = plane.batches.pop(0)
        batch.execute(plane.lanes["m"].runner)
        plane.plane.settle(batch, plane.now_us)
        del batch
        assert len(plane.plane.mirror.ended) == 1
        assert plane.counts["both_answered"] == 0
        plane.turn()
        assert plane.counts["both_answered"] == 1


# --- comparisons that are too large for the loop thread


LARGE = ("FP32", (-1, 50_000))


def test_large_answers_are_compared_where_it_holds_up_nobody():
    jobs = []
    with ShadowHarness(
        lambda inputs: [inputs[0] * 2],
        lambda inputs: [inputs[0] * 2 + np.float32(1)],
        inputs=[("x", *LARGE)],
        outputs=[("y", *LARGE)],
    ) as plane:
        plane.plane.mirror.offload = jobs.append
        plane.send(np.ones((1, 50_000), np.float32))
        plane.turn()
        plane.finish_all()
        (job,) = jobs
        assert plane.counts["both_answered"] == 0
        assert plane.load.requests == 1, "its bytes are still held"
        job.run()
        job.done()
        job.done()
        assert plane.counts["disagreed"] == 1
        assert plane.load.requests == 0
        (sample,) = plane.tally.worst
        name, _, shape, data, n_bytes, summary = sample.primary[0]
        assert (name, shape, n_bytes) == ("y", (1, 50_000), 200_000)
        assert np.frombuffer(data, np.float32).tolist() == [2.0] * 256
        assert summary == (2.0, 2.0, 2.0, 0)
        assert sample.shadow[0][5] == (3.0, 3.0, 3.0, 0)
        jobs.clear()
        del job


def test_a_thread_that_cannot_be_had_costs_the_pair_and_nothing_else():
    def refuse(job):
        raise RuntimeError("can't start new thread")

    with ShadowHarness(inputs=[("x", *LARGE)], outputs=[("y", *LARGE)]) as plane:
        plane.plane.mirror.offload = refuse
        call = plane.send(np.ones((1, 50_000), np.float32))
        plane.turn()
        plane.finish_all()
        plane.turn()
        assert call.code == OK
        assert plane.stats.dropped == {"fault": 1}
        plane.expect_faults(RuntimeError)


# --- samples are bounded


def test_the_worst_and_the_latest_disagreements_are_kept_and_no_more():
    def shadow(inputs):
        return [inputs[0] * 2 * (1 + inputs[0] / 1000)]

    with ShadowHarness(Model(), shadow, max_concurrency=1_000) as plane:
        for value in np.random.default_rng(1).permutation(np.arange(10, 70)):
            plane.send(float(value), request_id=str(value))
            plane.turn(200_000)
            plane.finish_all()
        assert [sample.id for sample in plane.tally.worst] == [str(value) for value in range(69, 53, -1)]
        assert len(plane.tally.recent) == 16
        assert plane.counts["disagreed"] == 60


def test_samples_of_large_tensors_stay_below_their_bound():
    width = 30_000
    x, y = ("x", "FP32", (-1, width)), ("y", "FP32", (-1, width))
    with ShadowHarness(Model(), lambda given: [given[0] * 3], inputs=[x], outputs=[y], max_bytes=1 << 30) as plane:
        plane.send(np.ones((5, width), np.float32))
        plane.turn()
        plane.finish_all()
        (sample,) = plane.tally.worst
        assert sum(len(data) for _, _, _, data, _, _ in (*sample.inputs, *sample.primary, *sample.shadow)) <= 65_536
        assert sample.index == 0


def test_every_reason_has_a_name():
    assert len(set(DROP_REASONS)) == len(DROP_REASONS)


def test_another_decision_is_worse_than_another_number_however_large():
    y = ("y", "FP32", (-1, 3))
    scores = np.array([[0.5, 0.3, 0.2]], np.float32)

    def shadow(given: list[np.ndarray]) -> list[np.ndarray]:
        """Row 1: a large number more. Row 2: another entry is the largest, by little. Row 3: a small number more."""
        apart = {1.0: [90.0, 0, 0], 2.0: [-0.1, 0.15, 0], 3.0: [0.01, 0, 0]}
        return [np.concatenate([scores + np.array(apart[float(x)], np.float32) for x in given[0][:, 0]])]

    with ShadowHarness(lambda given: [np.repeat(scores, len(given[0]), axis=0)], shadow, outputs=[y]) as plane:
        for value in (3.0, 1.0, 2.0):
            plane.send(value, request_id=f"row {value:.0f}")
            plane.turn()
            plane.finish_all()
        assert [sample.id for sample in plane.tally.worst] == ["row 2", "row 1", "row 3"]
