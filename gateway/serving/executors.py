"""What runs the batches of a version: threads of this process, or servers elsewhere. Affinity: owning loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from gateway.backends.base import Backend
from gateway.batching.dispatch import Executor
from gateway.native.batch import Batch
from gateway.native.call import Call
from gateway.native.connection import Hub
from gateway.native.lane import Lane
from gateway.serving.captures import Tap

if TYPE_CHECKING:
    from gateway.backends.triton.relay import Relay
    from gateway.backends.triton.remote import Remote


class Runs(Protocol):
    def submit(self, batch: Batch) -> None: ...

    def close(self) -> None: ...


class Executors:
    """Makes them for one worker. What is connected to servers is connected once, for all versions."""

    def __init__(self, completed: Callable[[Batch], None]) -> None:
        self._completed = completed
        self._loop = asyncio.get_running_loop()
        self._links: object = None

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
        return (
            Carrier(remote, form, self._loop, self._completed, tap, forwards=forwards, streams=streams),
            Carrier(remote, form, self._loop, self._completed, forwards=forwards, owns=False),
        )

    def _remote(self, backend: Backend, on_state: Callable[[str], None]) -> Remote:
        from gateway.backends.triton.backend import TritonBackend
        from gateway.backends.triton.link import Links
        from gateway.backends.triton.remote import Remote

        assert isinstance(backend, TritonBackend)
        if not isinstance(self._links, Links):
            self._links = Links()
        return Remote(
            backend.title,
            backend.names,
            backend.settings,
            backend.addresses,
            backend.wish,
            backend.described,
            self._links,
            on_state,
        )


def connect(lane: Lane, runs: Runs) -> None:
    """A lane whose batches are elsewhere says when somebody leaves one, and may pass streams on as they come."""
    lane.on_left = getattr(runs, "left", None)
    lane.relay = getattr(runs, "streams", None)


def relay_for(hub: Hub, call: Call) -> Relay:
    """Of a call with requests for such a lane: hub.relays."""
    from gateway.backends.triton.relay import Relay

    return Relay(call, hub.wake, lambda: hub.is_draining)


def remote_of(runs: Runs) -> Remote | None:
    """The servers that it takes batches to; None: it has none."""
    remote: Remote | None = getattr(runs, "remote", None)
    return remote
