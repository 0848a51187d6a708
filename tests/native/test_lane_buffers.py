"""Small batches on the loop are gathered into arrays of the backend, which the next batch uses again."""

from __future__ import annotations

import numpy as np

from tests.support.lanes import INTERNAL, OK, Harness


class Buffered:
    """Doubles; in its own arrays where it is given them, as a backend with bound arrays does."""

    def __init__(self, poison: float | None = None) -> None:
        self.inputs = {rows: [np.zeros((rows, 1), np.float32)] for rows in range(1, 9)}
        self.outputs = {rows: [np.zeros((rows, 1), np.float32)] for rows in range(1, 9)}
        self.poison, self.n_own, self.n_other = poison, 0, 0

    def __call__(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        rows = len(inputs[0])
        if self.poison is not None and self.poison in inputs[0]:
            raise RuntimeError("poisoned")
        if inputs is self.inputs.get(rows):
            self.n_own += 1
            np.multiply(inputs[0], 2, out=self.outputs[rows][0])
            return self.outputs[rows]
        self.n_other += 1
        return [inputs[0] * 2]


def lane_of(plane: Harness, model: Buffered, **policy):
    lane = plane.lane(model, buffers=model.inputs, **{"inline_below_us": 1_000_000_000} | policy)
    lane.learn(1, 1.0)
    return lane


def test_each_request_has_its_own_answer_though_the_arrays_are_the_same():
    model = Buffered()
    with Harness() as plane:
        lane_of(plane, model)
        calls = []
        for value in range(5):
            calls.append(plane.send(float(value)))
            plane.turn()
        calls.append(plane.send([5.0, 6.0]))
        plane.turn()
        assert [call.rows for call in calls] == [[0.0], [2.0], [4.0], [6.0], [8.0], [10.0, 12.0]]
        assert (model.n_own, model.n_other) == (6, 0)


def test_a_batch_of_several_is_gathered_in_order():
    model = Buffered()
    with Harness() as plane:
        lane_of(plane, model)
        calls = [plane.send(float(value)) for value in range(7)]
        plane.turn()
        assert [call.rows for call in calls] == [[2.0 * value] for value in range(7)]
        assert model.n_own == 1


def test_larger_batches_and_those_of_executors_get_new_arrays():
    model = Buffered()
    with Harness() as plane:
        lane_of(plane, model)
        call = plane.send([1.0] * 9)
        plane.turn()
        assert call.rows == [2.0] * 9
        assert model.n_own == 0
    with Harness() as plane:
        lane_of(plane, model, inline_below_us=0)
        call = plane.send(1.0)
        plane.turn()
        plane.finish_all()
        assert call.rows == [2.0]
        assert model.n_own == 0


def test_parts_of_a_split_request_are_not_overwritten_by_the_next_part():
    model = Buffered()
    with Harness() as plane:
        lane_of(plane, model, max_batch_size=4)
        call = plane.send([float(value) for value in range(12)])
        plane.turn()
        assert call.rows == [2.0 * value for value in range(12)]
        assert model.n_own == 0


def test_halves_of_a_failed_batch_get_new_arrays():
    model = Buffered(poison=2.0)
    with Harness() as plane:
        lane_of(plane, model)
        calls = [plane.send(float(value)) for value in range(4)]
        plane.turn()
        assert [call.code for call in calls] == [OK, OK, INTERNAL, OK]
        assert [calls[at].rows for at in (0, 1, 3)] == [[0.0], [2.0], [6.0]]
        plane.expect_faults(RuntimeError)
        assert model.n_own == 0
