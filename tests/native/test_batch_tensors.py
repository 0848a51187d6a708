"""Rows into the batch's arrays and out of its answers: every datatype, many tensors, strings, large rows."""

import numpy as np
import pytest

from tests.support.lanes import NUMPY, Harness


def echo(arrays):
    return list(arrays)


def sample(datatype, shape, seed=0):
    random = np.random.default_rng(seed)
    if datatype == "BYTES":
        texts = ["", "a", "grüße", "0" * 300, "\0", "日本"]
        return np.array([texts[i] for i in random.integers(0, 6, int(np.prod(shape)))], object).reshape(shape)
    if datatype == "BOOL":
        return random.integers(0, 2, shape).astype(bool)
    return random.integers(0, 100, shape).astype(NUMPY[datatype])


def same(answer, expected):
    if expected.dtype == object:
        assert answer.shape == expected.shape
        assert [text.decode() for text in answer.ravel()] == list(expected.ravel())
    else:
        assert answer.dtype == expected.dtype
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("datatype", list(NUMPY))
@pytest.mark.parametrize("inner", [(), (3,), (2, 3), (0,), (1, 1, 1, 1, 1, 1, 1)], ids=str)
def test_every_datatype_and_rank_survives_joining_and_splitting(datatype, inner):
    with Harness() as plane:
        plane.lane(echo, inputs=[("x", datatype, (-1, *inner))], max_batch_size=4)
        tensors = [sample(datatype, (rows, *inner), rows) for rows in (1, 2, 0, 9, 1)]
        calls = [plane.send(tensor) for tensor in tensors]
        plane.turn()
        plane.finish_all()
        for call, tensor in zip(calls, tensors, strict=True):
            assert call.response.outputs[0].datatype == datatype
            same(call.outputs["y"], tensor)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9, 40])
def test_any_number_of_inputs_and_outputs_keeps_its_order(n):
    inputs = [(f"x{i}", "FP32" if i % 3 else "BYTES", (-1, 1 + i % 2)) for i in range(n)]
    with Harness() as plane:
        plane.lane(echo, inputs=inputs)
        requests = [
            [sample(spec[1], (rows, spec[2][1]), rows * 100 + i) for i, spec in enumerate(inputs)] for rows in (1, 3)
        ]
        names = [spec[0] for spec in inputs]
        calls = [
            plane.send(*requests[0], names=names),
            plane.send(*reversed(requests[1]), names=list(reversed(names))),
        ]
        plane.turn()
        assert plane.finish_all() == 1
        for call, tensors in zip(calls, requests, strict=True):
            assert list(call.outputs) == [f"y{i}" for i in range(n)]
            for i, tensor in enumerate(tensors):
                same(call.outputs[f"y{i}"], tensor)


def test_each_caller_gets_the_outputs_it_asked_for_in_its_order():
    inputs = [(f"x{i}", "INT64", (-1,)) for i in range(12)]
    with Harness() as plane:
        plane.lane(echo, inputs=inputs)
        tensors = [np.array([i], np.int64) for i in range(12)]
        wishes = [[], ["y3"], ["y11", "y0"], [f"y{i}" for i in (9, 8, 7, 6, 5)], [f"y{i}" for i in reversed(range(12))]]
        calls = [plane.send(*tensors, outputs=wish) for wish in wishes]
        plane.turn()
        assert plane.finish_all() == 1
        for call, wish in zip(calls, wishes, strict=True):
            expected = wish or [f"y{i}" for i in range(12)]
            assert list(call.outputs) == expected
            assert [int(call.outputs[name][0]) for name in expected] == [int(name[1:]) for name in expected]


def test_the_model_gets_contiguous_writable_arrays_of_its_own():
    seen = []

    def run(arrays):
        seen.append([(array.dtype, array.shape, array.flags.c_contiguous, array.flags.writeable) for array in arrays])
        for array in arrays:
            array[...] = 0
        return [np.ones((3, 2), np.float32), np.ones(3, np.int16)]

    with Harness() as plane:
        plane.lane(run, inputs=[("x0", "FP32", (-1, 2)), ("x1", "INT16", (-1,))])
        calls = [plane.send(np.ones((rows, 2), np.float32), np.ones(rows, np.int16)) for rows in (1, 2)]
        plane.turn()
        plane.finish_all()
        assert seen == [[(np.float32, (3, 2), True, True), (np.int16, (3,), True, True)]]
        assert calls[0].outputs["y0"].tolist() == [[1, 1]]


