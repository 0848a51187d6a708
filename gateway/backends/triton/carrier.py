"""Takes batches to a version's servers and back, without a thread: what an Executor is to a model in this process.

One ModelInfer a batch. Where the model or the input is at fault the batch is sent again in halves, until the guilty
request fails alone; where nobody answered, all of it fails, since halves would fare no better. When the last who waits
for a batch has left, its call is cancelled. Affinity: owning loop only.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Protocol

from gateway.backends.base import Array
from gateway.backends.triton import steps
from gateway.backends.triton.blame import Blame, Failure
from gateway.backends.triton.cargo import Cargo
from gateway.backends.triton.remote import Headers, Remote
from gateway.backends.triton.streams import Streams
from gateway.errors import Code
from gateway.native.batch import Batch
from gateway.native.parameters import encoded
from gateway.native.refusal import Refusal
from gateway.native.remote import Form

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def traced(traceparent: bytes | None) -> Headers:
    """The caller's traceparent, where it is one: gRPC refuses to send what is no header."""
    if traceparent is None or not _TRACEPARENT.fullmatch(traceparent):
        return ()
    return (("traceparent", traceparent.decode()),)


class Tap(Protocol):
    """Who may want to see values: gateway.serving.captures.Tap."""

    @property
    def capture(self) -> Any: ...

    def note(self, inputs: list[Array], outputs: list[Array]) -> None: ...


class Carrier:
    """`submit` and `close` as an Executor has them; `left` is for Lane.on_left. `forwards`: batches are of one request
    each, which goes on as it came.
    """

    def __init__(
        self,
        remote: Remote,
        form: Form,
        loop: asyncio.AbstractEventLoop,
        completed: Callable[[Batch], None],
        tap: Tap | None = None,
        *,
        forwards: bool = False,
        owns: bool = True,
        streams: Streams | None = None,
    ) -> None:
        self.streams = streams
        """For a lane whose streams are passed on as they come; None: their requests are batched like others."""
        self.remote, self._form, self._loop, self._completed = remote, form, loop, completed
        self._tap, self._forwards, self._owns = tap, forwards, owns
        self._out: dict[asyncio.Task[None], Batch] = {}
        self._is_looking = False
        self.closing: asyncio.Task[None] | None = None
        """Until its servers have been told."""

    def submit(self, batch: Batch) -> None:
        batch.begin()
        task = self._loop.create_task(self._carry(batch))
        self._out[task] = batch
        task.add_done_callback(self._back)

    def left(self) -> None:
        """Somebody no longer waits; native code has more to do before it can be seen who."""
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_soon(self._look)

    def close(self) -> None:
        """No batch is out, or the process ends."""
        for task in self._out:
            task.cancel()
        if self._owns:
            self.closing = self._loop.create_task(self.remote.close())

    def _look(self) -> None:
        self._is_looking = False
        for task, batch in self._out.items():
            if batch.is_abandoned:
                task.cancel()

    def _back(self, task: asyncio.Task[None]) -> None:
        batch = self._out.pop(task)
        if not task.cancelled() and (error := task.exception()):
            batch.refuse(0, batch.n_members, Code.INTERNAL, f"the gateway failed on {self.remote.title}", error)
        # Of one that was cancelled all members are gone: what they hear is nothing.
        self._completed(batch)

    async def _carry(self, batch: Batch) -> None:
        headers = traced(batch.trace) if batch.n_members == 1 else ()
        is_typical = False
        try:
            is_typical = await self._run(batch, 0, batch.n_members, headers)
        finally:
            batch.end(is_typical)

    def _forwarded(self, batch: Batch) -> bytes:
        """Headers that the deployment forwards are parameters to the model, as Triton itself has it."""
        request = self._form.forward(batch)
        return request + encoded(dict(batch.forwarded)) if batch.forwarded else request

    async def _run(self, batch: Batch, low: int, high: int, headers: Headers) -> bool:
        """Whether it went as it usually goes."""
        if batch.n_rows == 0 and self._form.signature.batched:  # servers refuse it, and there is nothing to ask
            batch.accept(low, high, self._form.nothing())
            return False
        try:
            if self.remote.is_decoupled:
                raise Refusal(
                    Code.UNIMPLEMENTED, f"{self.remote.title} answers on ModelStreamInfer only: it is decoupled"
                )
            cargo = Cargo(self._form, batch, low, high, self._forwarded(batch) if self._forwards else None)
            step = steps.of_message(cargo.message) if self.remote.has_sequences else None
            outputs = await self.remote.infer(cargo, batch.deadline_us / 1e6, headers, step)
        except Refusal as refusal:
            batch.refuse(low, high, refusal.code, refusal.text)
        except Failure as failure:
            of_one = failure.blame in (Blame.CALLER, Blame.MODEL) and failure.code != Code.DEADLINE_EXCEEDED
            if of_one and high - low > 1:
                middle = (low + high) // 2
                await self._run(batch, low, middle, headers)
                await self._run(batch, middle, high, headers)
                return False
            is_news = failure.code == Code.INTERNAL  # what befalls servers and connections is told once, by the fleet
            batch.refuse(low, high, failure.code, failure.text, failure if is_news else None)
        else:
            if not batch.accept(low, high, outputs):
                self.remote.doubt()
            elif self._tap is not None and self._tap.capture is not None:
                self._tap.note(batch.gather(low, high), outputs)
            return True
        return False
