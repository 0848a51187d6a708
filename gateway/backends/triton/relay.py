"""The requests of one ModelStreamInfer call that servers elsewhere answer: passed on as they come, as are the answers.

    caller ──on_request──▶ Way (one stream to one server) ──▶ Triton
    caller ◀──── call.send ◀── as often as the model likes ◀────┘

Back-pressure goes both ways: a caller who does not read stops the reading of its streams, and with too many requests
open it is not read from (n_relayed). Errors are in-band, as Triton has them, and the stream lives on. A request that
nobody has begun to answer when its server dies goes to another one; of one that was begun, or is part of a sequence,
the caller is told. Affinity: owning loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from gateway import pb
from gateway.backends.triton import steps
from gateway.backends.triton.blame import Blame, Failure
from gateway.backends.triton.carrier import traced
from gateway.backends.triton.endpoint import Endpoint, Outcome
from gateway.backends.triton.remote import Headers
from gateway.backends.triton.steps import Step
from gateway.backends.triton.streams import Streams
from gateway.errors import Code
from gateway.native.arm import Arm
from gateway.native.call import Call
from gateway.native.lane import Lane
from gateway.observability import logs

UNSENT_HIGH = 8
"""Answers that wait for the caller, above which its streams are not read."""
MOST_ATTEMPTS = 3

FINAL = "triton_final_response"
WANTS_FINAL = "triton_enable_empty_final_response"


@dataclass(slots=True, eq=False)
class Asked:
    """One request, until its last answer."""

    lane: Lane
    arm: Arm | None
    streams: Streams
    message: Any
    """The ModelInferRequest, by the names that it has there."""
    id: str
    """The caller's."""
    step: Step | None
    wants_final: bool
    began_s: float
    code: Code = Code.OK
    n_answers: int = 0
    tried: list[Endpoint] = field(default_factory=list)