def test_outputs_may_be_read_only_or_views_of_the_inputs():
    def run(arrays):
        array = arrays[0].view()
        array.flags.writeable = False
        return [array]

    with Harness() as plane:
        plane.lane(run)
        call = plane.send([1.0, 2.0])
        plane.turn()
        plane.finish_all()
        assert call.rows == [1.0, 2.0]


class Seen:
    """Answers twice what it got, and remembers of each array where it lay and whether it was its own."""

    def __init__(self):
        self.n_own, self.arrays = [], []

    def __call__(self, arrays):
        self.n_own.append(sum(array.flags.writeable for array in arrays))
        self.arrays.append([(array.ctypes.data, array.flags.c_contiguous) for array in arrays])
        return [array * 2 for array in arrays]


@pytest.mark.parametrize("request_id", ["", "a", "ab", "an id of another length"])
def test_a_large_tensor_that_runs_alone_is_not_copied(request_id):
    """Whatever stands before it in the message: that is placed so that the tensor is aligned."""
    big, seen = np.random.default_rng(1).random((1, 20_000), np.float32), Seen()
    with Harness() as plane:
        plane.lane(seen, inputs=[("x", "FP32", (-1, 20_000))])
        call = plane.send(big, request_id=request_id)
        plane.turn()
        plane.finish_all()
        np.testing.assert_array_equal(call.outputs["y"], big * 2)
        ((address, is_contiguous),) = seen.arrays[0]
        assert (seen.n_own, address % 64, is_contiguous) == ([0], 0, True)


def test_of_many_inputs_those_that_are_small_or_not_aligned_are_copied():
    specs = [("x0", "UINT8", (-1, 100_001)), ("x1", "FP32", (-1, 20_000)), ("x2", "FP32", (-1, 1))]
    tensors = [np.full((1, shape[1]), i + 1, NUMPY[kind]) for i, (_, kind, shape) in enumerate(specs)]
    seen = Seen()
    with Harness() as plane:
        plane.lane(seen, inputs=specs)
        call = plane.send(*tensors)
        plane.turn()
        plane.finish_all()
        for i, tensor in enumerate(tensors):
            np.testing.assert_array_equal(call.outputs[f"y{i}"], tensor * 2)
        assert seen.n_own == [2]


@pytest.mark.parametrize("cut_at", [1, 30, 16_384])
def test_a_message_whose_beginning_comes_in_pieces_is_answered_all_the_same(cut_at):
    """Where the tensor begins is not in the first piece then, and it is copied unless it happens to be aligned."""
    big, seen = np.random.default_rng(1).random((1, 20_000), np.float32), Seen()
    with Harness() as plane:
        plane.lane(seen, inputs=[("x", "FP32", (-1, 20_000))])
        call = plane.send(big, first_bytes=cut_at)
        plane.turn()
        plane.finish_all()
        np.testing.assert_array_equal(call.outputs["y"], big * 2)


def test_the_bytes_of_a_request_that_was_cancelled_stay_until_its_run_has_ended():
    big, got = np.arange(20_000, dtype=np.float32).reshape(1, -1), []
    with Harness() as plane:
        call = None

        def run(arrays):
            plane.cancel(call)
            assert plane.plane.budget.used > 0
            got.append(arrays[0].copy())
            return arrays

        plane.lane(run, inputs=[("x", "FP32", (-1, 20_000))])
        call = plane.send(big)
        plane.turn()
        plane.finish_all()
        np.testing.assert_array_equal(got[0], big)
        assert plane.plane.budget.used == 0


