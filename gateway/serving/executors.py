"""What runs the batches of a version: threads of this process, or servers elsewhere. Affinity: owning loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from gateway.backends.base import Backend
from gateway.batching.dispatch import Executor
from gateway.native.batch import Batch
from gateway.native.call import Call
from gateway.native.connection import Hub
from gateway.native.lane import Lane
from gateway.serving.captures import Tap

if TYPE_CHECKING:
    from gateway.backends.triton.carrier import Carrier
    from gateway.backends.triton.relay import Relay
    from gateway.backends.triton.remote import Remote

CLOSE_S = 3.5
"""For servers elsewhere to be told that nobody comes back; the supervisor has patience for a little more."""


class Runs(Protocol):
    def submit(self, batch: Batch) -> None: ...

    def close(self) -> None: ...


class Executors:
    """Makes them for one worker. What is connected to servers is connected once, for all versions."""

    def __init__(self, completed: Callable[[Batch], None]) -> None:
        self._completed = completed
        self._loop = asyncio.get_running_loop()
        self._links: object = None
        self._carriers: WeakSet[Carrier] = WeakSet()

    def pair(
        self, name: str, backend: Backend, tap: Tap, n_threads: int, on_state: Callable[[str], None]
    ) -> tuple[Runs, Runs]:
        """For a version's lane and for its shadow work. `on_state(reason)` hears when servers elsewhere can no longer
        be asked, and "" when they can.
        """
        if not backend.runs_elsewhere:
            return (
                Executor(name, tap, n_threads, self._loop, self._completed),
                Executor(f"{name} shadow", backend.run, 1, self._loop, self._completed, yields=True),
            )
        from gateway.backends.triton.backend import TritonBackend
        from gateway.backends.triton.carrier import Carrier
        from gateway.backends.triton.streams import Streams

        assert isinstance(backend, TritonBackend)
        remote, form = self._remote(backend, on_state), backend.form
        forwards = backend.forwards
        own_way = remote.is_decoupled or remote.has_sequences
        streams = Streams(remote, backend.native.model, backend.native.version) if own_way else None
        carrier = Carrier(remote, form, self._loop, self._completed, tap, forwards=forwards, streams=streams)
        self._carriers.add(carrier)
        return (
            carrier,
            Carrier(remote, form, self._loop, self._completed, forwards=forwards, owns=False),
        )

    async def closed(self) -> None:
        """What was closed has left its servers too, or took too long."""
        closing = [carrier.closing for carrier in self._carriers if carrier.closing]
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_S)

    def _remote(self, backend: Backend, on_state: Callable[[str], None]) -> Remote:
        from gateway.backends.triton.backend import TritonBackend
        from gateway.backends.triton.link import Links
        from gateway.backends.triton.remote import Remote
        from gateway.backends.triton.segments import sweep

        assert isinstance(backend, TritonBackend)
        if not isinstance(self._links, Links):
            self._links = Links()
            sweep()
        return Remote(
            backend.title,
            backend.names,
            backend.settings,
            backend.addresses,
            backend.wish,
            backend.described,
            self._links,
            on_state,
            backend.in_flight_each,
            shares=not backend.forwards and not backend.described.is_decoupled,
        )


def connect(lane: Lane, runs: Runs, wake: Callable[[], None] | None = None) -> None:
    """A lane whose batches are elsewhere says when somebody leaves one, may pass streams on as they come, and, given
    `wake`, has as many out as its servers may have.
    """
    lane.on_left = getattr(runs, "left", None)
    lane.relay = getattr(runs, "streams", None)
    if wake and (remote := remote_of(runs)):

        def resize(in_flight: int) -> None:
            lane.resize(in_flight)
            wake()

        remote.on_in_flight = resize


def relay_for(hub: Hub, call: Call) -> Relay:
    """Of a call with requests for such a lane: hub.relays."""
    from gateway.backends.triton.relay import Relay

    return Relay(call, hub.wake, lambda: hub.is_draining)


def remote_of(runs: Runs) -> Remote | None:
    """The servers that it takes batches to; None: it has none."""
    remote: Remote | None = getattr(runs, "remote", None)
    return remote
