"""Executors: real threads and a real loop. Batches run there and come back here, whatever they do on the way."""

import asyncio
import gc
import sys
import threading
import weakref

import pytest

from gateway.batching.dispatch import Executor
from gateway.native.priority import standing
from tests.support.conditions import eventually


class Batch:
    """Runs `work` on the executor's thread and remembers where it was."""

    def __init__(self, work=lambda: None):
        self.work, self.thread, self.model = work, None, None

    def execute(self, run):
        self.thread, self.model = threading.current_thread(), run
        self.work()


class Loop:
    """What a lane does with completed batches, and a way to wait for them."""

    def __init__(self, n_threads=2, run="model", **options):
        self.completed = asyncio.Queue()
        self.threads_of_completion = set()
        self.executor = Executor("m/1", run, n_threads, asyncio.get_running_loop(), self._on_completed, **options)

    def _on_completed(self, batch):
        self.threads_of_completion.add(threading.current_thread())
        self.completed.put_nowait(batch)

    async def next(self):
        return await asyncio.wait_for(self.completed.get(), 10)


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("m/1-")]


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    eventually(lambda: not threads(), "the executor's threads have ended")


async def test_a_batch_runs_on_a_thread_of_the_executor_and_completes_on_the_loop():
    loop = Loop()
    batch = Batch()
    loop.executor.submit(batch)
    assert await loop.next() is batch
    assert batch.model == "model"
    assert batch.thread.name == "m/1-0"
    assert batch.thread.daemon
    assert loop.threads_of_completion == {threading.current_thread()}
    loop.executor.close()


async def test_no_thread_starts_before_the_first_batch():
    loop = Loop()
    assert threads() == []
    loop.executor.close()


async def test_one_thread_serves_batches_that_come_one_by_one():
    loop = Loop(n_threads=4)
    for _ in range(10):
        loop.executor.submit(Batch())
        await loop.next()
    assert len(threads()) == 1
    loop.executor.close()


@pytest.mark.parametrize("n_threads", [1, 3])
async def test_as_many_run_at_once_as_there_are_threads_and_no_more(n_threads):
    loop = Loop(n_threads)
    running, most, lock, go_on = [], [], threading.Lock(), threading.Event()

    def work():
        with lock:
            running.append(1)
            most.append(len(running))
        assert go_on.wait(60)
        with lock:
            running.pop()

    for _ in range(6):
        loop.executor.submit(Batch(work))
    eventually(lambda: len(running) == n_threads, "every thread holds a batch")
    assert len(threads()) == n_threads
    go_on.set()
    for _ in range(6):
        await loop.next()
    assert max(most) == n_threads
    loop.executor.close()


async def test_closing_lets_what_was_submitted_run_and_then_ends_every_thread():
    loop = Loop(n_threads=2)
    go_on = threading.Event()
    for _ in range(3):
        loop.executor.submit(Batch(lambda: go_on.wait(60)))
    loop.executor.close()
    assert len(threads()) == 2
    go_on.set()
    for _ in range(3):
        await loop.next()
    eventually(lambda: not threads(), "both threads have ended")


async def test_closing_before_anything_was_submitted_is_fine():
    Loop().executor.close()


async def test_an_idle_thread_keeps_nothing_of_its_last_batch():
    loop = Loop(n_threads=1)

    class Tensor:
        pass

    tensor = Tensor()
    gone = weakref.ref(tensor)
    batch = Batch()
    batch.tensor = tensor
    del tensor
    loop.executor.submit(batch)
    del batch
    done = await loop.next()
    del done
    assert eventually(lambda: gone() is None, "the batch's tensor is gone")
    assert threads()
    loop.executor.close()


async def test_the_executor_holds_the_model_no_longer_than_its_threads_live():
    class Model:
        pass

    model = Model()
    before = sys.getrefcount(model)
    loop = Loop(run=model)
    loop.executor.submit(Batch())
    (await loop.next()).model = None
    loop.executor.close()
    eventually(lambda: not threads(), "the thread has ended")
    del loop
    gc.collect()
    assert sys.getrefcount(model) == before


def test_a_loop_that_is_closed_ends_the_thread_without_a_complaint():
    go_on = threading.Event()

    async def leave():
        loop = Loop(n_threads=1)
        loop.executor.submit(Batch(lambda: go_on.wait(60)))
        eventually(threads, "the batch has begun")

    asyncio.run(leave())
    go_on.set()
    eventually(lambda: not threads(), "the thread has ended")


async def test_batches_come_back_while_the_loop_is_busy_and_are_completed_after():
    loop = Loop(n_threads=1)
    batches = [Batch() for _ in range(5)]
    for batch in batches:
        loop.executor.submit(batch)
    eventually(lambda: all(batch.thread for batch in batches), "all have run")
    assert loop.completed.empty()
    assert [await loop.next() for _ in batches] == batches
    loop.executor.close()


# --- with a real lane


async def test_a_lane_with_an_executor_answers_from_its_thread_what_fails_and_what_does_not():
    from tests.support.lanes import INTERNAL, Harness, Model

    seen = []

    class Slow(Model):
        def __call__(self, inputs):
            seen.append(threading.current_thread().name)
            eventually(lambda: len(set(seen)) == 2, "another runs beside it")
            return super().__call__(inputs)

    model = Slow(poison={5.0})
    with Harness() as plane:
        loop = Loop(n_threads=2, run=model)
        plane.lane(model, submit=loop.executor.submit, instances=2, max_batch_size=4)
        calls = [plane.send(float(i)) for i in range(12)]
        plane.turn()
        for _ in range(3):
            plane.settle(await loop.next())
        for i, call in enumerate(calls):
            if i == 5:
                assert call.code == INTERNAL
            else:
                assert call.rows == [2.0 * i]
        assert set(seen) == {"m/1-0", "m/1-1"}
        plane.expect_faults(RuntimeError)
        loop.executor.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
async def test_an_executor_for_shadow_work_leaves_the_core_to_whoever_else_wants_it():
    before = standing()
    found = []
    loop = Loop(yields=True)
    loop.executor.submit(Batch(lambda: found.append(standing())))
    await loop.next()
    ((niceness, slice_ns),) = found
    assert niceness == 19
    assert slice_ns in (0, 100_000), "0: Linux before 6.12"
    assert standing() == before, "nobody else's"
    loop.executor.close()