@pytest.mark.parametrize("rows", [1, 3])
def test_large_tensors_are_copied_whole(rows):
    """Beyond 64 KiB the copy gives up the GIL; a single member takes another path than several."""
    big = np.random.default_rng(1).random((rows, 20_000), np.float32)
    with Harness() as plane:
        plane.lane(echo, inputs=[("x", "FP32", (-1, 20_000))], max_batch_size=2)
        alone = plane.send(big)
        plane.turn()
        plane.finish_all()
        together = [plane.send(big[:1]), plane.send(-big[:1])]
        plane.turn()
        assert plane.finish_all() == 1
        np.testing.assert_array_equal(alone.outputs["y"], big)
        np.testing.assert_array_equal(together[0].outputs["y"], big[:1])
        np.testing.assert_array_equal(together[1].outputs["y"], -big[:1])


def test_a_slice_of_a_large_tensor_starts_at_its_own_row():
    big = np.arange(5 * 30_000, dtype=np.float32).reshape(5, 30_000)
    seen = []
    with Harness() as plane:
        plane.lane(lambda x: seen.append(x[0].copy()) or [x[0]], inputs=[("x", "FP32", (-1, 30_000))], max_batch_size=2)
        call = plane.send(big)
        plane.turn()
        plane.finish_all()
        for first, array in zip((0, 2, 4), seen, strict=True):
            np.testing.assert_array_equal(array, big[first : first + 2])
        np.testing.assert_array_equal(call.outputs["y"], big)


def test_the_model_gets_strings_as_str():
    seen = []
    with Harness() as plane:
        plane.lane(lambda x: seen.extend(x[0].ravel()) or [x[0]], inputs=[("x", "BYTES", (-1, 2))])
        plane.send(np.array([["a", "é"]], object))
        plane.send(np.array([["", "日"]], object))
        plane.turn()
        plane.finish_all()
        assert seen == ["a", "é", "", "日"]
        assert {type(text) for text in seen} == {str}


@pytest.mark.parametrize("kind", [str, bytes, np.str_, np.bytes_])
def test_the_model_may_answer_text_of_any_kind(kind):
    def run(x):
        answer = np.empty((len(x[0]), 1), object)
        answer[:, 0] = [kind("ab") if issubclass(kind, str) else kind(b"ab") for _ in range(len(x[0]))]
        return [answer]

    with Harness() as plane:
        plane.lane(run, outputs=[("y", "BYTES", (-1, 1))])
        calls = [plane.send([1.0, 2.0]), plane.send([1.0])]
        plane.turn()
        plane.finish_all()
        assert [call.outputs["y"].ravel().tolist() for call in calls] == [[b"ab"] * 2, [b"ab"]]


@pytest.mark.parametrize("element", [None, 3, 1.5, [65], np.array([65, 66]), "\ud800"], ids=repr)
def test_an_answer_that_is_no_text_fails_only_whom_it_belongs_to(element):
    def run(x):
        answer = np.empty((len(x[0]), 1), object)
        answer[:, 0] = ["fine"] * len(x[0])
        for at in np.flatnonzero(x[0] == 7):
            answer[at, 0] = element
        return [answer]

    with Harness() as plane:
        plane.lane(run, outputs=[("y", "BYTES", (-1, 1))])
        calls = [plane.send(1.0), plane.send(7.0), plane.send(2.0)]
        plane.turn()
        plane.finish_all()
        assert [call.code for call in calls] == [0, 13, 0]
        assert len(plane.faults) == 1
        plane.faults.clear()


def test_typed_contents_and_raw_ones_share_a_batch():
    with Harness() as plane:
        plane.lane(echo, inputs=[("x", "FP32", (-1, 2))])
        typed = plane.request(np.zeros((2, 2), np.float32))
        del typed.raw_input_contents[:]
        typed.inputs[0].contents.fp32_contents.extend([5, 6, 7, 8])
        calls = [plane.send(np.array([[1, 2]], np.float32)), plane.send(message=typed)]
        plane.turn()
        assert plane.finish_all() == 1
        assert [call.rows for call in calls] == [[1, 2], [5, 6, 7, 8]]


def test_a_batch_tells_what_it_is():
    with Harness() as plane:
        plane.lane()
        plane.send([1.0, 2.0])
        plane.send(3.0)
        plane.turn()
        assert (plane.batches[0].n_rows, plane.batches[0].errors, plane.batches[0].cost_us) == (3, None, 0)
        assert plane.batches[0].signature.model == "m"
        batch = plane.finish()
        assert batch.cost_us >= 0
        del batch