class Relay:
    """What native.dataplane calls a relay of a call. `wake()` has sent what is to be sent; `is_draining()`: no more."""

    def __init__(self, call: Call, wake: Callable[[], None], is_draining: Callable[[], bool]) -> None:
        self._call, self._wake, self._is_draining = call, wake, is_draining
        self._loop = asyncio.get_running_loop()
        self._ways: dict[tuple[Streams, Endpoint], Way] = {}
        self._watched: set[Streams] = set()
        self._is_half_closed = False
        self._is_over = False
        self._drained = asyncio.Event()
        self._n_asked = 0
        self._waiting: set[asyncio.Task[None]] = set()
        """For the first word of the servers."""

    # --- the caller's side

    def on_request(self, lane: Lane, arm: Arm | None, message: bytes) -> None:
        streams: Streams = lane.relay
        request = pb.inference.ModelInferRequest.FromString(message)
        parameters = request.parameters
        wants_final = WANTS_FINAL in parameters and bool(parameters[WANTS_FINAL].bool_param)
        asked = Asked(lane, arm, streams, request, request.id, steps.of_request(request), wants_final, time.monotonic())
        self._n_asked += 1
        request.model_name, request.model_version = streams.names
        request.id = f"{asked.id}~{self._n_asked}"  # theirs alone, so that each answer finds its request
        parameters[WANTS_FINAL].bool_param = True
        for name, value in self._call.forwarded or ():  # headers that the deployment forwards, as Triton has it
            parameters[name].string_param = value
        lane.relay_began()
        self._call.n_relayed += 1
        if streams not in self._watched:
            self._watched.add(streams)
            streams.watch(self._drop)
        if lane.is_closed:
            self.refuse(asked, Code.UNAVAILABLE, f"{streams.title} is being unloaded")
        else:
            self.ask(asked)

    def on_half_close(self) -> None:
        self._is_half_closed = True
        for way in self._ways.values():
            way.close_when_idle()
        self._release_if_done()

    def on_cancel(self) -> None:
        """The call is over, whoever ended it."""
        self._is_over = True
        self._drained.set()
        for streams in self._watched:
            streams.unwatch(self._drop)
        for way in [*self._ways.values()]:
            way.abandon()
        self._ways.clear()

    # --- the servers' side

    def ask(self, asked: Asked) -> None:
        """Puts it on its way, or tells why not."""
        if not asked.streams.is_ready:
            self._waiting.add(task := self._loop.create_task(self._ask_when_ready(asked)))
            task.add_done_callback(self._waiting.discard)
            return
        try:
            endpoint = asked.streams.choose(asked.step, asked.tried)
        except Failure as failure:
            self.refuse(asked, failure.code, failure.text)
            return
        way = self._ways.get((asked.streams, endpoint))
        if way is None:
            way = self._ways[asked.streams, endpoint] = Way(self, asked.streams, endpoint)
        asked.tried.append(endpoint)
        asked.streams.began(endpoint, again=len(asked.tried) > 1)
        way.add(asked)

    async def _ask_when_ready(self, asked: Asked) -> None:
        await asked.streams.ready()
        if self._is_over:
            self._end(asked, cancelled=True)
        else:
            self.ask(asked)

    def pass_on(self, asked: Asked, response: Any, is_last: bool) -> None:
        """An answer of its server to the caller, under the names that the caller knows."""
        asked.n_answers += 1
        answer = response.infer_response
        if response.error_message:
            response.error_message = response.error_message.replace(answer.id, asked.id)
            asked.code = Code.INVALID_ARGUMENT if FINAL not in answer.parameters else Code.INTERNAL
        if answer.model_name:
            answer.model_name, answer.model_version = asked.streams.model, asked.streams.version
        answer.id = asked.id
        is_empty = is_last and not answer.outputs and not response.error_message
        if asked.wants_final or not is_empty:
            self._send(response)
        if is_last:
            self._end(asked)

    def refuse(self, asked: Asked, code: Code, text: str) -> None:
        response = pb.inference.ModelStreamInferResponse(error_message=text)
        response.infer_response.id = asked.id
        asked.code = code
        self._send(response)
        self._end(asked)

    def lost(self, way: Way, failure: Failure | None) -> None:
        """Its stream has ended. What was on it goes elsewhere or is told."""
        self._ways.pop((way.streams, way.endpoint), None)
        left, way.asked = [*way.asked.values()], {}
        outcome = failure.outcome if failure else Outcome.STREAMED
        for asked in left:
            way.streams.ended(way.endpoint, outcome, again=len(asked.tried) > 1)
            if self._is_over:
                self._end(asked, cancelled=True)
                continue
            may_go_on = not asked.n_answers and not asked.step and len(asked.tried) < MOST_ATTEMPTS
            if may_go_on and outcome in (Outcome.LOST, Outcome.FAILED) and way.streams.may_retry():
                self.ask(asked)
            elif failure:
                begun = " (it had begun to answer)" if asked.n_answers else ""
                again = f"; sequence {asked.step.key} is lost, begin it again with sequence_start" if asked.step else ""
                self.refuse(asked, failure.code, f"{failure.text}{begun}{again}")
            else:
                self.refuse(asked, Code.INTERNAL, f"{way.streams.title}: the server ended the stream before the answer")
        self._release_if_done()

    async def room(self) -> None:
        """Returns when the caller has taken enough of what it was sent."""
        while self._call.n_unsent >= UNSENT_HIGH and not self._is_over:
            self._drained.clear()
            self._call.drained = self._drained.set
            await self._drained.wait()

    def headers(self) -> Headers:
        return traced(self._call.traceparent)

    def left_s(self) -> float | None:
        """Of the caller's deadline."""
        deadline_us = self._call.deadline_us
        return max(deadline_us / 1e6 - time.monotonic(), 0.001) if deadline_us else None

    @property
    def is_half_closed(self) -> bool:
        return self._is_half_closed

    def _send(self, response: Any) -> None:
        if not self._is_over:
            self._call.send(response.SerializeToString())
            self._wake()

    def _end(self, asked: Asked, *, cancelled: bool = False) -> None:
        took_us = int((time.monotonic() - asked.began_s) * 1e6)
        asked.lane.relay_ended(asked.arm, -1 if cancelled else asked.code, took_us)
        self._call.n_relayed -= 1
        if self._is_over:
            return
        self._call.resume()
        if self._call.n_relayed == 0 and self._is_draining():
            self.on_cancel()
            self._call.finish(Code.UNAVAILABLE, "the gateway is shutting down")
            self._wake()

    def _release_if_done(self) -> None:
        if self._is_half_closed and not self._ways and self._call.n_relayed == 0 and not self._is_over:
            self.on_cancel()
            self._call.release()
            self._wake()

    def _drop(self, endpoint: Endpoint) -> None:
        for (_, other), way in [*self._ways.items()]:
            if other is endpoint:
                way.drop()


