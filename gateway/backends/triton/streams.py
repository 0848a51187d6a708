"""Streams to the servers of one version, for models that answer as often as they like or keep state for sequences.

What a Relay needs of them: who is asked, a stream there, and the account that the fleet keeps. Affinity: owning loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc.aio

from gateway.backends.triton import blame
from gateway.backends.triton.blame import Blame, Failure
from gateway.backends.triton.endpoint import Endpoint, Outcome
from gateway.backends.triton.remote import Headers, Remote
from gateway.backends.triton.steps import Step
from gateway.errors import Code


class Streams:
    """`model` and `version` are what callers know it as, `names` what it is called there."""

    def __init__(self, remote: Remote, model: str, version: str) -> None:
        self._remote, self.model, self.version = remote, model, version
        self.names, self.title = remote.names, remote.title

    def choose(self, step: Step | None, exclude: list[Endpoint]) -> Endpoint:
        """Who is asked; `exclude`: who has failed on it. Failure."""
        if step:
            return self._remote.endpoint_of(step)
        endpoint = self._remote.fleet.pick(1, time.monotonic(), exclude)
        if endpoint is None:
            raise blame.nobody(self.title, self._remote.fleet.why_none())
        return endpoint

    async def open(self, endpoint: Endpoint, headers: Headers, left_s: float | None) -> Any:
        """A grpc.aio stream of serialized messages, both ways. Failure."""
        return await self._remote.stream(endpoint, headers, left_s)

    @property
    def is_ready(self) -> bool:
        return self._remote.is_begun

    async def ready(self) -> None:
        """Whether there is anybody to ask is known."""
        await self._remote.ready()

    def began(self, endpoint: Endpoint, *, again: bool) -> None:
        self._remote.fleet.started(endpoint, 1, time.monotonic(), again=again)

    def ended(self, endpoint: Endpoint, outcome: Outcome, *, again: bool) -> None:
        self._remote.fleet.ended(endpoint, 1, outcome, 0.0, time.monotonic(), again=again)

    def may_retry(self) -> bool:
        return self._remote.fleet.may_retry(time.monotonic())

    def failure(self, error: grpc.aio.AioRpcError, endpoint: Endpoint) -> Failure:
        return self._remote.failure(error, endpoint)

    def down(self, endpoint: Endpoint) -> Failure:
        """What is said of a stream that was given up because its server is down."""
        text = f"{self.title}: Triton at {endpoint.address} went down before the answer came"
        return Failure(Blame.NETWORK, Code.UNAVAILABLE, text, endpoint.reason, Outcome.LOST)

    def watch(self, drop: Callable[[Endpoint], None]) -> None:
        """`drop(endpoint)` hears of each that comes down."""
        self._remote.on_down.add(drop)

    def unwatch(self, drop: Callable[[Endpoint], None]) -> None:
        self._remote.on_down.discard(drop)