class Way:
    """One stream to one server."""

    def __init__(self, relay: Relay, streams: Streams, endpoint: Endpoint) -> None:
        self._relay, self.streams, self.endpoint = relay, streams, endpoint
        self.asked: dict[str, Asked] = {}
        """By the id that it has there, oldest first."""
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        """Requests to be written; None: no more come."""
        self._is_dropped = False
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._on_end)

    def add(self, asked: Asked) -> None:
        self.asked[asked.message.id] = asked
        self._queue.put_nowait(asked.message)

    def close_when_idle(self) -> None:
        if not self.asked:
            self._queue.put_nowait(None)

    def drop(self) -> None:
        """Its server is down, though the connection may not know it yet."""
        self._is_dropped = True
        self._task.cancel()

    def abandon(self) -> None:
        """The caller has left."""
        self._task.cancel()

    async def _run(self) -> Failure | None:
        """Until the stream ends; why it failed."""
        writer: asyncio.Task[None] | None = None
        stream: Any = None
        try:
            stream = await self.streams.open(self.endpoint, self._relay.headers(), self._relay.left_s())
            writer = asyncio.get_running_loop().create_task(self._write(stream))
            while (data := await stream.read()) is not grpc.aio.EOF:
                self._on_answer(data)
                await self._relay.room()
            return None
        except Failure as failure:
            return failure
        except grpc.aio.AioRpcError as error:
            return self.streams.failure(error, self.endpoint)
        finally:
            if writer:
                writer.cancel()
            if stream:
                stream.cancel()

    def _on_end(self, task: asyncio.Task[Failure | None]) -> None:
        if task.cancelled():
            failure = self.streams.down(self.endpoint) if self._is_dropped else None
        elif error := task.exception():
            logs.get().error(
                "stream failed", version=self.streams.title, endpoint=self.endpoint.address, exc_info=error
            )
            text = f"the gateway failed on {self.streams.title}"
            failure = Failure(Blame.GATEWAY, Code.INTERNAL, text, str(error), Outcome.CANCELLED)
        else:
            failure = task.result()
        self._relay.lost(self, failure)

    async def _write(self, stream: Any) -> None:
        try:
            while (message := await self._queue.get()) is not None:
                await stream.write(message.SerializeToString())
            await stream.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the reader learns why

    def _on_answer(self, data: bytes) -> None:
        response = pb.inference.ModelStreamInferResponse.FromString(data)
        answer = response.infer_response
        asked = self.asked.get(answer.id)
        if asked is None:  # it was told already, or the server speaks of nothing that it was asked
            return
        parameters = answer.parameters
        # An error without the mark is one about the request as such: nothing follows.
        is_last = parameters[FINAL].bool_param if FINAL in parameters else True
        if is_last:
            del self.asked[answer.id]
            self.streams.ended(self.endpoint, Outcome.STREAMED, again=len(asked.tried) > 1)
        self._relay.pass_on(asked, response, is_last)
        if not self.asked and self._relay.is_half_closed:
            self._queue.put_nowait(None)
